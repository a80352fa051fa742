"""The colours of a scene. Training and held-out scenes draw from disjoint bands of hue."""

from __future__ import annotations

import colorsys
from typing import Literal

import numpy as np

Split = Literal["train", "held_out"]
Colour = tuple[int, int, int]

SPLITS: tuple[Split, ...] = ("train", "held_out")
HUES: dict[Split, tuple[tuple[float, float], ...]] = {
    "train": ((0.00, 0.09), (0.24, 0.38), (0.55, 0.67)),
    "held_out": ((0.12, 0.20), (0.42, 0.51), (0.72, 0.93)),
}
_SKIN: dict[Split, tuple[Colour, ...]] = {
    "train": ((244, 208, 177), (198, 140, 98), (120, 78, 52)),
    "held_out": ((226, 178, 140), (158, 106, 72), (84, 56, 42)),
}


class Palette:
    """Colours drawn for one scene: a few hues of the split's bands, and shared greys for tyres, glass and asphalt."""

    def __init__(self, rng: np.random.Generator, *, split: Split) -> None:
        self._split: Split = split
        bands = HUES[split]
        self._hues = [rng.uniform(*bands[rng.integers(len(bands))]) for _ in range(6)]
        self._ground_hues = self._hues[:2]

    def paint(self, rng: np.random.Generator) -> Colour:
        """A colour of an object: lively, now and then a grey."""
        if rng.random() < 0.12:
            return grey(rng.uniform(0.25, 0.95))
        return hsv(self._hues[rng.integers(len(self._hues))], rng.uniform(0.35, 0.95), rng.uniform(0.35, 0.97))

    def ground(self, rng: np.random.Generator, *, light: float) -> Colour:
        """A colour of the background: muted, `light` from 0 (dark) to 1."""
        hue = self._ground_hues[rng.integers(2)]
        return hsv(hue, rng.uniform(0.08, 0.5), light)

    def skin(self, rng: np.random.Generator) -> Colour:
        tones = _SKIN[self._split]
        return shade(tones[rng.integers(len(tones))], rng.uniform(0.9, 1.05))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def grey(light: float) -> Colour:
    value = round(light * 255)
    return value, value, min(255, value + 4)


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, round(part * factor))) for part in colour)
    return red, green, blue
