from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.error import InvalidDataError
from PIL import Image

from visionlake.udfs.sample_media import SampleReport, make_sample
from visionlake.udfs.scenes import render_scene

TINY: dict[str, Any] = {"videos": 5, "seconds": 1.2, "width_px": 96, "height_px": 64, "fps": 10}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleReport:
    return make_sample(tmp_path_factory.mktemp("sample"), **TINY)


def decoded(path: Path) -> tuple[list[tuple[int, np.ndarray, int]], bool]:
    """(pts, RGB pixels as stored, rotation) of all frames, and whether decoding ended with an error."""
    frames: list[tuple[int, np.ndarray, int]] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        try:
            for frame in container.decode(stream):
                assert frame.pts is not None
                frames.append((frame.pts, frame.to_ndarray(format="rgb24"), frame.rotation))
        except InvalidDataError:
            return frames, True
    return frames, False


def truth_of(sample: SampleReport, path: str) -> dict[str, Any]:
    return json.loads((sample.truth / f"{Path(path).name}.json").read_text())


def test_the_folders_hold_what_the_report_says(sample: SampleReport) -> None:
    kinds = [file.kind for file in sample.files]
    assert kinds == ["video"] * 5 + ["still"] * 2 + ["not_media"]
    assert sorted(path.name for path in sample.media.iterdir()) == sorted(Path(f.path).name for f in sample.files)
    assert sorted(f"truth/{path.name}" for path in sample.truth.iterdir()) == sorted(
        f.truth for f in sample.files if f.truth
    )
    for file in sample.files:
        data = (sample.folder / file.path).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        if file.truth:
            truth = truth_of(sample, file.path)
            assert (truth["media_id"], len(truth["frames"])) == (file.sha256, file.frames)


def test_the_truth_is_there_as_coco_has_it(sample: SampleReport) -> None:
    content = json.loads((sample.folder / "annotations.json").read_text())
    frames = {(i["visionlake"]["media_id"], i["visionlake"]["pts"]): i for i in content["images"]}
    files = [file for file in sample.files if file.truth]
    assert len(frames) == len(content["images"]) == sum(file.frames for file in files)
    assert len({each["id"] for each in content["annotations"]}) == len(content["annotations"])
    for file in files:
        truth = truth_of(sample, file.path)
        for pts, frame in truth["frames"].items():
            image = frames[file.sha256, int(pts)]
            own = [each for each in content["annotations"] if each["image_id"] == image["id"]]
            assert [each["segmentation"] for each in own] == [thing["mask"] for thing in frame["objects"]]
            assert [bool(each["iscrowd"]) for each in own] == [each["visibility"] < 0.5 for each in frame["objects"]]


def test_truth_has_the_pts_of_the_file_and_its_pictures(sample: SampleReport) -> None:
    for file in sample.files:
        if file.kind != "video":
            continue
        truth = truth_of(sample, file.path)
        frames, failed = decoded(sample.folder / file.path)
        assert [str(pts) for pts, *_ in frames] == list(truth["frames"]), file.path
        assert failed == ("damaged_from_pts" in truth) == file.path.endswith("_damaged.mp4")
        numerator, denominator = truth["time_base"]
        scene, size = truth["scene"], (truth["width_px"], truth["height_px"])
        times = [frame["time_s"] for frame in truth["frames"].values()]
        assert times == pytest.approx([pts * numerator / denominator for pts, *_ in frames])
        rendered = render_scene(
            scene["seed"], scene["index"], times_s=times, split=scene["split"], width_px=size[0], height_px=size[1]
        )
        for drawn, (pts, pixels, rotation) in zip(rendered, frames, strict=True):
            upright = np.rot90(pixels, rotation // 90)
            assert upright.shape == (size[1], size[0], 3)
            assert np.abs(upright.astype(int) - drawn.pixels).mean() < 12
            listed = truth["frames"][str(pts)]["objects"]
            assert [(one["track_id"], one["box"]) for one in listed] == [
                (o.track_id, list(o.box)) for o in drawn.objects
            ]


def test_each_video_is_what_its_name_says(sample: SampleReport) -> None:
    by_name = {Path(file.path).name: sample.folder / file.path for file in sample.files}
    gaps = {
        name: set(np.diff([pts for pts, *_ in decoded(path)[0]])) for name, path in by_name.items() if "video_0" in name
    }
    assert len(gaps["video_01_variable_rate.mp4"]) > 5
    assert all(len(each) == 1 for name, each in gaps.items() if "variable" not in name)
    assert {rotation for *_, rotation in decoded(by_name["video_02_rotated.mp4"])[0]} == {-90}
    assert len(decoded(by_name["video_03_damaged.mp4"])[0]) == 8
    with av.open(str(by_name["video_04_b_frames.mp4"])) as container:
        dts = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert dts != sorted(dts)  # type: ignore[type-var]  # every packet of an MP4 file has a pts
    with pytest.raises(InvalidDataError):
        av.open(str(by_name["not_a_video.mp4"]))


def test_stills_show_their_scene(sample: SampleReport) -> None:
    for file in (each for each in sample.files if each.kind == "still"):
        truth = truth_of(sample, file.path)
        scene = truth["scene"]
        (drawn,) = render_scene(scene["seed"], scene["index"], times_s=[1.0], width_px=96, height_px=64)
        with Image.open(sample.folder / file.path) as picture:
            difference = np.abs(np.asarray(picture.convert("RGB"), int) - drawn.pixels).mean()
        assert difference < (8 if file.path.endswith(".jpg") else 1e-9)
        assert list(truth["frames"]) == ["0"]


@pytest.mark.parametrize("processes", [1, 2])
def test_other_processes_write_the_same_bytes(sample: SampleReport, tmp_path: Path, processes: int) -> None:
    wanted = TINY | {"processes": processes}
    code = f"from visionlake.udfs.sample_media import make_sample; make_sample('out', **{wanted!r})"
    # A hash seed of its own: this process has another one, or a random one.
    environment = os.environ | {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=60, check=True)
    for path in sorted(path for path in sample.folder.rglob("*") if path.is_file()):
        assert (tmp_path / "out" / path.relative_to(sample.folder)).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_processes_end_with_the_one_that_they_draw_for(tmp_path: Path, sent: signal.Signals) -> None:
    command = [sys.executable, "-m", "visionlake", "sample", "out", "--videos", "40", "--seconds", "1"]
    # A suite that a shell runs in its background was told to ignore Ctrl-C, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert _soon(lambda: [*tmp_path.glob("out/truth/*.json")])
        running.send_signal(sent)
        assert running.wait(20) != 0
        # One that was killed stays until whoever inherits it has looked.
        assert _soon(lambda: not any(p.status() != psutil.STATUS_ZOMBIE for p in _of_session(running.pid)))
    finally:
        for left in _of_session(running.pid):
            left.kill()


def _of_session(leader: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader:
                found.append(process)
    return found


def _soon(holds: Callable[[], Any]) -> bool:
    return any(holds() or time.sleep(0.1) for _ in range(200))


def test_a_second_call_writes_only_what_is_needed(tmp_path: Path) -> None:
    tiny = TINY | {"videos": 2, "seconds": 0.3}
    calls: list[tuple[int, int]] = []
    first = make_sample(tmp_path, **tiny, progress=lambda done, total: calls.append((done, total)))
    assert first.written and calls == [(3, 8), (6, 8), (7, 8), (8, 8)]
    video = tmp_path / first.files[0].path
    content, times = video.read_bytes(), video.stat().st_mtime_ns
    again = make_sample(tmp_path, **tiny)
    assert not again.written and again.files == first.files and video.stat().st_mtime_ns == times
    video.write_bytes(content[:-1])
    assert make_sample(tmp_path, **tiny).written and video.read_bytes() == content
    fewer = make_sample(tmp_path, **tiny | {"videos": 1, "split": "held_out"})
    assert video.read_bytes() != content
    assert sorted(path.name for path in fewer.media.iterdir()) == sorted(Path(f.path).name for f in fewer.files)
    (fewer.media / "mine.mp4").touch()
    with pytest.raises(FileExistsError, match=r"holds 'mine\.mp4'"):
        make_sample(tmp_path, **tiny)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1; allowed: 0 and more"),
        ({"videos": 0}, "videos is 0"),
        ({"seconds": 0}, "seconds is 0"),
        ({"width_px": 97}, "width_px is 97; allowed: even numbers"),
        ({"height_px": 20}, "height_px is 20"),
        ({"fps": 0}, "fps is 0"),
        ({"split": "test"}, "split is 'test'; allowed: train, held_out"),
    ],
)
def test_impossible_values_are_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sample(tmp_path / "none", **TINY | wrong)
    assert not (tmp_path / "none").exists()
