"""The display matrix of a decoded frame, as a turn."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from . import upright

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


def orientation_of(frame: VideoFrame) -> upright.Orientation:
    """How the frame must be turned to be upright."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV shows no side data at all where one is of a kind that it does not know (EXIF, view ids). The angle is to
        # be had in another way, counter-clockwise; whether the frame is mirrored is not.
        angle = math.radians(-frame.rotation)
        one, sine, cosine = 1 << 16, math.sin(angle), math.cos(angle)
        a, b, c, d = (round(one * value) for value in (cosine, sine, -sine, cosine))
        return upright.from_matrix(struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    return upright.UPRIGHT if matrix is None else upright.from_matrix(bytes(matrix))
