"""Masks as tables hold them: COCO run-length encoding, of the size (height, width) of the stored frame."""

from __future__ import annotations

TYPE = "struct<size array<int>, counts string>"


def fits(mask: str) -> str:
    """That a mask is as large as its frame."""
    return f"{mask}.size[0] = frame_height_px AND {mask}.size[1] = frame_width_px"
