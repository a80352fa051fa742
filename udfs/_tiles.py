"""The views of a picture: which parts of it are looked at, at which scale, and the way back to its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._boxes import Floats
from .view_options import ViewOptions

CUT_SHARE = 0.02
"""Boxes this near to a tile's border, as a share of the tile's side, are taken as cut off."""

Tile = tuple[int, int, int, int]
"""Left, top, right and bottom edge, in pixels of the picture as it is looked at."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A tile of a picture that was scaled to `size_px`, then mirrored or not."""

    look: int  # which of the scaled and mirrored pictures
    size_px: tuple[int, int]
    is_flipped: bool
    tile: Tile

    def to_picture(self, boxes: Floats, *, size_px: tuple[int, int]) -> Floats:
        """Boxes (N x 4) of the view in pixels of the picture, which has the size `size_px`.

        Products come before quotients, so that what is inside the view stays inside the picture to the last bit.
        """
        moved = boxes + np.array(self.tile[:2] * 2)
        if self.is_flipped:
            moved[:, [0, 2]] = self.size_px[0] - moved[:, [2, 0]]
        return moved * np.array(size_px * 2) / np.array(self.size_px * 2)

    def is_cut(self, boxes: Floats) -> npt.NDArray[np.bool_]:
        """Which boxes (N x 4) of the view touch a border that is not one of the picture."""
        left, top, right, bottom = self.tile
        sides: Floats = np.array([right - left, bottom - top] * 2, np.float64)
        gaps: Floats = np.hstack([boxes[:, :2], sides[:2] - boxes[:, 2:]])
        is_inner = np.array([left > 0, top > 0, right < self.size_px[0], bottom < self.size_px[1]], np.bool_)
        return np.any((gaps < CUT_SHARE * sides) & is_inner, axis=1)


def views_of(picture: Image.Image, options: ViewOptions) -> Iterator[tuple[View, Image.Image]]:
    """All views of a picture (RGB) and their pixels, made one by one."""
    for look, (scale, is_flipped) in enumerate(options.looks):
        width, height = (max(1, round(side * scale)) for side in picture.size)
        seen = picture if scale == 1 else picture.resize((width, height), Image.Resampling.BILINEAR)
        if is_flipped:
            seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for tile in tiles(width, height, options):
            view = View(look=look, size_px=(width, height), is_flipped=is_flipped, tile=tile)
            yield view, seen if tile == (0, 0, width, height) else seen.crop(tile)


def tiles(width_px: int, height_px: int, options: ViewOptions) -> list[Tile]:
    """The parts of a picture to look at. All tiles have one size; the whole picture comes last."""
    whole = (0, 0, width_px, height_px)
    if options.tile_px is None:
        return [whole]
    width, height = min(options.tile_px[0], width_px), min(options.tile_px[1], height_px)
    found = [
        (left, top, left + width, top + height)
        for top in _starts(height_px, height, overlap=options.tile_overlap)
        for left in _starts(width_px, width, overlap=options.tile_overlap)
    ]
    return [*found, whole] if options.beside_tiles == "picture" and found != [whole] else found


def _starts(length_px: int, side_px: int, *, overlap: float) -> list[int]:
    """Where tiles begin along one side of a picture; the last is moved back until it fits."""
    step = side_px - int(side_px * overlap)
    return [*range(0, length_px - side_px, step), length_px - side_px]
