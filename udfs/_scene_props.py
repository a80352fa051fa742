"""What is seen but not labelled: look-alikes that share colours and motion with the labelled things, and occluders."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from PIL import Image

from ._scene_canvas import SPAN, Canvas, Point, make_grain, trapezoid
from ._scene_palettes import Colour, Palette, grey, shade
from ._scene_shapes import BOTTOM, TOP, Shape


class _Prop:
    """One drawing for all phases, in two or three colours of the scene."""

    phases: int = 1
    foot: float = BOTTOM

    def __init__(self, rng: np.random.Generator, palette: Palette) -> None:
        self._seed = int(rng.integers(2**31))
        self._paint, self._second = palette.paint(rng), palette.paint(rng)
        self._ground = palette.ground(rng, light=rng.uniform(0.2, 0.6))
        self._form = rng.uniform(0, 1)

    def draw(self, phase: float, side_px: int) -> Image.Image:
        canvas = Canvas(side_px)
        self._on(canvas, phase)
        return canvas.sprite(make_grain(np.random.default_rng(self._seed), side_px))

    def _on(self, canvas: Canvas, phase: float) -> None:
        raise NotImplementedError


class Ring(_Prop):
    """Round as a ball, but one sees through it."""

    phases: int = 8

    def _on(self, canvas: Canvas, phase: float) -> None:
        canvas.disc(0.5, 0.5, SPAN / 2, self._paint)
        for k in range(6):
            angle = 2 * pi * (k + phase) / 6
            canvas.disc(0.5 + 0.37 * cos(angle), 0.5 + 0.37 * sin(angle), 0.07, self._second)
        canvas.hole(0.5, 0.5, SPAN * (0.2 + 0.1 * self._form))


class Tree(_Prop):
    """A crown on a trunk: near to a sign or a person."""

    def _on(self, canvas: Canvas, phase: float) -> None:
        rng = np.random.default_rng(self._seed)
        canvas.rectangle(0.47, 0.4, 0.53, BOTTOM, shade(self._ground, 0.6))
        radius = 0.2 + 0.08 * self._form
        _leaves(canvas, rng, centre=(0.5, TOP + radius + 0.02), radius=radius, colour=self._ground)


class Boat(_Prop):
    """A hull with a cabin: a car without wheels."""

    foot: float = 0.66

    def _on(self, canvas: Canvas, phase: float) -> None:
        canvas.rectangle(0.3, 0.37, 0.62, 0.52, self._second, radius=0.02)
        for x in (0.35, 0.47):
            canvas.rectangle(x, 0.4, x + 0.08, 0.47, grey(0.2))
        canvas.polygon([(TOP, 0.5), (BOTTOM, 0.48), (0.84, 0.66), (0.14, 0.66)], self._paint)
        canvas.polygon([(0.1, 0.58), (0.9, 0.57), (0.84, 0.66), (0.14, 0.66)], shade(self._paint, 0.65))


class Panel(_Prop):
    """A flat board, framed or hollow: a box without its other faces."""

    foot: float = 0.8

    def _on(self, canvas: Canvas, phase: float) -> None:
        canvas.rectangle(TOP, 0.2, BOTTOM, 0.8, self._paint)
        canvas.rectangle(TOP + 0.07, 0.27, BOTTOM - 0.07, 0.73, self._second)
        if self._form < 0.4:
            canvas.cut([(TOP + 0.09, 0.29), (BOTTOM - 0.09, 0.29), (BOTTOM - 0.09, 0.71), (TOP + 0.09, 0.71)])
        else:
            canvas.disc(0.4, 0.45, 0.1, shade(self._paint, 0.8))
            canvas.polygon([(0.2, 0.7), (0.5, 0.5), (0.8, 0.7)], shade(self._paint, 1.2))


class Bollard(_Prop):
    """A striped cone with a knob: as upright as a person."""

    def _on(self, canvas: Canvas, phase: float) -> None:
        def half(y: float) -> float:
            return 0.05 + 0.11 * (y - TOP) / SPAN

        for k in range(6):
            y0, y1 = TOP + 0.08 + 0.13 * k, TOP + 0.08 + 0.13 * (k + 1)
            colour = self._paint if k % 2 else self._second
            canvas.polygon(trapezoid(y0, half(y0), y1, half(y1)), colour)
        canvas.rectangle(0.31, BOTTOM - 0.06, 0.69, BOTTOM, shade(self._paint, 0.7), radius=0.01)
        canvas.disc(0.5, TOP + 0.06, 0.06, self._second)


class Bush(_Prop):
    """An occluder of leaves."""

    foot: float = 0.78

    def _on(self, canvas: Canvas, phase: float) -> None:
        rng = np.random.default_rng(self._seed)
        for x in (0.27, 0.5, 0.73):
            _leaves(canvas, rng, centre=(x, 0.55), radius=0.2, colour=self._ground)


class Fence(_Prop):
    """An occluder of pickets, with gaps."""

    foot: float = 0.75

    def _on(self, canvas: Canvas, phase: float) -> None:
        count = 5 + int(4 * self._form)
        for y in (0.38, 0.62):
            canvas.rectangle(TOP, y, BOTTOM, y + 0.05, shade(self._ground, 0.8))
        step = SPAN / count
        for k in range(count):
            x = TOP + step * k + step * 0.25
            tip, right = (x + step * 0.25, 0.25), x + step * 0.5
            canvas.polygon([(x, 0.32), tip, (right, 0.32), (right, 0.75), (x, 0.75)], self._ground)


class Pillar(_Prop):
    """An occluder with a lamp on it."""

    def _on(self, canvas: Canvas, phase: float) -> None:
        canvas.rectangle(0.46, TOP, 0.54, BOTTOM, self._ground)
        canvas.rectangle(0.515, TOP, 0.54, BOTTOM, shade(self._ground, 0.65))
        canvas.rectangle(0.42, TOP, 0.58, TOP + 0.06, shade(self._ground, 1.3))
        canvas.rectangle(0.4, BOTTOM - 0.07, 0.6, BOTTOM, shade(self._ground, 0.8))


def _leaves(canvas: Canvas, rng: np.random.Generator, *, centre: Point, radius: float, colour: Colour) -> None:
    canvas.disc(*centre, radius * 0.9, shade(colour, 0.7))
    for _ in range(45):
        angle, distance = rng.uniform(0, 2 * pi), radius * rng.uniform(0, 1) ** 0.5
        x, y = centre[0] + distance * cos(angle), centre[1] + distance * sin(angle)
        canvas.disc(x, y, radius * rng.uniform(0.1, 0.2), shade(colour, rng.uniform(0.6, 1.5)))


LOOK_ALIKES: tuple[type[Shape], ...] = (Ring, Tree, Boat, Panel, Bollard)
OCCLUDERS: tuple[type[Shape], ...] = (Bush, Fence, Pillar, Tree)
