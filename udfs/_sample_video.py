"""Videos from frames, byte for byte the same each time, and what a damaged one needs."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from io import BytesIO
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

_BT709 = 1  # the code of matrix, primaries and transfer in the stream's header


def encode_video(
    frames: Iterable[tuple[int, npt.NDArray[np.uint8]]],
    *,
    time_base: Fraction,
    rate: Fraction,
    size: tuple[int, int],
    b_frames: bool,
    quality: int,
    turned: bool = False,
) -> bytes:
    """An MP4 file of (pts, RGB pixels); pixels are as stored, `size` is (width, height) of them.

    `turned` says in the display matrix that a player has to turn the stored picture clockwise by a quarter. `quality`
    is x264's constant rate factor, smaller is better.
    """
    file = BytesIO()
    # Without bitexact the muxer writes its version; one thread, as slices may differ with their number.
    options = {"fflags": "+bitexact", "video_track_timescale": str(time_base.denominator)}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {
            "preset": "superfast",
            "crf": str(quality),
            "bf": "2" if b_frames else "0",
            "b-adapt": "0",  # the adaptive choice may leave a short video without any
            "g": "30",
        }
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = time_base
        stream.codec_context.color_primaries = stream.codec_context.color_trc = _BT709
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        if turned:
            one = 1 << 16
            stream.set_display_matrix((0, one, 0, -one, 0, 0, size[1] * one, 0, 1 << 30))
        reformatter = VideoReformatter()
        for pts, pixels in frames:
            frame = reformatter.reformat(
                VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            frame.pts, frame.time_base = pts, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def read_times(data: bytes) -> tuple[list[int], Fraction]:
    """The pts of a video's packets in order of presentation, as a reader of the file sees them, and their unit in s."""
    with av.open(BytesIO(data), "r") as container:
        stream = cast(VideoStream, container.streams.video[0])
        pts = sorted(packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None)
        return pts, cast(Fraction, stream.time_base)


def damage(data: bytes, *, first: int) -> bytes:
    """The video with all its packets from number `first` on overwritten, in the order of the file.

    The index stays whole: a reader finds every packet, and the decoder refuses them.
    """
    broken = bytearray(data)
    with av.open(BytesIO(data), "r") as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[first:]:
        if position is None:
            raise ValueError("a packet without a position in the file cannot be damaged")
        broken[position : position + size] = b"\xff" * size  # no unit of a stream is as long as this says
    return bytes(broken)
