"""The camera of a scene, the light on it, and what its lens and sensor do to the picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi, sin

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Pixels = npt.NDArray[np.uint8]

MAX_PAN = 0.16  # of the picture's side, to either side
MIN_ZOOM, MAX_ZOOM = 0.88, 1.15
_CELL_PX = 40  # of the field of light


@dataclass(frozen=True, kw_only=True)
class View:
    """The world point in the middle of the picture, and the magnification."""

    x: float
    y: float
    zoom: float


class Camera:
    """Stands still, or pans, zooms and trembles."""

    def __init__(self, rng: np.random.Generator, *, width_px: int, height_px: int) -> None:
        moves = rng.random() < 0.75
        self._pan = rng.uniform(0.2, 0.9, 2) * MAX_PAN * (width_px, height_px) * moves
        self._tremble = rng.uniform(0, 0.04) * MAX_PAN * min(width_px, height_px) * moves
        self._zoom = rng.uniform(0, 1) * moves * (rng.random() < 0.6)
        self._periods = rng.uniform(5, 14, 3)
        self._starts = rng.uniform(0, 2 * pi, 5)

    def view(self, time_s: float) -> View:
        x, y, zoom = (sin(2 * pi * time_s / p + s) for p, s in zip(self._periods, self._starts[:3], strict=True))
        shake_x = self._tremble * sin(2 * pi * 1.9 * time_s + self._starts[3])
        shake_y = self._tremble * sin(2 * pi * 2.3 * time_s + self._starts[4])
        middle, half = (MAX_ZOOM + MIN_ZOOM) / 2, (MAX_ZOOM - MIN_ZOOM) / 2
        magnified = 1 + self._zoom * (middle - 1 + half * zoom)
        return View(x=float(self._pan[0] * x + shake_x), y=float(self._pan[1] * y + shake_y), zoom=float(magnified))


class Light:
    """Slow changes of brightness and tint, and shadows of clouds that drift over the picture."""

    def __init__(self, rng: np.random.Generator, *, width_px: int, height_px: int) -> None:
        self._size = (width_px, height_px)
        self._level, self._swing = rng.uniform(0.75, 1.12), rng.uniform(0.0, 0.15)
        self._tint = rng.uniform(0.93, 1.07, 3)
        self._period, self._start = rng.uniform(2, 7), rng.uniform(0, 2 * pi)
        self._cells = (width_px / _CELL_PX + 2, height_px / _CELL_PX + 2)
        # The field repeats, so that it can drift for ever.
        field = rng.random((16, 24), np.float32)
        strength = rng.uniform(0, 0.45)
        self._field = Image.fromarray(np.tile(1 - strength * field, (3, 3)))
        self._drift = rng.uniform(-1.5, 1.5, 2)

    def shine(self, pixels: Pixels, time_s: float) -> Pixels:
        left, top = (float(v * time_s % n) for v, n in zip(self._drift, (24, 16), strict=True))
        box = (left, top, left + min(self._cells[0], 47), top + min(self._cells[1], 31))
        clouds = np.asarray(self._field.resize(self._size, Image.Resampling.BILINEAR, box=box))
        swing = 1 + self._swing * sin(2 * pi * time_s / self._period + self._start)
        gain = (clouds * (256 * 0.5 * self._level * swing)).astype(np.uint16)  # half, as 255 * gain has to fit 16 bits
        tint = np.tile(np.rint(self._tint * 128).astype(np.uint16), self._size[0])
        lit = pixels * gain[..., None]
        lit >>= 7
        rows = lit.reshape(len(lit), -1)  # one long line per row: numpy is slow over an axis of three
        rows *= tint
        lit >>= 7
        return np.minimum(lit, 255, out=lit).astype(np.uint8)


class Lens:
    """Blur of the whole picture, and the sensor's noise."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._blur = float(rng.uniform(0.3, 0.9)) if rng.random() < 0.35 else 0.0
        self._noise = int(rng.integers(0, 9))
        self.shutter_s = float(rng.uniform(0, 0.03))

    def expose(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        if self._blur:
            image = Image.fromarray(pixels).filter(ImageFilter.BoxBlur(self._blur))
            pixels = np.asarray(image)
        if not self._noise:
            return pixels
        height, width = pixels.shape[:2]
        # A window of one stored sheet of noise, anew for each picture, is forty times faster than drawing it.
        sheet = _noise_sheet(self._noise, height + 64, width + 64)
        top, left = rng.integers(64, size=2)
        noisy = pixels + sheet[top : top + height, left : left + width]
        return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)


@lru_cache(maxsize=16)
def _noise_sheet(sigma: int, height: int, width: int) -> npt.NDArray[np.int16]:
    rng = np.random.default_rng([sigma, height, width])
    return np.rint(rng.standard_normal((height, width, 3), np.float32) * sigma).astype(np.int16)
