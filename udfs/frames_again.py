"""Frames of which a table holds the identity and no pixels: decoded again from their media."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from math import isclose
from typing import Any, Literal

import pyarrow as pa
from PIL import Image

from ._decoder import kept_decoder
from ._errors import MediaError
from ._media_places import find_place, media_error
from .frame_types import Frame, FrameError, FrameOptions, Limits
from .stills import fitted_size

Known = Mapping[str, Any]
_MEASURES = ("brightness", "contrast", "sharpness")
_ROUNDING = 1e-6  # of measures that other versions of libraries compute
_OTHER_PICTURE_BITS = 12  # of the 64 of two hashes; other conversions of colour change a few


def frames_again(part: Known, *, limits: Limits) -> Iterator[tuple[int, Image.Image | MediaError]]:
    """The pictures (RGB) of some frames of one stream as they were extracted, each with its pts, in no set order.

    `part` has `uri`, `kind`, and what else is known of the file (see `extract_frames`), `stream_index`, and `frames`
    with pts, sizes and measures as table `frames` has them. Where `is_seekable` (times are the container's own),
    decoding begins near the first of them. Not every stream can be entered at every place that says so: from the first
    frame on that does not look as it did, decoding begins anew at the start.

    A frame that does not come out gives a MediaError: what decoding raises, source_missing, source_changed,
    read_failed, frame_missing, frame_differs.
    """
    waiting = {frame["pts"]: frame for frame in part["frames"]}
    # What was extracted under a larger bound may be decoded again.
    sizes = [(frame["full_width_px"] or 0) * (frame["full_height_px"] or 0) for frame in part["frames"]]
    limits = replace(limits, max_pixels=max(limits.max_pixels, *sizes))
    failure = MediaError("frame_missing", "the media has no such frame: extract its frames again")
    for start in ("keyframe", "start") if part["is_seekable"] else ("start",):
        try:
            for pts, found in _decoded(part, [*waiting.values()], start, limits):
                if pts not in waiting:  # what comes after it claims the same time
                    continue
                if start == "keyframe" and (isinstance(found, FrameError) or not _is_same(found, waiting[pts])):
                    break
                known = waiting.pop(pts)
                yield pts, _picture(found, known)
        except (MediaError, OSError) as error:
            found = media_error(error)
            if start == "start" and found.reason != "nothing_selected":
                failure = found
        if not waiting:
            return
    for pts in waiting:
        yield pts, failure


def _decoded(
    part: Known, frames: Iterable[Known], start: Literal["keyframe", "start"], limits: Limits
) -> Iterator[tuple[int, Frame | FrameError]]:
    """Those frames, and what is wrong with one of them."""
    uri, _ = find_place(part)
    for (max_side_px, square_pixels), wanted in _by_size(frames).items():
        options = FrameOptions(
            max_side_px=max_side_px,
            square_pixels=square_pixels,
            image_format="rgb",
            wanted=tuple((part["stream_index"], pts) for pts in wanted),
            decode_from=start,
        )
        with closing(kept_decoder(limits).frames(uri, kind=part["kind"], options=options)) as found:
            for frame in found:
                if frame.pts in wanted and frame.stream_index == part["stream_index"]:
                    yield frame.pts, frame


def _by_size(frames: Iterable[Known]) -> dict[tuple[int, bool], set[int]]:
    """Times of frames by the settings that give their sizes: the longest side, and whether pixels became square."""
    found: dict[tuple[int, bool], set[int]] = {}
    for frame in frames:
        size, longest = (frame["width_px"], frame["height_px"]), max(frame["width_px"], frame["height_px"])
        is_squared = fitted_size(frame["full_width_px"], frame["full_height_px"], longest) != size
        found.setdefault((longest, is_squared), set()).add(frame["pts"])
    return found


def _is_same(found: Frame, known: Known) -> bool:
    """Whether a frame looks as it did, to the last pixel."""
    if (found.width_px, found.height_px, found.phash) != (known["width_px"], known["height_px"], known["phash"]):
        return False
    pairs = [(getattr(found, name), known[name]) for name in _MEASURES]
    return all(a == b or (None not in (a, b) and isclose(a, b, rel_tol=_ROUNDING)) for a, b in pairs)


def _picture(found: Frame | FrameError, known: Known) -> Image.Image | MediaError:
    if isinstance(found, FrameError):
        return MediaError(found.reason, found.message, found.payload)
    size, before = (found.width_px, found.height_px), (known["width_px"], known["height_px"])
    if size != before or found.image is None:
        text = "{} x {} pixels when it was extracted, and {} x {} now: extract frames again".format(*before, *size)
        return MediaError("frame_differs", f"the frame had {text}")
    if found.phash and known["phash"]:
        differing = (int(found.phash, 16) ^ int(known["phash"], 16)).bit_count()
        if differing > _OTHER_PICTURE_BITS:
            text = "the media shows another picture at that time than when it was extracted: ingest it again"
            return MediaError("frame_differs", text)
    return Image.frombytes("RGB", size, found.image)


def fill_images(batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, limits: Limits) -> Iterator[pa.RecordBatch]:
    """Rows of `schema` (that of table `frames`), few of them, a PNG in `image` where it was null and can be had.

    Beside those columns the rows of `batches` have what `frames_again` wants to know of the file.
    """
    for batch in batches:
        rows = batch.to_pylist()
        parts: dict[tuple[str, int], dict[int, dict[str, Any]]] = {}
        for row in rows:
            if row["image"] is None:
                parts.setdefault((row["media_id"], row["stream_index"]), {})[row["pts"]] = row
        for frames in parts.values():
            first = next(iter(frames.values()))
            is_seekable = all(row["pts_source"] == "container" and row["pts_offset"] == 0 for row in frames.values())
            part = first | {"is_seekable": is_seekable, "frames": [*frames.values()]}
            for pts, picture in frames_again(part, limits=limits):
                if isinstance(picture, Image.Image):
                    frames[pts] |= {"image": _png(picture), "image_format": "png"}
        columns = {name: [row[name] for row in rows] for name in schema.names}
        yield pa.RecordBatch.from_pydict(columns, schema=schema)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
