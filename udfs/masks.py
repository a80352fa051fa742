"""From what networks say of masks to masks at the size of the picture, kept as COCO run-length encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .rle import Rle, decode_mask, encode_mask

if TYPE_CHECKING:
    import torch

_BAND_VALUES = 1 << 24  # values that are held at full size at a time


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A mask that has at least one pixel. `box` (x_min, y_min, x_max, y_max) holds its pixels exactly."""

    rle: Rle
    area_px: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The part of a grid (height x width, from its top left corner) that the picture covers, in cells."""

    rows: float
    columns: float


def find_mask(
    part: npt.NDArray[np.bool_], *, size: tuple[int, int] | None = None, offset: tuple[int, int] = (0, 0)
) -> Mask | None:
    """The mask of a picture of `size` (height, width) of which `part` is what lies at `offset` (row, column).

    None where no pixel is on.
    """
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    tight = part[top : rows[-1] + 1, left : columns[-1] + 1]
    y, x = offset[0] + top, offset[1] + left
    return Mask(
        rle=encode_mask(tight, size=size or part.shape, offset=(y, x)),
        area_px=int(np.count_nonzero(tight)),
        box=(float(x), float(y), float(x + tight.shape[1]), float(y + tight.shape[0])),
    )


def union_of(masks: Sequence[Mask]) -> Mask:
    """The mask of all pixels of some masks of one size."""
    if len(masks) == 1:
        return masks[0]
    found = find_mask(reduce(np.logical_or, (decode_mask(mask.rle) for mask in masks)))
    assert found is not None
    return found


def paste_mask(shares: torch.Tensor, box: npt.NDArray[np.float64], *, size: tuple[int, int]) -> Mask | None:
    """The mask of an object in a picture of `size` (height, width), from a grid (rows x columns) over its box.

    The grid holds how likely each of its cells is a part of the object.
    A pixel is on where the likelihood at its centre is at least a half. Beside the grid it falls off to nothing within
    half a cell (He et al., Mask R-CNN, arXiv:1703.06870, whose grid has a frame of zeros when it is pasted).
    """
    import torch

    height, width = size
    x_min, y_min, x_max, y_max = box.tolist()
    top, left = max(0, int(np.floor(y_min))), max(0, int(np.floor(x_min)))
    bottom, right = min(height, int(np.ceil(y_max))), min(width, int(np.ceil(x_max)))
    if bottom <= top or right <= left or x_max <= x_min or y_max <= y_min:
        return None
    padded = torch.nn.functional.pad(shares.float(), (1, 1, 1, 1))
    down, across = shares.shape[-2] / (y_max - y_min), shares.shape[-1] / (x_max - x_min)
    rows = (torch.arange(top, bottom, device=shares.device) + 0.5 - y_min) * down + 0.5
    columns = (torch.arange(left, right, device=shares.device) + 0.5 - x_min) * across + 0.5
    found = _interpolated(_interpolated(padded, rows, dim=-2), columns, dim=-1)
    return find_mask((found >= 0.5).cpu().numpy(), size=size, offset=(top, left))


def sample_mask(
    grid: torch.Tensor,
    *,
    size: tuple[int, int],
    scale: tuple[float, float],
    shift: tuple[float, float],
    box: npt.NDArray[np.float64] | None = None,
) -> Mask | None:
    """The mask of an object from its logits (rows x columns) on a grid over more than the picture.

    A point (y, x) of the picture, of `size` (height, width), lies at `(y, x) * scale + shift` of the grid, whose cells
    have sides of 1. A pixel is on where the logit at its centre is above 0 and, with a `box`, its centre inside.
    """
    import torch

    top, left, (bottom, right) = 0, 0, size
    if box is not None:
        left, top, right, bottom = (max(0, int(np.ceil(edge - 0.5))) for edge in box.tolist())
        bottom, right = min(bottom, size[0]), min(right, size[1])
    if bottom <= top or right <= left:
        return None
    rows = (torch.arange(top, bottom, device=grid.device) + 0.5) * scale[0] + shift[0] - 0.5
    columns = (torch.arange(left, right, device=grid.device) + 0.5) * scale[1] + shift[1] - 0.5
    found = _interpolated(_interpolated(grid.float(), rows, dim=-2), columns, dim=-1)
    return find_mask((found > 0).cpu().numpy(), size=size, offset=(top, left))


def in_bands(grid: torch.Tensor, *, size: tuple[int, int], extent: Extent | None = None) -> Iterator[torch.Tensor]:
    """A grid of values (layers x rows x columns) at the `size` (height, width) of the picture, some rows at a time.

    Interpolation is bilinear between the centres of cells. `extent` is the part that the picture covers, by default
    all; a picture of full size with a value for each of many classes is more than memory holds.
    """
    import torch

    layers, rows, columns = grid.shape
    extent = extent or Extent(rows=rows, columns=columns)
    height, width = size
    down = (torch.arange(height, device=grid.device) + 0.5) * (extent.rows / height) - 0.5
    across = (torch.arange(width, device=grid.device) + 0.5) * (extent.columns / width) - 0.5
    band = max(1, _BAND_VALUES // (layers * max(width, columns)))
    for first in range(0, height, band):
        yield _interpolated(_interpolated(grid, down[first : first + band], dim=-2), across, dim=-1)


def _interpolated(values: torch.Tensor, places: torch.Tensor, *, dim: int) -> torch.Tensor:
    """Values at places between those of a dimension; beyond its ends the last ones."""
    last = values.shape[dim] - 1
    places = places.clamp(0, last)
    before = places.long().clamp(max=max(0, last - 1))
    after = (before + 1).clamp(max=last)
    share = (places - before).to(values.dtype)
    share = share if dim == -1 else share[:, None]
    return values.index_select(dim, before) * (1 - share) + values.index_select(dim, after) * share
