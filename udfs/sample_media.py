"""The sample data set: generated videos and pictures with exact truth, and what goes wrong in real folders.

`make_sample` writes `media/` (what a pipeline reads), `truth/` (a JSON document per media file that can be read),
`annotations.json` (the same as one COCO file, in which objects that are less than half visible are crowds: to find or
miss them does not count) and `sample.json` (the arguments and all files, so that a second call with the same arguments
has nothing to do).

A truth document: `media`, `media_id` (SHA-256 of the file), `scene` (seed, index, split), `labels` (a label's id is
its position), `width_px` and `height_px` (upright), `stream_index`, `time_base` (numerator, denominator), and `frames`,
keyed by pts in decimal digits: `time_s`, `camera` and `objects` as `visionlake.udfs.scenes` defines them, masks as COCO
RLE. Of a damaged video only the frames before the damage are listed; `damaged_from_pts` is the first lost one.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ._decoder_child import die_with
from ._sample_video import damage, encode_video, read_times
from .scenes import LABELS, SPLITS, Pixels, SceneFrame, Split, render_scene

MediaKind = Literal["video", "still", "not_media"]
Progress = Callable[[int, int], None]

_VERSION = 2  # of the drawings and the files: raise it when the same arguments give other bytes
_VARIANTS = {  # in this order, again and again
    "video_{:02d}.mp4": "constant rate",
    "video_{:02d}_variable_rate.mp4": "variable rate",
    "video_{:02d}_rotated.mp4": "turned upright by its display matrix",
    "video_{:02d}_damaged.mp4": "damaged after two thirds",
    "video_{:02d}_b_frames.mp4": "with B-frames",
}
_STILLS = ("still_00.jpg", "still_01.png")
_STILL_SCENES = 100_000  # scenes from this index on are for stills
_TEXT = "not_a_video.mp4"
_ANNOTATIONS = "annotations.json"
_HALF = 0.5


@dataclass(frozen=True, kw_only=True)
class SampleFile:
    """One file of the sample; paths are relative to its folder. `frames` counts those that can be decoded."""

    path: str
    truth: str | None
    kind: MediaKind
    note: str
    frames: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SampleReport:
    """What is in a sample's folder; `written` is false where it was all there already."""

    folder: Path
    files: tuple[SampleFile, ...]
    written: bool

    @property
    def media(self) -> Path:
        """The folder for a pipeline to read."""
        return self.folder / "media"

    @property
    def truth(self) -> Path:
        """The folder with the truth."""
        return self.folder / "truth"


_Made = tuple[SampleFile, int]  # and how many frames were drawn for it
_Job = Callable[[], _Made]


def make_sample(
    folder: str | Path,
    *,
    seed: int = 0,
    videos: int = 6,
    seconds: float = 4.0,
    width_px: int = 640,
    height_px: int = 360,
    fps: int = 12,
    split: Split = "train",
    processes: int = 1,
    progress: Progress | None = None,
) -> SampleReport:
    """Write the sample into `folder`; the same arguments give the same bytes.

    Of every five videos the second has a variable rate, the third is turned by its display matrix, the fourth is
    damaged after two thirds and the fifth has B-frames; two stills and a text file named `.mp4` come with them.
    `split="held_out"` gives other hues and backgrounds. With more than one of `processes` files are made side by side,
    and a script that calls this must be one that `multiprocessing` can import. `progress` is called after each file,
    with the frames done and all.

    Raises `ValueError` for an impossible value and `FileExistsError` where `media/` holds anything else.
    """
    options = _Options(
        seed=seed, videos=videos, seconds=seconds, width_px=width_px, height_px=height_px, fps=fps, split=split
    )
    options.check()
    folder = Path(folder)
    earlier = _read_manifest(folder)
    if earlier and earlier["version"] == _VERSION and earlier["arguments"] == asdict(options):
        present = tuple(SampleFile(**each) for each in earlier["files"])
        if all(_is_whole(folder, each) for each in present) and (folder / _ANNOTATIONS).is_file():
            return SampleReport(folder=folder, files=present, written=False)
    variants = list(_VARIANTS.items())
    plan = [(variants[k % len(variants)][0].format(k), variants[k % len(variants)][1]) for k in range(videos)]
    _clear(folder, earlier, [*(name for name, _ in plan), *_STILLS, _TEXT])

    jobs: list[_Job] = [partial(_make_video, folder, name, k, note, options) for k, (name, note) in enumerate(plan)]
    jobs += [partial(_make_still, folder, name, _STILL_SCENES + k, options) for k, name in enumerate(_STILLS)]
    total, done = videos * options.frame_count + len(_STILLS), 0
    files: list[SampleFile] = []
    for file, drawn in _made(jobs, processes):
        files.append(file)
        done += drawn
        if progress:
            progress(done, total)
    text = b"This file has the name of a video and holds a line of text.\n"
    files.append(_write(folder, _TEXT, text, None, kind="not_media", note="a text file with the name of a video"))
    _write_annotations(folder, files)
    manifest = {"version": _VERSION, "arguments": asdict(options), "files": [asdict(each) for each in files]}
    (folder / "sample.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return SampleReport(folder=folder, files=tuple(files), written=True)


@dataclass(frozen=True, kw_only=True)
class _Options:
    seed: int
    videos: int
    seconds: float
    width_px: int
    height_px: int
    fps: int
    split: Split

    @property
    def frame_count(self) -> int:
        return max(3, round(self.seconds * self.fps))

    def check(self) -> None:
        allowed = {
            "seed": (self.seed >= 0, "0 and more"),
            "videos": (1 <= self.videos <= 10_000, "1 to 10000"),
            "seconds": (0 < self.seconds <= 3600, "more than 0, up to 3600"),
            "width_px": (48 <= self.width_px <= 4096 and self.width_px % 2 == 0, "even numbers from 48 to 4096"),
            "height_px": (48 <= self.height_px <= 4096 and self.height_px % 2 == 0, "even numbers from 48 to 4096"),
            "fps": (1 <= self.fps <= 120, "1 to 120"),
            "split": (self.split in SPLITS, ", ".join(SPLITS)),
        }
        for name, (fits, what) in allowed.items():
            if not fits:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {what}")


def _made(jobs: Sequence[_Job], processes: int) -> Iterator[_Made]:
    """The files, in their order."""
    if processes == 1:
        yield from (job() for job in jobs)
        return
    spawn = get_context("spawn")  # threads would wait for each other
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_end_with, initargs=(os.getpid(),)) as pool:
        yield from pool.map(_call, jobs)


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, or is interrupted, and not after all that it was given."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        die_with(parent)


def _call(job: _Job) -> _Made:
    return job()


def _make_video(folder: Path, name: str, index: int, note: str, options: _Options) -> _Made:
    data, document = _video(name, index, options)
    return _write(folder, name, data, document, kind="video", note=f"a video, {note}"), options.frame_count


def _make_still(folder: Path, name: str, index: int, options: _Options) -> _Made:
    data, document = _still(name, index, options)
    return _write(folder, name, data, document, kind="still", note="a picture"), 1


def _video(name: str, index: int, options: _Options) -> tuple[bytes, dict[str, Any]]:
    rotated = name.endswith("_rotated.mp4")
    size = options.width_px, options.height_px
    upright = (size[1], size[0]) if rotated else size
    if name.endswith("_variable_rate.mp4"):
        pts, time_base = _uneven(options, index), Fraction(1, 90_000)
    else:
        pts, time_base = [k * 512 for k in range(options.frame_count)], Fraction(1, options.fps * 512)
    kept: list[SceneFrame] = []

    def stored() -> Iterator[tuple[int, Pixels]]:
        times = [float(at * time_base) for at in pts]
        frames = render_scene(
            options.seed, index, times_s=times, split=options.split, width_px=upright[0], height_px=upright[1]
        )
        for at, frame in zip(pts, frames, strict=True):
            yield at, np.rot90(frame.pixels) if rotated else frame.pixels
            kept.append(replace(frame, pixels=np.zeros((0, 0, 3), np.uint8)))  # the truth without the pixels

    data = encode_video(
        stored(),
        time_base=time_base,
        rate=Fraction(options.fps),
        size=size,
        b_frames=name.endswith("_b_frames.mp4"),
        quality=22 + 2 * (index % 4),
        turned=rotated,
    )
    # What the file says, not what was asked for: a muxer may choose another unit, or shift the start.
    pts, time_base = read_times(data)
    if len(pts) != len(kept):
        raise RuntimeError(f"{name}: {len(kept)} frames went in, {len(pts)} are in the file")
    lost: dict[str, Any] = {}
    if name.endswith("_damaged.mp4"):
        whole = len(pts) * 2 // 3
        data, lost = damage(data, first=whole), {"damaged_from_pts": pts[whole]}
        pts, kept = pts[:whole], kept[:whole]
    document = _document(data, name, index, options, dict(zip(pts, kept, strict=True)), time_base, upright)
    return data, document | lost


def _uneven(options: _Options, index: int) -> list[int]:
    """Times in 1/90000 s whose gaps, from half a frame to three, fit no grid."""
    rng = np.random.default_rng([options.seed, index, options.frame_count, options.fps])
    gaps = rng.choice([0.5, 0.8, 1.0, 1.0, 1.3, 2.0, 3.0], size=options.frame_count - 1)
    gaps = gaps * rng.uniform(0.9, 1.1, size=len(gaps))
    ticks = np.rint(gaps / gaps.mean() * 90_000 / options.fps).astype(int)
    return [0, *np.cumsum(ticks).tolist()]


def _still(name: str, index: int, options: _Options) -> tuple[bytes, dict[str, Any]]:
    size = options.width_px, options.height_px
    frames = render_scene(options.seed, index, times_s=[1.0], split=options.split, width_px=size[0], height_px=size[1])
    (frame,) = frames
    buffer = BytesIO()
    picture = Image.fromarray(frame.pixels)
    if name.endswith(".jpg"):
        picture.save(buffer, "JPEG", quality=90)
    else:
        picture.save(buffer, "PNG")
    data = buffer.getvalue()
    return data, _document(data, name, index, options, {0: frame}, Fraction(1), size)


def _document(
    data: bytes,
    name: str,
    index: int,
    options: _Options,
    frames: dict[int, SceneFrame],
    time_base: Fraction,
    size: tuple[int, int],
) -> dict[str, Any]:
    return {
        "media": name,
        "media_id": hashlib.sha256(data).hexdigest(),
        "scene": {"seed": options.seed, "index": index, "split": options.split},
        "labels": list(LABELS),
        "width_px": size[0],
        "height_px": size[1],
        "stream_index": 0,
        "time_base": [time_base.numerator, time_base.denominator],
        "frames": {str(pts): _frame_truth(frame) for pts, frame in frames.items()},
    }


def _frame_truth(frame: SceneFrame) -> dict[str, Any]:
    return {
        "time_s": frame.time_s,
        "camera": asdict(frame.camera),
        "objects": [{"label_id": each.label_id, **asdict(each)} for each in frame.objects],
    }


def _write(
    folder: Path, name: str, data: bytes, document: dict[str, Any] | None, *, kind: MediaKind, note: str
) -> SampleFile:
    (folder / "media" / name).write_bytes(data)
    if document is not None:
        truth = folder / "truth" / f"{name}.json"
        truth.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    return SampleFile(
        path=f"media/{name}",
        truth=f"truth/{name}.json" if document is not None else None,
        kind=kind,
        note=note,
        frames=len(document["frames"]) if document is not None else 0,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _write_annotations(folder: Path, files: Sequence[SampleFile]) -> None:
    """The truth of all files as COCO has it, each frame named by its content, stream and pts."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for file in files:
        if file.truth is None:
            continue
        document = json.loads((folder / file.truth).read_text(encoding="utf-8"))
        for pts, frame in document["frames"].items():
            image = {"id": len(images) + 1, "file_name": document["media"], "width": document["width_px"],
                     "height": document["height_px"]}  # fmt: skip
            images.append(image | {"visionlake": {"media_id": document["media_id"], "pts": int(pts),
                                                  "stream_index": document["stream_index"]}})  # fmt: skip
            for each in frame["objects"]:
                annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **_coco_object(each)})
    categories = [{"id": place, "name": name} for place, name in enumerate(LABELS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / _ANNOTATIONS).write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _coco_object(each: dict[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = each["box"]
    return {
        "category_id": each["label_id"],
        "bbox": [left, top, right - left, bottom - top],
        "segmentation": each["mask"],
        "iscrowd": int(each["visibility"] < _HALF),
        "track_id": each["track_id"],
        "attributes": {"visibility": each["visibility"]},
    }


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "sample.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _is_whole(folder: Path, file: SampleFile) -> bool:
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size_bytes:
        return False
    if file.truth is not None and not (folder / file.truth).is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == file.sha256


def _clear(folder: Path, earlier: dict[str, Any] | None, names: list[str]) -> None:
    """Make the folders, without the files of an earlier sample; files of anyone else are not touched."""
    own = {Path(each["path"]).name for each in earlier["files"]} if earlier else set()
    media, truth = folder / "media", folder / "truth"
    media.mkdir(parents=True, exist_ok=True)
    truth.mkdir(exist_ok=True)
    foreign = sorted({path.name for path in media.iterdir()} - own - set(names))
    if foreign:
        raise FileExistsError(f"{media} holds {foreign[0]!r}, which is not of a sample; choose an empty folder")
    (folder / "sample.json").unlink(missing_ok=True)
    for name in own - set(names):
        (media / name).unlink(missing_ok=True)
        (truth / f"{name}.json").unlink(missing_ok=True)
