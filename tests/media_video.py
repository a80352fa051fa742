"""Makes small videos with known times and colours, written without the code under test.

Every picture has four quadrants of known colour and a grey centre that tells which frame it is. Pixels are converted to
YCbCr here, in plain numpy, so that a wrong matrix or range in the decoder cannot hide behind the same mistake.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT = 128, 96
CORNERS = ((200, 40, 30), (40, 170, 60), (30, 50, 190), (210, 190, 50))
"""Red-green-blue of the quadrants: top left, top right, bottom left, bottom right."""

CORNER_TOLERANCE = 8
"""Wide enough for compression, too narrow for a wrong matrix or range (at least 12 off here)."""

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
    if track.pixel_format in ("argb", "gray"):
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
    return np.concatenate([alpha, picture], axis=2).astype(np.uint8)


def write(
    path: Path, *tracks: Track, options: dict[str, str] | None = None, shift: int = 0, format: str | None = None
) -> Path:
    """Encode the tracks into `path`; `shift` ticks are added to every packet's times after encoding."""
    with av.open(str(path), "w", options=options or {}, format=format) as container:
        streams = [add_stream(container, track) for track in tracks]
        jobs = [(pts * track.time_base, number, index) for number, track in enumerate(tracks)
                for index, pts in enumerate(track.pts)]  # fmt: skip
        for _, number, index in sorted(jobs):
            frame = video_frame(index, tracks[number])
            frame.pts, frame.time_base = tracks[number].pts[index], tracks[number].time_base
            _mux(container, streams[number].encode(frame), shift)
        for stream in streams:
            _mux(container, stream.encode(None), shift)
    return path


def add_stream(container: Any, track: Track) -> Any:
    """The stream of a track in an output container."""
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


FAST = {"preset": "ultrafast", "crf": "10"}
REORDERED = FAST | {"bf": "2", "b-adapt": "0", "x264-params": "keyint=10:scenecut=0"}
HEVC = {"preset": "ultrafast", "crf": "10", "x265-params": "log-level=none:pools=none:frame-threads=1"}
COUNT = 20


def _one(track: Track, path: Path, pts: Sequence[int], **facts: Any) -> MadeVideo:
    """A video of one stream."""
    first = facts.pop("first", 0)
    error = facts.pop("error", None)
    facts = {"time_base": track.time_base, "size": track.size} | facts
    markers = tuple(marker(first + i) for i in range(len(pts)))
    return MadeVideo(path=path, streams=(MadeStream(index=0, pts=tuple(pts), markers=markers, **facts),), error=error)


def constant_rate(folder: Path) -> MadeVideo:
    track = Track(pts=[i * 512 for i in range(COUNT)], options=FAST)
    return _one(track, write(folder / "constant.mp4", track), track.pts)


def variable_rate(folder: Path) -> MadeVideo:
    track = Track(pts=[0, 512, 1000, 3000, 3100, 9000, 9512, 10100, 40000, 40001], options=FAST)
    return _one(track, write(folder / "variable.mp4", track), track.pts)


def edit_list(folder: Path) -> MadeVideo:
    """The first five frames lie before the start of the edit, and B-frames are stored out of order."""
    track = Track(pts=[i * 512 for i in range(COUNT)], options=REORDERED)
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    path = write(folder / "edit_list.mp4", track, shift=-5 * 512, options=options)
    return _one(track, path, [i * 512 for i in range(COUNT - 5)], first=5)


def matroska_ticks(folder: Path) -> MadeVideo:
    """30 frames a second on ticks of a millisecond: 0, 33, 67, 100, ..."""
    track = Track(pts=[round(i * 1000 / 30) for i in range(40)], time_base=Fraction(1, 1000), options=FAST)
    return _one(track, write(folder / "ticks.mkv", track), track.pts)


def _transport_track(count: int = 40) -> Track:
    return Track(
        pts=[i * 3600 for i in range(count)], time_base=Fraction(1, 90000), rate=Fraction(25), options=REORDERED
    )


def joined_transport(folder: Path) -> MadeVideo:
    """Two recordings one behind the other: the times start again."""
    track = _transport_track()
    part = write(folder / "part.ts", track).read_bytes()
    path = folder / "joined.ts"
    path.write_bytes(part * 2)
    start = _first_transport_pts(part)
    made = _one(track, path, [start + i * 3600 for i in range(80)])
    stream = made.streams[0]
    return MadeVideo(path=path, streams=(_with(stream, markers=stream.markers[:40] * 2),))


def wrapped_transport(folder: Path) -> MadeVideo:
    """The 33 bits of the clock overflow in the midst of the file."""
    track = _transport_track()
    path = write(folder / "unwrapped.ts", track)
    data = bytearray(path.read_bytes())
    start = _first_transport_pts(data)
    # The first 20 frames lie before the overflow. FFmpeg gives them negative times, so that time goes on.
    _shift_transport_clock(data, (1 << 33) - start - 20 * 3600)
    path = folder / "wrapped.ts"
    path.write_bytes(data)
    return _one(track, path, [(i - 20) * 3600 for i in range(40)])


def avi(folder: Path) -> MadeVideo:
    """No presentation times; B-frames, so that the stored order is another one."""
    track = Track(pts=range(COUNT), time_base=Fraction(1, 25), rate=Fraction(25), options=REORDERED)
    return _one(track, write(folder / "index.avi", track), range(COUNT), pts_source="index")


def raw_stream(folder: Path) -> MadeVideo:
    track = Track(pts=range(COUNT), time_base=Fraction(1, 25), rate=Fraction(25), options=REORDERED)
    return _one(track, write(folder / "raw.h264", track), range(COUNT), pts_source="index")


DISPLAY_MATRICES = {
    "upright": (1, 0, 0, 1),
    "turned_90": (0, 1, -1, 0),
    "turned_180": (-1, 0, 0, -1),
    "turned_270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}
"""`a b c d` of the matrix: a stored point (p, q) is shown at (a p + c q, b p + d q)."""


def hevc_turned(folder: Path, matrix: str) -> MadeVideo:
    """The same HEVC stream under one of the eight display matrices, written into the track header by hand."""
    track = Track(pts=[i * 512 for i in range(4)], codec="libx265", codec_tag="hvc1", options=HEVC)
    data = bytearray(write(folder / "plain.mp4", track).read_bytes())
    a, b, c, d = DISPLAY_MATRICES[matrix]
    body = data.index(b"tkhd") + 4
    assert data[body] == 0, "version 0: the matrix lies 40 bytes into the box"
    one = 1 << 16
    struct.pack_into(">9i", data, body + 40, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path = folder / f"{matrix}.mp4"
    path.write_bytes(data)
    size = (HEIGHT, WIDTH) if a == 0 else (WIDTH, HEIGHT)
    return _one(track, path, track.pts, corners=_moved_corners(a, b, c, d), size=size)


def _moved_corners(a: int, b: int, c: int, d: int) -> Corners:
    """Where the four corners come to lie, by the definition of the matrix; points are relative to the centre."""
    places = ((-1, -1), (1, -1), (-1, 1), (1, 1))
    shown = {(a * p + c * q, b * p + d * q): CORNERS[i] for i, (p, q) in enumerate(places)}
    return tuple(shown[place] for place in places)


def ten_bit(folder: Path) -> MadeVideo:
    """HEVC Main 10 in BT.2020."""
    track = Track(
        pts=[i * 512 for i in range(8)],
        codec="libx265",
        codec_tag="hvc1",
        options=HEVC,
        pixel_format="yuv420p10le",
        matrix=BT2020,
    )
    return _one(track, write(folder / "ten_bit.mp4", track), track.pts)


def full_range(folder: Path) -> MadeVideo:
    track = Track(pts=[i * 512 for i in range(8)], options=FAST, matrix=BT709, full_range=True)
    return _one(track, write(folder / "full_range.mp4", track), track.pts)


def limited_709(folder: Path) -> MadeVideo:
    track = Track(pts=[i * 512 for i in range(8)], options=FAST, matrix=BT709)
    return _one(track, write(folder / "limited_709.mp4", track), track.pts)


def untagged_large(folder: Path) -> MadeVideo:
    """No matrix is named, and the picture is large: BT.709 by the usual rule."""
    track = Track(pts=[0, 512], options=FAST, matrix=BT709, tag_colour=False, size=(1280, 720))
    return _one(track, write(folder / "untagged_large.mp4", track), track.pts)


def untagged_small(folder: Path) -> MadeVideo:
    """No matrix is named, and the picture is small: BT.601 by the usual rule."""
    track = Track(pts=[0, 512], options=FAST, tag_colour=False)
    return _one(track, write(folder / "untagged_small.mp4", track), track.pts)


def motion_jpeg(folder: Path) -> MadeVideo:
    track = Track(
        pts=[i * 512 for i in range(8)],
        codec="mjpeg",
        pixel_format="yuvj420p",
        full_range=True,
        tag_colour=False,
        options={"q": "2"},
    )
    return _one(track, write(folder / "motion_jpeg.mov", track), track.pts)


def transparent(folder: Path) -> MadeVideo:
    """Left half of half alpha: half as bright over black."""
    track = Track(pts=[i * 512 for i in range(4)], codec="qtrle", pixel_format="argb")
    corners = tuple(
        (round(r * 128 / 255), round(g * 128 / 255), round(b * 128 / 255)) if i % 2 == 0 else (r, g, b)
        for i, (r, g, b) in enumerate(CORNERS)
    )
    made = _one(track, write(folder / "transparent.mov", track), track.pts, corners=corners)
    return MadeVideo(path=made.path, streams=(_with(made.streams[0], markers=()),))


def grey(folder: Path) -> MadeVideo:
    track = Track(pts=[i * 512 for i in range(4)], codec="ffv1", pixel_format="gray")
    corners = tuple((round(sum(colour) / 3),) * 3 for colour in CORNERS)
    path = write(folder / "grey.mkv", track)
    return _one(track, path, [0, 33, 67, 100], corners=corners, time_base=Fraction(1, 1000))


def two_streams(folder: Path) -> MadeVideo:
    tracks = (
        Track(pts=[i * 512 for i in range(COUNT)], options=FAST),
        Track(pts=[3840 + i * 1024 for i in range(7)], options=FAST, size=(96, 64)),
    )
    path = write(folder / "two_streams.mp4", *tracks)
    streams = tuple(
        MadeStream(
            index=i,
            pts=tuple(t.pts),
            time_base=t.time_base,
            size=t.size,
            markers=tuple(marker(n) for n in range(len(t.pts))),
        )
        for i, t in enumerate(tracks)
    )
    return MadeVideo(path=path, streams=streams)


def truncated_matroska(folder: Path) -> MadeVideo:
    return _cut(matroska_ticks(folder), folder / "truncated.mkv")


def truncated_mp4(folder: Path) -> MadeVideo:
    """The index comes first, so that the file opens."""
    track = Track(pts=[i * 512 for i in range(COUNT)], options=FAST)
    path = write(folder / "whole.mp4", track, options={"movflags": "faststart"})
    return _cut(_one(track, path, track.pts), folder / "truncated.mp4")


def truncated_transport(folder: Path) -> MadeVideo:
    track = _transport_track()
    path = write(folder / "whole.ts", track)
    start = _first_transport_pts(path.read_bytes())
    return _cut(_one(track, path, [start + i * 3600 for i in range(40)]), folder / "truncated.ts")


def _cut(made: MadeVideo, path: Path) -> MadeVideo:
    """The first 60 % of a file; how many frames that leaves is for the test to see, and they are the first ones."""
    data = made.path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    return MadeVideo(path=path, streams=made.streams, error="truncated")


def _with(stream: MadeStream, **changes: Any) -> MadeStream:
    return replace(stream, **changes)


WHOLE: tuple[Callable[[Path], MadeVideo], ...] = (
    constant_rate, variable_rate, edit_list, matroska_ticks, joined_transport, wrapped_transport, avi, raw_stream,
    ten_bit, full_range, limited_709, untagged_large, untagged_small, motion_jpeg, transparent, grey, two_streams,
)  # fmt: skip
TRUNCATED: tuple[Callable[[Path], MadeVideo], ...] = (truncated_matroska, truncated_mp4, truncated_transport)


def _first_transport_pts(data: bytes | bytearray) -> int:
    """The smallest presentation time in a transport stream of 188-byte packets."""
    return min(_read_clock(data, place) for place, is_pts in _transport_clocks(data) if is_pts)


def _shift_transport_clock(data: bytearray, ticks: int) -> None:
    """Add to every pts and dts, in 33 bits. Program clock references stay: nothing here reads them."""
    for place, _ in _transport_clocks(data):
        value = (_read_clock(data, place) + ticks) % (1 << 33)
        data[place] = data[place] & 0xF1 | value >> 29 & 0x0E
        data[place + 1 : place + 3] = (value >> 14 & 0xFFFE | 1).to_bytes(2, "big")
        data[place + 3 : place + 5] = (value << 1 & 0xFFFE | 1).to_bytes(2, "big")


def _read_clock(data: bytes | bytearray, place: int) -> int:
    high, middle, low = data[place], data[place + 1 : place + 3], data[place + 3 : place + 5]
    return (high >> 1 & 7) << 30 | (int.from_bytes(middle, "big") >> 1) << 15 | int.from_bytes(low, "big") >> 1


def _transport_clocks(data: bytes | bytearray) -> Iterable[tuple[int, bool]]:
    """Where each pts (True) and dts (False) lies: behind the header of a video packet that begins a unit."""
    for packet in range(0, len(data), 188):
        begins_unit, has_adaptation = data[packet + 1] & 0x40, data[packet + 3] & 0x20
        start = packet + 4 + (1 + data[packet + 4] if has_adaptation else 0)
        if begins_unit and data[start : start + 4] == b"\x00\x00\x01\xe0":
            yield start + 9, True
            if data[start + 7] & 0x40:
                yield start + 14, False
