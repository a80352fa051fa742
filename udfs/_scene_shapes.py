"""How the labelled things look: each class draws one individual's looks once, and then that individual in any phase.

A shape is built from a random generator and a palette, and `draw(phase, side_px)` gives it in a phase from 0 to 1 of
its cycle (steps of a walk, turns of a wheel). Its longest side spans `SPAN` of the square.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin
from typing import ClassVar, Protocol

import numpy as np
from PIL import Image

from ._scene_canvas import SPAN, Canvas, Point, make_grain, premultiplied, regular, trapezoid
from ._scene_palettes import Palette, grey, shade

TOP, BOTTOM = (1 - SPAN) / 2, (1 + SPAN) / 2


class Shape(Protocol):
    """The looks of one individual."""

    phases: int  # how many drawings make up a cycle
    foot: float  # where it stands on the ground, as a share of the square's height

    def draw(self, phase: float, side_px: int) -> Image.Image: ...


class Car:
    """Seen from the side, driving to the right: hood, cabin with windows, two turning wheels."""

    phases: int = 6

    def __init__(self, rng: np.random.Generator, palette: Palette) -> None:
        self._seed = rng.integers(2**31)
        self._paint, self._glass = palette.paint(rng), grey(rng.uniform(0.12, 0.3))
        self._stripe = palette.paint(rng) if rng.random() < 0.4 else None
        self._rim = grey(rng.uniform(0.55, 0.9))
        self._hood, self._trunk = rng.uniform(0.16, 0.30), rng.uniform(0.0, 0.22)
        self._body, self._cabin = rng.uniform(0.13, 0.17), rng.uniform(0.11, 0.17)
        self._rake = rng.uniform(0.03, 0.11)
        self._wheel = rng.uniform(0.075, 0.095)
        self._spokes = int(rng.integers(3, 6))
        self.foot: float = 0.5 + (self._body + self._cabin + self._wheel * 0.8) / 2

    def draw(self, phase: float, side_px: int) -> Image.Image:
        canvas = Canvas(side_px)
        axle = self.foot - self._wheel
        sill, belt = axle + 0.02, axle + 0.02 - self._body
        roof = belt - self._cabin
        left, right = TOP, BOTTOM
        cabin_left, cabin_right = left + self._trunk, right - self._hood
        canvas.polygon(
            [
                (cabin_left, belt + 0.01),
                (cabin_left + self._rake * 0.6, roof),
                (cabin_right - self._rake * 1.6, roof),
                (cabin_right, belt + 0.01),
            ],
            self._paint,
        )
        canvas.rectangle(left, belt, right, sill, self._paint, radius=0.045)
        canvas.rectangle(left, belt + self._body * 0.5, right, sill, shade(self._paint, 0.8), radius=0.03)
        if self._stripe:
            canvas.rectangle(left, belt + 0.035, right, belt + 0.06, self._stripe)
        middle = (cabin_left + cabin_right) / 2
        glass_top, glass_bottom = roof + 0.02, belt + 0.005
        canvas.polygon(
            [
                (cabin_left + 0.035, glass_bottom),
                (cabin_left + 0.03 + self._rake * 0.5, glass_top),
                (middle - 0.012, glass_top),
                (middle - 0.012, glass_bottom),
            ],
            self._glass,
        )
        canvas.polygon(
            [
                (middle + 0.012, glass_bottom),
                (middle + 0.012, glass_top),
                (cabin_right - 0.025 - self._rake * 1.5, glass_top),
                (cabin_right - 0.045, glass_bottom),
            ],
            self._glass,
        )
        canvas.rectangle(right - 0.05, belt + 0.03, right - 0.005, belt + 0.065, (255, 240, 190), radius=0.01)
        canvas.rectangle(left + 0.005, belt + 0.03, left + 0.035, belt + 0.075, (190, 30, 30), radius=0.01)
        canvas.rectangle(middle + 0.03, belt + 0.04, middle + 0.07, belt + 0.05, grey(0.2))
        for x in (left + 0.19, right - 0.19):
            canvas.disc(x, axle, self._wheel * 1.15, grey(0.08))
            canvas.disc(x, axle, self._wheel, grey(0.14))
            canvas.disc(x, axle, self._wheel * 0.6, self._rim)
            for k in range(self._spokes):
                angle = 2 * pi * (phase / self._spokes + k / self._spokes)
                tip = (x + self._wheel * 0.55 * cos(angle), axle + self._wheel * 0.55 * sin(angle))
                canvas.limb([(x, axle), tip], self._wheel * 0.2, grey(0.2))
        return canvas.sprite(make_grain(np.random.default_rng(self._seed), side_px))


class Person:
    """Walking to the right: arms and legs swing, with knees and elbows."""

    phases: int = 12
    foot: float = BOTTOM

    def __init__(self, rng: np.random.Generator, palette: Palette) -> None:
        self._seed = rng.integers(2**31)
        self._skin, self._hair = palette.skin(rng), grey(rng.uniform(0.05, 0.5))
        self._top, self._bottom, self._shoes = palette.paint(rng), palette.paint(rng), grey(rng.uniform(0.05, 0.4))
        self._stripes = palette.paint(rng) if rng.random() < 0.5 else None
        self._long_sleeves, self._skirt = rng.random() < 0.6, rng.random() < 0.25
        self._bag = palette.paint(rng) if rng.random() < 0.3 else None
        self._hat = palette.paint(rng) if rng.random() < 0.3 else None
        self._girth, self._stride = rng.uniform(0.85, 1.3), rng.uniform(0.35, 0.6)

    def draw(self, phase: float, side_px: int) -> Image.Image:
        canvas = Canvas(side_px)
        swing = sin(2 * pi * phase) * self._stride
        head, shoulder, hip = (0.51, TOP + 0.07), (0.5, 0.24), (0.5, 0.53)
        if self._bag:
            canvas.rectangle(0.5 - 0.15 * self._girth, 0.25, 0.48, 0.45, self._bag, radius=0.03)
        self._arm(canvas, shoulder, -swing, darker=0.75)
        self._leg(canvas, hip, -swing, 2 * pi * phase + pi, darker=0.75)
        self._leg(canvas, hip, swing, 2 * pi * phase, darker=1.0)
        half, waist = 0.085 * self._girth, 0.07 * self._girth
        if self._skirt:
            flare = half * 1.5
            canvas.polygon(trapezoid(0.47, waist, 0.7, flare), self._bottom)
        canvas.limb([(0.5, shoulder[1] - 0.02), head], 0.05, shade(self._skin, 0.85))
        canvas.polygon(trapezoid(0.215, half, 0.54, waist), self._top)
        if self._stripes:
            for k in range(4):
                y = 0.25 + 0.075 * k
                narrow = half + (waist - half) * (y - 0.215) / 0.325
                canvas.rectangle(0.5 - narrow, y, 0.5 + narrow, y + 0.03, self._stripes)
        self._arm(canvas, shoulder, swing, darker=1.0)
        canvas.disc(*head, 0.062, self._skin, squash=1.13)
        canvas.disc(head[0] + 0.055, head[1] + 0.012, 0.016, self._skin)
        scalp = regular(16, centre=(head[0] - 0.008, head[1] - 0.012), radius=0.062)
        canvas.polygon([*scalp[8:], (head[0], TOP), (head[0] + 0.05, head[1] - 0.04)], self._hair)
        if self._hat:
            canvas.rectangle(head[0] - 0.068, TOP, head[0] + 0.062, TOP + 0.042, self._hat, radius=0.02)
            canvas.rectangle(head[0] + 0.02, TOP + 0.03, head[0] + 0.105, TOP + 0.045, self._hat)
        return canvas.sprite(make_grain(np.random.default_rng(self._seed), side_px))

    def _leg(self, canvas: Canvas, hip: Point, swing: float, cycle: float, *, darker: float) -> None:
        colour = shade(self._skin if self._skirt else self._bottom, darker)
        bend = 0.5 * max(0.0, cos(cycle))  # the knee bends while the leg comes forward
        knee = (hip[0] + 0.21 * sin(swing), hip[1] + 0.21 * cos(swing))
        ankle = (knee[0] + 0.2 * sin(swing - bend), min(BOTTOM - 0.025, knee[1] + 0.2 * cos(swing - bend)))
        canvas.limb([hip, knee], 0.085 * self._girth, colour)
        canvas.limb([knee, ankle], 0.065 * self._girth, colour)
        canvas.limb([ankle, (ankle[0] + 0.045, ankle[1] + 0.005)], 0.04, shade(self._shoes, darker))

    def _arm(self, canvas: Canvas, shoulder: Point, swing: float, *, darker: float) -> None:
        elbow = (shoulder[0] + 0.14 * sin(swing), shoulder[1] + 0.14 * cos(swing))
        hand = (elbow[0] + 0.13 * sin(swing + 0.35), elbow[1] + 0.13 * cos(swing + 0.35))
        sleeve = shade(self._top, 0.85 * darker)
        canvas.limb([elbow, hand], 0.045 * self._girth, sleeve if self._long_sleeves else shade(self._skin, darker))
        canvas.limb([shoulder, elbow], 0.055 * self._girth, sleeve)
        canvas.disc(*hand, 0.026, shade(self._skin, darker))


class Ball:
    """A sphere with panels that roll past as it turns; the light stays where it is."""

    phases: int = 16
    foot: float = BOTTOM
    _PATTERNS: ClassVar = ("sectors", "bands", "patches", "swirl")

    def __init__(self, rng: np.random.Generator, palette: Palette) -> None:
        self._seed = rng.integers(2**31)
        self._pattern = self._PATTERNS[rng.integers(len(self._PATTERNS))]
        self._colours = np.array([palette.paint(rng), palette.paint(rng), grey(0.93)], np.float32)
        self._panels = int(rng.integers(2, 5))
        self._tilt = rng.uniform(0.2, pi / 2)
        self._centres = rng.normal(size=(14, 3))
        self._centres /= np.linalg.norm(self._centres, axis=1, keepdims=True)

    def draw(self, phase: float, side_px: int) -> Image.Image:
        axis = (np.arange(side_px, dtype=np.float32) + 0.5) / side_px * 2 - 1
        x, y = axis[None, :] / SPAN, axis[:, None] / SPAN
        r = np.sqrt(x * x + y * y)
        z = np.sqrt(np.clip(1 - r * r, 0, 1))
        # Turned in the plane of the picture, as a ball that rolls to the right, and tilted towards the viewer.
        c, s = cos(2 * pi * phase), sin(2 * pi * phase)
        u, v = c * x + s * y, c * y - s * x
        v, w = cos(self._tilt) * v - sin(self._tilt) * z, sin(self._tilt) * v + cos(self._tilt) * z
        which = self._which(u, v, w)
        light = 0.45 + 0.65 * np.clip(-0.45 * x - 0.6 * y + 0.66 * z, 0, 1)
        glint = 150 * np.clip(-0.5 * x - 0.55 * y + 0.67 * z, 0, 1) ** 24
        colour = self._colours[which] * light[..., None] + glint[..., None]
        alpha = np.clip((1 - r) * side_px * SPAN / 2 + 0.5, 0, 1)
        grain = make_grain(np.random.default_rng(self._seed), side_px)[..., None] / 128
        pixels = np.dstack([np.clip(colour * (0.5 + grain / 2), 0, 255) * alpha[..., None], alpha * 255])
        return premultiplied(np.rint(pixels).astype(np.uint8))

    def _which(self, u: np.ndarray, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        if self._pattern == "bands":
            return np.where(np.abs(w) < 0.28, 2, np.where(w > 0, 0, 1))
        if self._pattern == "patches":
            near = np.einsum("pk,khw->phw", self._centres, np.stack([u, v, w])).max(axis=0)
            return np.where(near > 0.93, 1, 2 if self._panels > 2 else 0)
        turns = np.arctan2(v, u) / (2 * pi)
        if self._pattern == "swirl":
            turns = turns + 0.25 * w
        sector = np.floor(turns * 2 * self._panels).astype(int)
        return np.where(np.abs(w) > 0.93, 2, sector % 2)


class Box:
    """A parcel with three visible faces, tape and print."""

    phases: int = 1

    def __init__(self, rng: np.random.Generator, palette: Palette) -> None:
        self._seed = rng.integers(2**31)
        self._paint, self._tape, self._print = palette.paint(rng), palette.paint(rng), palette.paint(rng)
        width, height, depth = rng.uniform(0.7, 1.0), rng.uniform(0.5, 1.0), rng.uniform(0.25, 0.45)
        self._skew = (depth * rng.uniform(0.6, 1.0), depth * rng.uniform(0.35, 0.8))
        scale = SPAN / max(width + self._skew[0], height + self._skew[1])
        self._width, self._height = width * scale, height * scale
        self._skew = (self._skew[0] * scale, self._skew[1] * scale)
        self._style = int(rng.integers(3))
        self.foot: float = 0.5 + (self._height + self._skew[1]) / 2

    def draw(self, phase: float, side_px: int) -> Image.Image:
        canvas = Canvas(side_px)
        dx, dy = self._skew
        left, top = 0.5 - (self._width + dx) / 2, 0.5 - (self._height + dy) / 2 + dy

        # Points of the three faces from shares of their sides.
        def front(u: float, v: float) -> Point:
            return left + self._width * u, top + self._height * v

        def lid(u: float, w: float) -> Point:
            return left + self._width * u + dx * w, top - dy * w

        def side(w: float, v: float) -> Point:
            return left + self._width + dx * w, top + self._height * v - dy * w

        canvas.polygon(_quad(lid, 0, 1, 0, 1), shade(self._paint, 1.25))
        canvas.polygon(_quad(side, 0, 1, 0, 1), shade(self._paint, 0.6))
        canvas.polygon(_quad(front, 0, 1, 0, 1), self._paint)
        if self._style == 0:  # tape over the lid and down the front
            canvas.polygon(_quad(lid, 0.41, 0.59, 0, 1), shade(self._tape, 1.15))
            canvas.polygon(_quad(front, 0.41, 0.59, 0, 0.35), self._tape)
        elif self._style == 1:  # a crate of boards
            for k in range(1, 4):
                canvas.limb([front(0, k / 4), front(1, k / 4)], 0.018, shade(self._paint, 0.55))
                canvas.limb([side(0, k / 4), side(1, k / 4)], 0.018, shade(self._paint, 0.4))
        else:  # a ribbon both ways
            canvas.polygon(_quad(front, 0.41, 0.59, 0, 1), self._tape)
            canvas.polygon(_quad(front, 0, 1, 0.41, 0.59), self._tape)
            canvas.polygon(_quad(side, 0, 1, 0.41, 0.59), shade(self._tape, 0.65))
        if self._style != 2:
            canvas.polygon(_quad(front, 0.08, 0.42, 0.7, 0.92), grey(0.92))
            canvas.polygon(_quad(front, 0.12, 0.34, 0.75, 0.8), self._print)
        edge = shade(self._paint, 0.45)
        canvas.limb([front(0, 0), front(1, 0), front(1, 1)], 0.012, edge)
        canvas.limb([side(0, 0), side(1, 0)], 0.012, edge)
        return canvas.sprite(make_grain(np.random.default_rng(self._seed), side_px))


def _quad(face: Callable[[float, float], Point], a0: float, a1: float, b0: float, b1: float) -> list[Point]:
    return [face(a0, b0), face(a1, b0), face(a1, b1), face(a0, b1)]


class Sign:
    """A plate with a border and a pictogram, on a post."""

    phases: int = 1
    foot: float = BOTTOM
    _PLATES: ClassVar = (3, 4, 8, 40)

    def __init__(self, rng: np.random.Generator, palette: Palette) -> None:
        self._seed = rng.integers(2**31)
        self._sides = int(self._PLATES[rng.integers(len(self._PLATES))])
        self._field, self._border, self._ink = palette.paint(rng), palette.paint(rng), grey(rng.choice([0.08, 0.95]))
        self._radius = rng.uniform(0.2, 0.27)
        self._picture = int(rng.integers(4))
        self._post = grey(rng.uniform(0.3, 0.75))

    def draw(self, phase: float, side_px: int) -> Image.Image:
        canvas = Canvas(side_px)
        r = self._radius
        tip = 0.0 if self._sides != 8 else pi / 8
        centre = (0.5, TOP + r * (cos(pi / 8) if self._sides == 8 else 1.0))
        canvas.rectangle(0.5 - 0.03, centre[1], 0.5 + 0.03, BOTTOM, self._post)
        canvas.rectangle(0.5 + 0.01, centre[1], 0.5 + 0.03, BOTTOM, shade(self._post, 0.6))
        canvas.polygon(regular(self._sides, centre=centre, radius=r, angle=tip), self._border)
        canvas.polygon(regular(self._sides, centre=centre, radius=r * 0.78, angle=tip), self._field)
        x, y, unit = centre[0], centre[1], r * 0.4
        if self._picture == 0:
            canvas.rectangle(x - unit, y - unit * 0.35, x + unit, y + unit * 0.35, self._ink)
        elif self._picture == 1:
            canvas.limb([(x, y + unit * 0.9), (x, y - unit * 0.2)], unit * 0.4, self._ink)
            canvas.polygon([(x - unit * 0.7, y), (x, y - unit), (x + unit * 0.7, y)], self._ink)
        elif self._picture == 2:
            canvas.limb([(x, y - unit * 0.8), (x, y + unit * 0.1)], unit * 0.4, self._ink)
            canvas.disc(x, y + unit * 0.7, unit * 0.25, self._ink)
        else:
            canvas.limb([(x - unit * 0.6, y - unit * 0.6), (x + unit * 0.6, y + unit * 0.6)], unit * 0.3, self._ink)
            canvas.limb([(x - unit * 0.6, y + unit * 0.6), (x + unit * 0.6, y - unit * 0.6)], unit * 0.3, self._ink)
        return canvas.sprite(make_grain(np.random.default_rng(self._seed), side_px))


SHAPES: dict[str, type[Shape]] = {"ball": Ball, "box": Box, "car": Car, "person": Person, "sign": Sign}
