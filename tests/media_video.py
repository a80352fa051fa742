"""Makes small videos with known times and colours, written without the code under test.

Every picture has four quadrants of known colour and a grey centre that tells which frame it is. Pixels are converted to
YCbCr here, in plain numpy, so that a wrong matrix or range in the decoder cannot hide behind the same mistake.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 128, 96
CORNERS = ((200, 40, 30), (40, 170, 60), (30, 50, 190), (210, 190, 50))
"""Red-green-blue of the quadrants: top left, top right, bottom left, bottom right."""

CORNER_TOLERANCE = 8
"""Wide enough for compression, too narrow for a wrong matrix (>= 15 off here) or a wrong range (>= 14 off)."""

BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
MATRIX_TAGS = {BT601: 6, BT709: 1, BT2020: 9}

Corners = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class MadeStream:
    """What a stream must come out as: `pts` in presentation order, in ticks of `time_base`; `markers` are the grey
    values of the centres."""

    index: int
    pts: tuple[int, ...]
    time_base: Fraction
    corners: Corners = CORNERS
    size: tuple[int, int] = (WIDTH, HEIGHT)
    pts_source: str = "container"
    markers: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MadeVideo:
    """A file and what must come out of it; `error` is the reason that must follow the frames, if any."""

    path: Path
    streams: tuple[MadeStream, ...]
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Track:
    """How one stream is made."""

    pts: Sequence[int]
    time_base: Fraction = Fraction(1, 15360)
    rate: Fraction = Fraction(30)
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    matrix: tuple[float, float] = BT601
    full_range: bool = False
    tag_colour: bool = True
    size: tuple[int, int] = (WIDTH, HEIGHT)
    options: dict[str, str] = field(default_factory=dict)
    sample_aspect: Fraction | None = None
    codec_tag: str | None = None


def marker(index: int) -> int:
    """Grey value of the centre of frame `index`."""
    return 40 + 9 * (index % 20)


def draw(index: int, *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> np.ndarray:
    """The upright RGB picture of frame `index`, float, height x width x 3."""
    width, height = size
    picture = np.empty((height, width, 3), dtype=np.float64)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = CORNERS[0], CORNERS[1]
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = CORNERS[2], CORNERS[3]
    picture[height // 2 - 16 : height // 2 + 16, width // 2 - 16 : width // 2 + 16] = marker(index)
    return picture


def to_ycbcr(picture: np.ndarray, *, matrix: tuple[float, float], full_range: bool, bits: int = 8) -> np.ndarray:
    """Y, Cb, Cr planes of an 8-bit RGB picture, by the definitions of BT.601, BT.709 and BT.2020."""
    kr, kb = matrix
    red, green, blue = (picture[..., channel] / 255 for channel in range(3))
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
    scale, top = 1 << (bits - 8), (1 << bits) - 1
    if full_range:
        planes = [luma * top, *(plane * top + (top + 1) // 2 for plane in chroma)]
    else:
        planes = [(219 * luma + 16) * scale, *((224 * plane + 128) * scale for plane in chroma)]
    return np.clip(np.round(np.stack(planes)), 0, top).astype(np.uint8 if bits == 8 else np.uint16)


def video_frame(index: int, track: Track) -> av.VideoFrame:
    """Frame `index` of a track, in the track's own pixel format."""
    picture = draw(index, size=track.size)
    if track.pixel_format in ("rgba", "gray"):
        return av.VideoFrame.from_ndarray(_plain_pixels(picture, track.pixel_format), format=track.pixel_format)
    bits = 10 if track.pixel_format.endswith("10le") else 8
    planes = to_ycbcr(picture, matrix=track.matrix, full_range=track.full_range, bits=bits)
    halved = [plane[::2, ::2] for plane in planes[1:]]
    width = track.size[0]
    packed = np.concatenate([planes[0].reshape(-1), *(plane.reshape(-1) for plane in halved)]).reshape(-1, width)
    return av.VideoFrame.from_ndarray(packed, format=track.pixel_format)


def _plain_pixels(picture: np.ndarray, pixel_format: str) -> np.ndarray:
    if pixel_format == "gray":
        return np.round(picture.mean(axis=2)).astype(np.uint8)
    alpha = np.full((*picture.shape[:2], 1), 255.0)
    alpha[:, : picture.shape[1] // 2] = 128
    return np.concatenate([picture, alpha], axis=2).astype(np.uint8)


def write(
    path: Path, *tracks: Track, options: dict[str, str] | None = None, shift: int = 0, format: str | None = None
) -> Path:
    """Encode the tracks into `path`; `shift` ticks are added to every packet's times after encoding."""
    with av.open(str(path), "w", options=options or {}, format=format) as container:
        streams = [_add_stream(container, track) for track in tracks]
        jobs = [(pts * track.time_base, number, index) for number, track in enumerate(tracks)
                for index, pts in enumerate(track.pts)]  # fmt: skip
        for _, number, index in sorted(jobs):
            frame = video_frame(index, tracks[number])
            frame.pts, frame.time_base = tracks[number].pts[index], tracks[number].time_base
            _mux(container, streams[number].encode(frame), shift)
        for stream in streams:
            _mux(container, stream.encode(None), shift)
    return path


def _add_stream(container: Any, track: Track) -> Any:
    stream = container.add_stream(track.codec, rate=track.rate, options={"threads": "1", **track.options})
    stream.width, stream.height = track.size
    stream.pix_fmt = track.pixel_format
    stream.codec_context.time_base = stream.time_base = track.time_base
    if track.codec_tag:
        stream.codec_context.codec_tag = track.codec_tag
    if track.sample_aspect:
        stream.codec_context.sample_aspect_ratio = track.sample_aspect
    if track.tag_colour and track.pixel_format.startswith("yuv"):
        stream.codec_context.colorspace = MATRIX_TAGS[track.matrix]
        stream.codec_context.color_range = 2 if track.full_range else 1
    return stream


def _mux(container: Any, packets: Iterable[Any], shift: int) -> None:
    for packet in packets:
        if shift:
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
        container.mux(packet)
