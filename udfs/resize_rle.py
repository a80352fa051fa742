"""Masks brought to another size of the same picture."""

from __future__ import annotations

import numpy as np

from .rle import Rle, decode_mask, encode_mask


def resize_rle(mask: Rle, *, size: tuple[int, int]) -> Rle:
    """The mask at a `size` (height, width) in pixels: each pixel is what lies under its centre."""
    height, width = mask["size"]
    if (height, width) == tuple(size):
        return {"size": [height, width], "counts": mask["counts"]}
    rows = ((np.arange(size[0]) + 0.5) * height / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * width / size[1]).astype(int)
    return encode_mask(decode_mask(mask)[rows][:, columns])
