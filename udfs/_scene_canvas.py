"""A square on which one object is drawn in coordinates from 0 to 1, and its smaller copies for small objects."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, sin

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ._scene_palettes import Colour

Point = tuple[float, float]

SPAN = 0.92  # the share of the square's side that the longest side of an object takes
_SUPERSAMPLING = 2


class Canvas:
    """Shapes drawn one over the other; `sprite` smooths them down to `side_px` with premultiplied alpha."""

    def __init__(self, side_px: int) -> None:
        self._side_px = side_px
        self._scale = side_px * _SUPERSAMPLING
        self._image = Image.new("RGBA", (self._scale, self._scale))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self._draw.polygon([(x * self._scale, y * self._scale) for x, y in points], fill=(*colour, 255))

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, *, radius: float = 0.0) -> None:
        box = [value * self._scale for value in (x0, y0, x1, y1)]
        self._draw.rounded_rectangle(box, radius * self._scale, fill=(*colour, 255))

    def disc(self, x: float, y: float, radius: float, colour: Colour, *, squash: float = 1.0) -> None:
        self._draw.ellipse(self._disc_box(x, y, radius, squash), fill=(*colour, 255))

    def hole(self, x: float, y: float, radius: float, *, squash: float = 1.0) -> None:
        self._draw.ellipse(self._disc_box(x, y, radius, squash), fill=(0, 0, 0, 0))

    def cut(self, points: Sequence[Point]) -> None:
        self._draw.polygon([(x * self._scale, y * self._scale) for x, y in points], fill=(0, 0, 0, 0))

    def limb(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A line with round ends and joints."""
        pixels = [(x * self._scale, y * self._scale) for x, y in points]
        self._draw.line(pixels, fill=(*colour, 255), width=max(1, round(width * self._scale)))
        for x, y in points:
            self.disc(x, y, width / 2, colour)

    def sprite(self, grain: npt.NDArray[np.uint16] | None = None) -> Image.Image:
        """The drawing as an image of mode RGBa; `grain` multiplies its colours, 128 standing for 1."""
        image = self._image.convert("RGBa").reduce(_SUPERSAMPLING)
        if grain is None:
            return image
        pixels = np.array(image)
        lit = pixels[..., :3] * grain[..., None] >> 7
        pixels[..., :3] = np.minimum(lit, pixels[..., 3:])
        return premultiplied(pixels)

    def _disc_box(self, x: float, y: float, radius: float, squash: float) -> list[float]:
        rx, ry = radius * self._scale, radius * squash * self._scale
        return [x * self._scale - rx, y * self._scale - ry, x * self._scale + rx, y * self._scale + ry]


def make_grain(rng: np.random.Generator, side_px: int) -> npt.NDArray[np.uint16]:
    """Light from one side, blotches and fine grain, as factors with 128 standing for 1."""
    slope = rng.uniform(-0.25, 0.25, 2)
    axis = np.linspace(-1, 1, side_px, dtype=np.float32)
    light = 1.0 + slope[0] * axis[None, :] + slope[1] * axis[:, None]
    for cells, strength in ((7, 0.10), (40, 0.07)):
        blotches = Image.fromarray(rng.random((cells, cells), np.float32) - 0.5)
        light += strength * 2 * np.asarray(blotches.resize((side_px, side_px), Image.Resampling.BILINEAR))
    return np.clip(light * 128, 48, 200).astype(np.uint16)  # 200 * 255 still fits 16 bits


def premultiplied(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """An image of mode RGBa from height x width x 4 values, which are copied."""
    return Image.frombuffer("RGBa", (pixels.shape[1], pixels.shape[0]), pixels.tobytes(), "raw", "RGBa", 0, 1)


def pyramid(sprite: Image.Image) -> list[Image.Image]:
    """The sprite and its halvings down to 16 px, largest first."""
    levels = [sprite]
    while levels[-1].width > 16:
        levels.append(levels[-1].reduce(2))
    return levels


def regular(sides: int, *, centre: Point, radius: float, angle: float = 0.0) -> list[Point]:
    """The corners of a regular polygon, the first straight up when `angle` is 0."""
    return [
        (
            centre[0] + radius * sin(angle + 2 * np.pi * k / sides),
            centre[1] - radius * cos(angle + 2 * np.pi * k / sides),
        )
        for k in range(sides)
    ]


def trapezoid(top: float, top_half: float, bottom: float, bottom_half: float) -> list[Point]:
    """Corners of a trapezoid around the middle, from two heights and half its widths there."""
    return [(0.5 - top_half, top), (0.5 + top_half, top), (0.5 + bottom_half, bottom), (0.5 - bottom_half, bottom)]
