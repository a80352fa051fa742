"""Masks as polygons, for formats that have nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
from contourpy import FillType, contour_generator

from .rle import Rle, decode_mask


def outline(mask: Rle) -> list[list[float]]:
    """The rings around the parts of a mask, the largest first: x, y, x, y, ... in pixels. Holes are lost.

    A ring runs through the middles of pixels' edges, so that corners of a pixel are cut: what it encloses differs from
    the mask by a part of the pixels along its rim.
    """
    pixels = np.pad(decode_mask(mask).astype(float), 1)
    found: Any = contour_generator(z=pixels, fill_type=FillType.OuterOffset).filled(0.5, 1.5)
    points, offsets = found  # of this type of fill
    rings = [np.asarray(part)[: starts[1] - 1] - 0.5 for part, starts in zip(points, offsets, strict=True)]
    rings.sort(key=lambda ring: (-_area(ring), *ring[0]))
    return [ring.ravel().tolist() for ring in rings]


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
