"""Measures of one picture: brightness, contrast, sharpness and a perceptual hash, all from its luma.

Luma is 0.299 R + 0.587 G + 0.114 B (BT.601), rounded to 8 bits, of the picture as stored, before compression.
"""

from __future__ import annotations

import math
from typing import TypedDict

import numpy as np
from PIL import Image


class Quality(TypedDict):
    """`brightness` and `contrast` are mean (0-255) and standard deviation (0-127.5) of luma.

    `sharpness` is the variance of the Laplacian (Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy",
    ICPR 2000); null for a picture of less than three pixels a side. `phash` is the 64-bit DCT hash (Zauner,
    "Implementation and benchmarking of perceptual image hash functions", 2010) as 16 hex digits.
    """

    brightness: float
    contrast: float
    sharpness: float | None
    phash: str


def measure(luma: np.ndarray) -> Quality:
    """Measures of a picture's luma, height x width, 8 bits."""
    counts = np.asarray(Image.fromarray(luma).histogram(), dtype=np.float64)
    levels = np.arange(256)
    mean = float(counts @ levels) / luma.size
    variance = float(counts @ (levels - mean) ** 2) / luma.size
    return Quality(brightness=mean, contrast=math.sqrt(variance), sharpness=laplacian_variance(luma), phash=phash(luma))


def laplacian_variance(luma: np.ndarray) -> float | None:
    """Variance of `up + down + left + right - 4 * centre` over the inner pixels; exact up to float32 products."""
    if min(luma.shape) < 3:
        return None
    levels = luma.astype(np.int16)
    edges = levels[:-2, 1:-1] + levels[2:, 1:-1]
    edges += levels[1:-1, :-2]
    edges += levels[1:-1, 2:]
    edges -= levels[1:-1, 1:-1] << 2
    mean = float(edges.sum(dtype=np.int64)) / edges.size
    # One row at a time: a float32 sum over a whole large picture would lose digits.
    rows = edges.astype(np.float32)
    squares = float(np.einsum("ij,ij->i", rows, rows).sum(dtype=np.float64))
    return max(0.0, squares / edges.size - mean * mean)


def phash(luma: np.ndarray) -> str:
    """Signs, against their median, of the 8 x 8 lowest frequencies of the picture at 32 x 32; 16 hex digits.

    Small changes of size, compression or brightness flip few bits; equal pictures have equal hashes.
    """
    small = Image.fromarray(luma).resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=2.0)
    frequencies = _DCT @ np.asarray(small, dtype=np.float64) @ _DCT.T
    # Rounded, so that a flat picture hashes the same everywhere in spite of noise in the last bits.
    frequencies = np.round(frequencies, 3)
    bits = (frequencies > np.median(frequencies)).ravel()
    return np.packbits(bits).tobytes().hex()


def _dct_rows(*, size: int, count: int) -> np.ndarray:
    """The first `count` basis vectors of the DCT-II over `size` samples."""
    frequency, sample = np.arange(count)[:, None], np.arange(size)[None, :]
    return np.cos(np.pi * frequency * (2 * sample + 1) / (2 * size))


_DCT = _dct_rows(size=32, count=8)
