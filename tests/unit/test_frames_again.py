"""Frames decoded again are those that were extracted: the same pixels, whatever part of them is asked for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import media_video as made_by
import pytest
from media_video import MadeVideo, Track
from PIL import Image

from visionlake.udfs import frames_again as module
from visionlake.udfs._decoder import Decoder
from visionlake.udfs._errors import MediaError
from visionlake.udfs.frame_types import Frame, FrameError, FrameOptions, Limits
from visionlake.udfs.frames_again import frames_again
from visionlake.udfs.uris import stat, to_uri

LIMITS = Limits(stall_s=30)
GROUPS = {"preset": "ultrafast", "g": "10", "bf": "2", "x264-params": "scenecut=0:open-gop=1"}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(limits=LIMITS) as made:
        yield made


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where each decoding began."""
    begun, plain = [], module._decoded

    def spied(part: Any, frames: Any, start: Any, limits: Limits) -> Any:
        begun.append(start)
        return plain(part, frames, start, limits)

    monkeypatch.setattr(module, "_decoded", spied)
    return begun


def extracted(decoder: Decoder, path: Path, *, kind: Any = "video", **options: Any) -> list[Frame]:
    found = decoder.frames(to_uri(path), kind=kind, options=FrameOptions(image_format="png", **options))
    frames = []
    with suppress(MediaError):  # frames before the damage are frames all the same
        for frame in found:
            assert isinstance(frame, Frame)
            frames.append(frame)
    assert frames
    return frames


def part(path: Path, chosen: list[Frame], *, kind: str = "video", **changes: Any) -> dict[str, Any]:
    facts = stat(to_uri(path))
    own_times = all(frame.pts_source == "container" and frame.pts_offset == 0 for frame in chosen)
    return {
        "media_id": "m", "kind": kind, "uri": to_uri(path), "size_bytes": facts.size_bytes, "mtime": facts.mtime,
        "elsewhere": None, "stream_index": chosen[0].stream_index, "is_seekable": own_times and kind == "video",
        "frames": [vars(frame) for frame in chosen], **changes,
    }  # fmt: skip


def pixels(frame: Frame) -> bytes:
    assert frame.image is not None
    return Image.open(io.BytesIO(frame.image)).convert("RGB").tobytes()


def equal(again: dict[int, Any], frames: list[Frame]) -> bool:
    return {pts: found.tobytes() for pts, found in again.items()} == {frame.pts: pixels(frame) for frame in frames}


@pytest.mark.parametrize("made", (*made_by.WHOLE, *made_by.TRUNCATED), ids=lambda made: made.__name__)
def test_any_frames_of_any_stream(made: Callable[[Path], MadeVideo], tmp_path: Path, decoder: Decoder) -> None:
    path = made(tmp_path).path
    frames = extracted(decoder, path)
    for index in {frame.stream_index for frame in frames}:
        stream = [frame for frame in frames if frame.stream_index == index]
        for chosen in (stream, stream[1::3], stream[-1:]):
            if chosen:
                assert equal(dict(frames_again(part(path, chosen), limits=LIMITS)), chosen)


@pytest.mark.parametrize("name", ["long.mp4", "long.mkv", "long.ts"])
def test_late_frames_are_found_without_decoding_all_before(
    name: str, tmp_path: Path, decoder: Decoder, starts: list[str]
) -> None:
    path = made_by.write(tmp_path / name, Track(pts=[i * 512 for i in range(120)], options=GROUPS))
    frames = extracted(decoder, path)[83:107:4]
    assert equal(dict(frames_again(part(path, frames), limits=LIMITS)), frames)
    assert starts == ["keyframe"]


def test_sizes_and_square_pixels_come_out_as_they_were(tmp_path: Path, decoder: Decoder) -> None:
    track = Track(pts=[i * 512 for i in range(4)], options=GROUPS, sample_aspect=Fraction(4, 3))
    path = made_by.write(tmp_path / "wide.mp4", track)
    for options in ({"max_side_px": 50}, {"square_pixels": True}, {"square_pixels": True, "max_side_px": 77}):
        frames = extracted(decoder, path, **options)
        assert equal(dict(frames_again(part(path, frames), limits=LIMITS)), frames)


def test_what_was_extracted_under_a_larger_bound_is_decoded_under_a_smaller_one(
    tmp_path: Path, decoder: Decoder
) -> None:
    path = made_by.write(tmp_path / "a.mp4", Track(pts=[i * 512 for i in range(4)], options=GROUPS))
    frames = extracted(decoder, path, max_side_px=50)
    small = Limits(stall_s=30, max_pixels=frames[0].full_width_px * frames[0].full_height_px - 1)
    assert equal(dict(frames_again(part(path, frames), limits=small)), frames)


@pytest.mark.parametrize("turn", [1, 6])
def test_stills(turn: int, tmp_path: Path, decoder: Decoder) -> None:
    path, exif = tmp_path / "still.jpg", Image.Exif()
    exif[0x0112] = turn
    Image.effect_noise((64, 40), 90).convert("RGB").save(path, quality=85, exif=exif)
    (frame,) = extracted(decoder, path, kind="image")
    assert (frame.width_px, frame.height_px) == ((40, 64) if turn == 6 else (64, 40))
    assert equal(dict(frames_again(part(path, [frame], kind="image"), limits=LIMITS)), [frame])


def test_a_frame_that_looks_otherwise_is_decoded_from_the_start(
    tmp_path: Path, decoder: Decoder, starts: list[str]
) -> None:
    path = made_by.write(tmp_path / "a.mp4", Track(pts=[i * 512 for i in range(30)], options=GROUPS))
    frames = extracted(decoder, path)[12:20]
    wanted = part(path, frames)
    wanted["frames"] = [values | {"sharpness": 0.5} if n == 3 else values for n, values in enumerate(wanted["frames"])]
    assert equal(dict(frames_again(wanted, limits=LIMITS)), frames)
    assert starts == ["keyframe", "start"]


def test_what_is_not_there_says_so(tmp_path: Path, decoder: Decoder) -> None:
    path = made_by.write(tmp_path / "a.mp4", Track(pts=[i * 512 for i in range(5)], options=GROUPS))
    first, *_ = frames = extracted(decoder, path)

    def reasons(**changes: Any) -> dict[int, str]:
        again = frames_again(part(path, frames[:1], **changes), limits=LIMITS)
        return {pts: found.reason if isinstance(found, MediaError) else "none" for pts, found in again}

    assert reasons() == {0: "none"}
    assert reasons(frames=[vars(first), vars(first) | {"pts": 7}]) == {0: "none", 7: "frame_missing"}
    assert reasons(frames=[vars(first) | {"width_px": 128, "height_px": 90}]) == {0: "frame_differs"}
    other = f"{int(first.phash or '', 16) ^ 0xFFFF:016x}"
    assert reasons(frames=[vars(first) | {"phash": other}]) == {0: "frame_differs"}
    assert reasons(size_bytes=1) == {0: "source_changed"}
    assert reasons(uri=None) == {0: "source_missing"}
    assert reasons(uri=to_uri(tmp_path / "none.mp4")) == {0: "source_missing"}
    assert reasons(uri=None, elsewhere=[{"uri": to_uri(path)}]) == {0: "none"}
    path.write_bytes(b"no video")
    assert reasons(size_bytes=None, mtime=None) == {0: "not_media"}


def test_what_claims_the_time_of_an_earlier_frame_is_passed_over(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made_by.write(tmp_path / "a.mp4", Track(pts=[i * 512 for i in range(3)], options=GROUPS))
    frames = extracted(decoder, path)
    plain = module._decoded
    again = FrameError(stream_index=0, pts=0, reason="pts_not_increasing", message="again")

    def doubled(*arguments: Any) -> Any:
        for pts, found in plain(*arguments):
            yield pts, found
            yield 0, again

    monkeypatch.setattr(module, "_decoded", doubled)
    for is_seekable in (True, False):
        assert equal(dict(frames_again(part(path, frames, is_seekable=is_seekable), limits=LIMITS)), frames)
