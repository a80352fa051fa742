"""Laying drawings over a picture, and boxes around what is seen of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._scene_camera import Pixels
from ._scene_canvas import premultiplied

Box = tuple[float, float, float, float]

OPAQUE = 128  # of 255: half a pixel


@dataclass(frozen=True, kw_only=True)
class Window:
    """A drawing in its place: premultiplied RGBA, whole, with its corner in the picture's pixels."""

    left: int
    top: int
    rgba: Pixels

    def clip(self, width_px: int, height_px: int) -> tuple[slice, slice, tuple[slice, slice]]:
        """Rows and columns of a picture of that size which it covers, and the same part of the drawing."""
        height, width = self.rgba.shape[:2]
        top, bottom = max(self.top, 0), min(self.top + height, height_px)
        left, right = max(self.left, 0), min(self.left + width, width_px)
        inside = slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)
        return slice(top, bottom), slice(left, right), inside


def tight_box(mask: npt.NDArray[np.bool_], *, left: int, top: int) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    x0, x1, y0, y1 = left + columns[0], left + columns[-1] + 1, top + rows[0], top + rows[-1] + 1
    return float(x0), float(y0), float(x1), float(y1)


def blend(target: Pixels, rgba: Pixels) -> None:
    """Lay a premultiplied image over `target`, in place."""
    under = target * (255 - rgba[..., 3:].astype(np.uint16))
    under += 127
    under //= 255
    under += rgba[..., :3]
    target[:] = under


def smeared(rgba: Pixels, blur: tuple[float, float]) -> Pixels:
    """The mean of copies shifted along `blur` (x, y in pixels), evenly to both sides."""
    steps = round(max(abs(blur[0]), abs(blur[1])))
    if steps < 1:
        return rgba
    total = np.zeros(rgba.shape, np.uint16)
    for k in range(steps + 1):
        share = k / steps - 0.5
        total += _shifted(rgba, round(blur[0] * share), round(blur[1] * share))
    return (total // (steps + 1)).astype(np.uint8)


def _shifted(rgba: Pixels, dx: int, dy: int) -> Pixels:
    height, width = rgba.shape[:2]
    moved = np.zeros_like(rgba)
    moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = rgba[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return moved


@cache
def shadow() -> Image.Image:
    """A soft black ellipse, premultiplied."""
    axis = np.linspace(-1, 1, 48, dtype=np.float32)
    alpha = np.clip(1.15 - np.hypot(axis[None, :], axis[:, None]), 0, 0.5) * 220
    pixels = np.zeros((48, 48, 4), np.uint8)
    pixels[..., 3] = alpha
    return premultiplied(pixels)
