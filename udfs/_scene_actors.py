"""Who takes part in a scene, and where each is at any time: functions of time, so that any rate can be shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, pi, sin

import numpy as np
from PIL import Image

from ._scene_canvas import SPAN, pyramid
from ._scene_palettes import Palette
from ._scene_props import LOOK_ALIKES, OCCLUDERS, Ring
from ._scene_shapes import SHAPES, Shape

LABELS = tuple(sorted(SHAPES))
MIN_SIZE_PX, MAX_SIZE_PX = 13.0, 190.0  # of the longest side, before turning; with turning 12 to 200
_MIN_SIGN_PX = 26.0  # of a smaller one the post would be thinner than a pixel, and missing in the mask


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Centre and longest side in world pixels, `angle` clockwise in radians, `phase` in cycles."""

    x: float
    y: float
    size: float
    angle: float
    phase: float
    flip: bool


class Actor:
    """One individual: its looks, its path and its drawings in every phase."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: Shape,
        *,
        label: str | None,
        size: float,
        ground: tuple[float, float],
        reach: float,
    ) -> None:
        """`ground` is the y of the horizon and of the nearest ground; `reach` how far it goes to either side."""
        self.label = label
        self.shape = shape
        self._size = size
        near = min(1.0, (size / MAX_SIZE_PX) ** 0.55 + rng.uniform(-0.12, 0.12))
        self._base = ground[0] + (ground[1] - ground[0]) * max(0.08, near)
        self.depth = self._base  # who stands lower in the picture is nearer
        self._start, self._reach = rng.uniform(-1, 1), reach * rng.uniform(0.7, 1.2)
        self._speed = rng.choice([-1, 1]) * (18 + size * rng.uniform(0.4, 1.4))
        self._wave, self._wave_at, self._period = rng.uniform(0.0, 0.2), rng.uniform(0, 2 * pi), rng.uniform(3, 8)
        self._lean, self._hop = rng.uniform(-0.06, 0.06), 0.0
        self._sway = 0.03
        self._rolls = False
        self._circle = pi  # the way, in sizes, of one cycle of phases
        self._drawings = lru_cache(maxsize=None)(self._draw)
        name = label or type(shape).__name__
        if name == "ball":
            self._rolls, self._hop = True, rng.choice([0.0, rng.uniform(0.5, 2.0)])
        elif name == "person":
            self._circle, self._speed = 0.9, self._speed * 0.7
        elif name == "car":
            self._circle = 0.15
        elif name == "box":
            self._sway, self._lean, self._hop = rng.uniform(0.0, 0.4), rng.uniform(-0.3, 0.3), rng.choice([0.0, 0.4])
        elif name == "sign":
            self._speed *= float(rng.choice([0.0, 0.4]))
        elif isinstance(shape, OCCLUDERS):
            self._speed, self._wave, self._lean = 0.0, 0.0, 0.0
        elif isinstance(shape, Ring):
            self._rolls = True

    def pose(self, time_s: float) -> Pose:
        # Back and forth between the ends of its reach, some of which lie outside the picture.
        way = self._start * self._reach + self._speed * time_s
        lap = (way / self._reach + 1) % 4
        x = self._reach * (lap - 1 if lap < 2 else 3 - lap)
        forward = (lap < 2) == (self._speed >= 0)
        swell = 1 + self._wave * sin(2 * pi * time_s / self._period + self._wave_at)
        size = self._size * swell
        beat = time_s / (0.35 + 0.15 * self._hop**0.5) + self._wave_at
        jump = self._hop * size * abs(sin(pi * beat)) if self._hop else 0.0
        y = self._base - jump - (self.shape.foot - 0.5) * size / SPAN
        turns = abs(self._speed) * time_s / (self._circle * self._size)
        return Pose(
            x=x,
            y=y,
            size=size,
            angle=self._lean + self._sway * sin(2 * pi * time_s / self._period * 1.7 + self._wave_at),
            phase=turns if self._rolls or self.label in ("car", "person") else 0.0,
            flip=not forward,
        )

    def base(self, time_s: float) -> tuple[float, float]:
        """Where its shadow lies: x, y in world pixels."""
        return self.pose(time_s).x, self._base

    def drawing(self, phase: float, side: float) -> Image.Image:
        """The drawing for a phase, at the first side in px from `side` to twice that which is at hand."""
        levels = self._drawings(int(phase * self.shape.phases) % self.shape.phases)
        fitting = [level for level in levels if level.width >= side]
        return fitting[-1] if fitting else levels[0]

    def _draw(self, step: int) -> list[Image.Image]:
        most = self._size * 1.5 / SPAN
        side = 64 if most <= 64 else 128 if most <= 128 else 256
        return pyramid(self.shape.draw(step / self.shape.phases, side))


def make_actors(
    rng: np.random.Generator, palette: Palette, *, width_px: int, height_px: int, horizon: float
) -> list[Actor]:
    """Labelled actors of at least four classes, look-alikes and occluders, from far to near."""
    largest = min(MAX_SIZE_PX / 1.3, 0.5 * min(width_px, height_px))
    smallest = MIN_SIZE_PX
    ground = (horizon, 0.46 * height_px)

    def sizes(count: int) -> list[float]:
        # Evenly over the logarithm: each scene has small and large ones.
        spans = (rng.permutation(count) + rng.random(count)) / count
        return [exp(log(smallest) + span * log(largest / smallest)) for span in spans]

    def actor(shape: type[Shape], label: str | None, size: float) -> Actor:
        reach = 0.5 * width_px + 0.4 * size
        if label == "sign":
            size = max(size, _MIN_SIGN_PX)
        looks = shape(rng, palette)  # pyright: ignore[reportCallIssue]  # a protocol does not say how it is made
        return Actor(rng, looks, label=label, size=size, ground=ground, reach=reach)

    actors: list[Actor] = []
    count = int(rng.integers(4, 10))
    names = [LABELS[k] for _ in range(2) for k in rng.permutation(len(LABELS))][:count]
    actors += [actor(SHAPES[name], name, size) for name, size in zip(names, sizes(count), strict=True)]
    for size in sizes(int(rng.integers(1, 5))):
        actors.append(actor(LOOK_ALIKES[rng.integers(len(LOOK_ALIKES))], None, size))
    for _ in range(int(rng.integers(1, 4))):
        size = largest * rng.uniform(0.35, 1.0)
        actors.append(actor(OCCLUDERS[rng.integers(len(OCCLUDERS))], None, size))
    return sorted(actors, key=lambda one: one.depth)
