"""The decoder process: whatever happens to it is an error of one media, and it never outlives its worker."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import media_video as made_by
import pytest
from PIL import Image

from visionlake.udfs import _decoder
from visionlake.udfs._decoder import Decoder
from visionlake.udfs._errors import MediaError
from visionlake.udfs.frame_types import Frame, FrameOptions, Limits
from visionlake.udfs.uris import to_uri
from visionlake.udfs.video_frames import video_frames

PLAIN = FrameOptions(image_format="none")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_by.constant_rate(tmp_path_factory.mktemp("decoder")).path


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough that a pipe does not hold all of its frames."""
    track = made_by.Track(pts=[i * 512 for i in range(150)], options=made_by.FAST)
    return made_by.write(tmp_path_factory.mktemp("decoder") / "long.mp4", track)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(limits=Limits(stall_s=20)) as shared:
        yield shared


def frames(decoder: Decoder, path: Path, options: FrameOptions = PLAIN) -> list[Frame]:
    return [f for f in decoder.frames(to_uri(path), kind="video", options=options) if isinstance(f, Frame)]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_one_child_gives_what_decoding_in_process_gives(decoder: Decoder, video: Path) -> None:
    options = FrameOptions(fps=Fraction(30000, 1001), start_s=Fraction(1, 10), end_s=Fraction(1, 2), max_side_px=64)
    direct = list(video_frames(str(video), options=options, limits=Limits()))
    assert direct and frames(decoder, video, options) == direct
    child = decoder.child_pid
    assert frames(decoder, video, options) == direct
    assert decoder.probe(to_uri(video), size_bytes=video.stat().st_size)["kind"] == "video"
    assert decoder.child_pid == child


def test_closing_ends_the_child(video: Path) -> None:
    with Decoder() as decoder:
        frames(decoder, video)
        child = decoder.child_pid or 0
        assert is_alive(child)
    assert wait_until_gone(child)


def test_errors_of_the_media_keep_the_child(decoder: Decoder, tmp_path: Path, video: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("words " * 100)
    with pytest.raises(MediaError, match="not_media"):
        frames(decoder, text)
    child = decoder.child_pid
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(made_by.truncated_mp4(tmp_path).path.read_bytes())
    found = []
    with pytest.raises(MediaError, match="truncated"):
        found.extend(decoder.frames(to_uri(cut), kind="video", options=PLAIN))
    assert found == [] or found[0].pts == 0
    assert len(frames(decoder, video)) == 20 and decoder.child_pid == child


def test_a_stopped_child_is_a_timeout_and_is_replaced(long_video: Path, video: Path) -> None:
    with Decoder(limits=Limits(stall_s=2.0)) as decoder:
        with pytest.raises(MediaError, match=r"decoder_timeout.*stall_s = 2; after the frame of stream 0 at") as caught:
            _stop_after_the_first(decoder, long_video, signal.SIGSTOP)
        assert caught.value.reason == "decoder_timeout"
        decoder.limits = Limits()
        assert len(frames(decoder, video)) == 20


def _stop_after_the_first(decoder: Decoder, path: Path, sent: int) -> None:
    found = decoder.frames(to_uri(path), kind="video", options=FrameOptions(image_format="png"))
    next(found)
    os.kill(decoder.child_pid or 0, sent)
    list(found)


@pytest.mark.long
def test_a_read_that_never_returns_is_a_timeout(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    with Decoder(limits=Limits(stall_s=1.5)) as decoder, pytest.raises(MediaError, match="decoder_timeout"):
        frames(decoder, pipe)


def test_time_for_one_media_is_bounded(long_video: Path) -> None:
    with Decoder(limits=Limits(wall_s=0.05)) as decoder, pytest.raises(MediaError, match=r"wall_s = 0\.05"):
        frames(decoder, long_video, FrameOptions(image_format="png"))


def test_a_killed_child_is_a_crash_and_is_replaced(decoder: Decoder, long_video: Path, video: Path) -> None:
    with pytest.raises(MediaError, match=r"decoder_crashed.*SIGKILL; after the frame of stream 0"):
        _stop_after_the_first(decoder, long_video, signal.SIGKILL)
    assert len(frames(decoder, video)) == 20


def test_a_child_that_died_while_idle_goes_unnoticed(decoder: Decoder, video: Path) -> None:
    assert len(frames(decoder, video)) == 20
    os.kill(decoder.child_pid or 0, signal.SIGKILL)
    assert wait_until_gone(decoder.child_pid or 0)
    assert len(frames(decoder, video)) == 20


def test_idle_children_end_and_busy_ones_finish(long_video: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_decoder, "IDLE_S", 0.1)
    with Decoder() as decoder:
        started = decoder.frames(to_uri(long_video), kind="video", options=PLAIN)
        count = len([next(started)])
        busy = decoder.child_pid
        frames(decoder, video)  # by a second child
        idle = decoder.child_pid
        assert idle != busy and wait_until_gone(idle or 0)
        assert decoder.child_pid == busy
        assert count + len(list(started)) == 150 and wait_until_gone(busy or 0)
        assert decoder.child_pid is None
        assert len(frames(decoder, video)) == 20


@pytest.mark.skipif(sys.platform != "linux", reason="the system has no limit on address space")
def test_memory_is_bounded(tmp_path: Path, video: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (5120, 5120)).save(picture, "JPEG")
    big = tmp_path / "big.mjpeg"
    big.write_bytes(picture.getvalue() * 2)
    with Decoder(limits=Limits(memory_mib=60, max_pixels=27_000_000)) as decoder:
        with pytest.raises(MediaError) as caught:
            frames(decoder, big)
        assert caught.value.reason in ("decoder_memory", "decoder_crashed")
        assert len(frames(decoder, video)) == 20


def test_an_abandoned_answer_does_not_reach_the_next_request(decoder: Decoder, long_video: Path, video: Path) -> None:
    started = decoder.frames(to_uri(long_video), kind="video", options=PLAIN)
    assert next(started).pts == 0
    assert len(frames(decoder, video)) == 20
    assert next(started).pts == 512
    started.close()  # type: ignore[attr-defined]  # a generator
    assert len(frames(decoder, video)) == 20


def test_a_remote_file_is_read_by_the_worker(decoder: Decoder, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = frames(decoder, video)
    monkeypatch.setattr(_decoder, "local_path", lambda uri: None)
    assert frames(decoder, video) == here
    assert decoder.probe(to_uri(video), size_bytes=video.stat().st_size)["kind"] == "video"


def test_a_remote_file_that_cannot_be_read_is_an_error_of_reading(
    decoder: Decoder, long_video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0:
                raise OSError("the network is down")
            return super().read(min(size or 0, 2_000))

    monkeypatch.setattr(_decoder, "local_path", lambda uri: None)
    monkeypatch.setattr(_decoder, "open_input", lambda uri: Failing(long_video.read_bytes()))
    with pytest.raises(MediaError, match="read_failed: the network is down"):
        frames(decoder, long_video)


@pytest.mark.skipif(sys.platform != "linux", reason="the system cannot tie a child to its parent")
@pytest.mark.parametrize("stopped", [False, True], ids=["busy", "stopped"])
def test_the_child_does_not_outlive_a_killed_worker(long_video: Path, stopped: bool) -> None:
    script = (
        "import sys, time\n"
        "from visionlake.udfs._decoder import Decoder\n"
        "from visionlake.udfs.frame_types import FrameOptions\n"
        "decoder = Decoder()\n"
        "found = decoder.frames(sys.argv[1], kind='video', options=FrameOptions())\n"
        "next(found)\n"
        "print(decoder.child_pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, to_uri(long_video)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = int(worker.stdout.readline())
        assert is_alive(child)
        if stopped:
            os.kill(child, signal.SIGSTOP)
        worker.kill()
    assert wait_until_gone(child)


def test_the_child_imports_nothing_heavy_and_nothing_from_the_working_directory(tmp_path: Path, video: Path) -> None:
    for name in ("json.py", "struct.py", "av.py"):
        (tmp_path / name).write_text("raise SystemExit('a foreign file was imported')\n")
    script = (
        "import sys, pathlib\n"
        "from visionlake.udfs._decoder import Decoder\n"
        "from visionlake.udfs.frame_types import FrameOptions\n"
        "with Decoder() as decoder:\n"
        "    list(decoder.frames(sys.argv[1], kind='video', options=FrameOptions()))\n"
        "    print(pathlib.Path(f'/proc/{decoder.child_pid}/maps').read_text())\n"
    )
    command = [sys.executable, "-P", "-c", script, to_uri(video)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    libraries = {line.split("/")[-1] for line in found.splitlines() if "/" in line}
    assert any(name.startswith("libavcodec") for name in libraries)
    assert not [name for name in libraries if name.startswith(("libtorch", "libarrow", "libjvm"))]
