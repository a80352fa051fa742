"""Turning pictures upright by a display matrix, mirrors included."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """One of the eight ways a stored picture can lie: swap the axes first, then flip."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def rotation_deg(self) -> int:
        """Clockwise turn that shows the picture upright, 0, 90, 180 or 270; after mirroring left-right, if mirrored."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    @property
    def is_mirrored(self) -> bool:
        """Whether the stored picture is a mirror image of the upright one."""
        return (self.transpose + self.flip_x + self.flip_y) % 2 == 1

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Upright width and height of a stored picture of `width` x `height`."""
        return (height, width) if self.transpose else (width, height)

    def point(self, x: float, y: float, *, width: int, height: int) -> tuple[float, float]:
        """Where a point of a stored picture of `width` x `height` lies in the upright one."""
        if self.transpose:
            x, y, width, height = y, x, height, width
        return (width - x if self.flip_x else x), (height - y if self.flip_y else y)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The upright picture, contiguous in memory; the same object where there is nothing to turn."""
        if not (self.transpose or self.flip_x or self.flip_y):
            return picture
        turned = picture.swapaxes(0, 1) if self.transpose else picture
        return np.ascontiguousarray(turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


UPRIGHT = Orientation()
_BY_EXIF = (
    UPRIGHT,
    Orientation(flip_x=True),
    Orientation(flip_x=True, flip_y=True),
    Orientation(flip_y=True),
    Orientation(transpose=True),
    Orientation(transpose=True, flip_x=True),
    Orientation(transpose=True, flip_x=True, flip_y=True),
    Orientation(transpose=True, flip_y=True),
)


def from_exif(value: int) -> Orientation:
    """Orientation of EXIF's tag, 1 to 8 (CIPA DC-008); any other value counts as upright."""
    return _BY_EXIF[value - 1] if 1 <= value <= 8 else UPRIGHT


def from_turn(rotation_deg: int, *, is_mirrored: bool) -> Orientation:
    """The orientation with this `rotation_deg` (0, 90, 180 or 270) and `is_mirrored`."""
    turns = (turn for turn in _BY_EXIF if (turn.rotation_deg, turn.is_mirrored) == (rotation_deg, is_mirrored))
    return next(turns)


def from_matrix(data: bytes) -> Orientation:
    """Orientation of a display matrix: nine 32-bit integers in the machine's byte order, `a b u  c d v  x y w`.

    A stored point (p, q) is shown at (a p + c q + x, b p + d q + y), as ISO/IEC 14496-12 has it. An angle between the
    right ones counts as the nearest; a matrix that shows nothing (all zero) counts as upright.
    """
    a, b, _, c, d = struct.unpack_from("=5i", data)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(flip_x=a < 0, flip_y=d < 0)
