"""What goes into and comes out of decoding: options, limits, and one frame."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

ImageFormat = Literal["jpeg", "png", "none", "rgb"]


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Which frames to keep and how to store them.

    `fps` keeps frames on a grid of k / fps seconds from a stream's first displayed frame; None keeps every frame.
    `start_s` (inclusive) and `end_s` (exclusive) are seconds from that first frame, exact, and do not move the grid.
    `max_frames` counts per stream. `max_side_px` bounds the longer side of the stored picture; `square_pixels`
    resamples it to square pixels. `jpeg_quality` is Pillow's, 1-95. The format "rgb" is bare pixels, three bytes each.

    `wanted`, as (stream_index, pts), are the frames to keep and no others, beside all of the above. With `decode_from`
    "keyframe" decoding begins near the first of them, which must all be of one stream whose times are the container's
    own; indexes are unknown then, and a stream that can be entered nowhere may give pixels that are not those of a
    decoding from the start.
    """

    fps: Fraction | None = None
    keyframes_only: bool = False
    start_s: Fraction | None = None
    end_s: Fraction | None = None
    max_frames: int | None = None
    max_side_px: int | None = None
    square_pixels: bool = False
    image_format: ImageFormat = "jpeg"
    jpeg_quality: int = 92
    wanted: tuple[tuple[int, int], ...] | None = None
    decode_from: Literal["start", "keyframe"] = "start"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on the work on one piece of media.

    `memory_mib` is address space beside the pixel budget; `stall_s` is how long the decoder may give no answer before
    it counts as hung; `wall_s` bounds one media in all; `max_pixels` bounds one picture; `threads` is per decoder.
    """

    memory_mib: int = 1024
    stall_s: float = 60.0
    wall_s: float = 3600.0
    max_pixels: int = 89_478_485
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame: the columns of table `frames` that come from the media itself, with the same names and units."""

    stream_index: int
    pts: int
    time_base_num: int
    time_base_den: int
    pts_s: float
    pts_source: Literal["container", "index"]
    pts_offset: int
    frame_index: int | None
    is_keyframe: bool
    width_px: int
    height_px: int
    full_width_px: int
    full_height_px: int
    image: bytes | None
    image_format: Literal["jpeg", "png", "webp", "rgb"] | None
    brightness: float | None
    contrast: float | None
    sharpness: float | None
    phash: str | None


@dataclass(frozen=True, kw_only=True)
class FrameError:
    """Something is wrong with one frame while the rest of the media goes on. See `MediaError` for the fields.

    `pts` is null where the frame has no usable time.
    """

    stream_index: int | None
    pts: int | None
    reason: str
    message: str
    payload: str | None = None
