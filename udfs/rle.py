"""Masks as COCO run-length encoding: column by column, runs of off and on in turn, packed into ASCII text.

The same form that `pycocotools.mask` reads and writes: `{"size": [height, width], "counts": "..."}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

_MAX_BITS = 40


class Rle(TypedDict):
    """A mask of `size` (height, width) in pixels; `counts` is COCO's compressed text."""

    size: list[int]
    counts: str


def encode_mask(
    mask: npt.NDArray[np.bool_], *, size: tuple[int, int] | None = None, offset: tuple[int, int] = (0, 0)
) -> Rle:
    """Encode a mask, or the part of a larger one that holds all its pixels.

    `size` is (height, width) of the whole mask, by default that of `mask`; `offset` is (row, column) of the part in
    it. Raises `ValueError` where the part does not lie inside.
    """
    rows, columns = mask.shape
    height, width = size or (rows, columns)
    top, left = offset
    if top < 0 or left < 0 or top + rows > height or left + columns > width:
        raise ValueError(f"a part of {rows} x {columns} at {offset} does not lie in a mask of {height} x {width}")
    # An empty row below each column ends every run there, so that all columns are scanned as one line.
    padded = np.zeros((columns, rows + 1), np.int8)
    padded[:, :rows] = mask.T
    steps = np.diff(padded.ravel(), prepend=np.int8(0))
    line_starts, line_ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    starts = (left + line_starts // (rows + 1)) * height + top + line_starts % (rows + 1)
    ends = starts + (line_ends - line_starts)
    # A run that fills a column to the bottom goes on at the top of the next one.
    goes_on = np.zeros(max(len(starts) - 1, 0), bool) if len(starts) < 2 else starts[1:] == ends[:-1]
    starts = starts[np.concatenate([[True] * min(len(starts), 1), ~goes_on]).astype(bool)]
    ends = ends[np.concatenate([~goes_on, [True] * min(len(ends), 1)]).astype(bool)]
    edges = np.column_stack([starts, ends]).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)
    if len(edges) and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _pack(counts.astype(np.int64))}


def decode_mask(rle: Rle) -> npt.NDArray[np.bool_]:
    """The mask of an encoding; raises `ValueError` where its text is none, or the runs do not add up to its size."""
    return fill_runs(_unpack(rle["counts"]), size=(rle["size"][0], rle["size"][1]))


def fill_runs(counts: Sequence[int] | npt.NDArray[np.int64], *, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The mask of `size` (height, width) of runs that are off and on in turn, column by column.

    Raises `ValueError` where they are not whole numbers from 0 that add up to its pixels.
    """
    height, width = size
    numbers = np.asarray(counts)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError("the runs are not all whole numbers of 64 bits")
    # Each is looked at before they are added up: the sum of hostile ones may come out right by overflow.
    if len(bad := numbers[(numbers < 0) | (numbers > height * width)]):
        raise ValueError(f"a run of {bad[0]} pixels is none of a mask of {height} x {width}")
    if numbers.sum() != height * width:
        raise ValueError(f"runs of {numbers.sum()} pixels do not fill a mask of {height} x {width}")
    return np.repeat(np.arange(len(numbers)) % 2 == 1, numbers).reshape(width, height).T


def _pack(counts: npt.NDArray[np.int64]) -> str:
    # From the fourth on a count is kept as its difference to the one before the last; each value is then written as
    # characters of five bits, lowest first, with a bit that says whether more follow.
    values = counts.copy()
    values[3:] -= counts[1:-2]
    columns, going = [], np.ones(len(values), bool)
    while going.any():
        low = values & 0x1F
        values = values >> 5
        more = np.where(low & 0x10, values != -1, values != 0)
        columns.append(np.where(going, low + 32 * more + 48, 0))
        going = going & more
    table = np.column_stack(columns).astype(np.uint8) if columns else np.zeros((0, 0), np.uint8)
    return table[table != 0].tobytes().decode("ascii")


def _unpack(text: str) -> npt.NDArray[np.int64]:
    counts: list[int] = []
    value = shift = 0
    for character in text.encode("ascii"):
        bits = character - 48
        if shift > _MAX_BITS:  # more of them would take ever longer
            raise ValueError(f"a run of more than {_MAX_BITS} bits")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        if not 0 <= counts[-1] < 1 << _MAX_BITS:
            raise ValueError(f"a run of {counts[-1]} pixels")
        value = shift = 0
    if shift:
        raise ValueError("the runs end within a number")
    return np.asarray(counts, np.int64)
