"""Pictures of any size to the input of a network, as the model's card says, and boxes back."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import numpy.typing as npt
from PIL import Image

from .cards import Card, ResizeCard
from .detector_types import Prepared

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_ROUNDING = {"floor": floor, "round": round, "ceil": ceil}


def prepare(picture: Image.Image, card: Card) -> Prepared:
    """The picture as the card's network takes it, its channels still RGB.

    A letterbox is scaled by one factor; like the networks that use it, boxes go back by that factor, not by the sizes
    that it was rounded to.
    """
    target = (card.input.width_px, card.input.height_px)
    width, height = picture.size
    if card.resize.mode == "stretch":
        pixels = np.asarray(_resized(picture, target, card.resize))
        scale_x, scale_y = target[0] / width, target[1] / height
        return Prepared(
            pixels=pixels, width_px=width, height_px=height, scale_x=scale_x, scale_y=scale_y, left=0.0, top=0.0
        )
    scale = min(target[0] / width, target[1] / height)
    rounded = _ROUNDING[card.resize.rounding]
    size = (min(target[0], max(1, rounded(width * scale))), min(target[1], max(1, rounded(height * scale))))
    is_centred = card.resize.placement == "center"
    left, top = ((target[0] - size[0]) // 2, (target[1] - size[1]) // 2) if is_centred else (0, 0)
    pixels = np.full((target[1], target[0], 3), card.resize.pad_value, np.uint8)
    pixels[top : top + size[1], left : left + size[0]] = np.asarray(_resized(picture, size, card.resize))
    return Prepared(
        pixels=pixels, width_px=width, height_px=height, scale_x=scale, scale_y=scale, left=float(left), top=float(top)
    )


def to_picture(boxes: npt.NDArray[np.float64], prepared: Prepared) -> npt.NDArray[np.float64]:
    """Boxes (N x 4) in pixels of the network's input to pixels of the picture, cut off at its edges.

    One that lies in the room beside the picture becomes empty. One that lies outside of the input, where no network
    can have seen a thing, stays as it is, for the gate to find.
    """
    shift = np.array([prepared.left, prepared.top] * 2)
    scale = np.array([prepared.scale_x, prepared.scale_y] * 2)
    moved = (boxes - shift) / scale
    inside = np.clip(moved, 0.0, [prepared.width_px, prepared.height_px] * 2)
    height, width = prepared.pixels.shape[:2]
    x_min, y_min, x_max, y_max = boxes.T
    is_away = (x_max <= 0) | (y_max <= 0) | (x_min >= width) | (y_min >= height)
    return np.where(is_away[:, None], moved, inside)


def has_extent(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which boxes have an area."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _resized(picture: Image.Image, size: tuple[int, int], card: ResizeCard) -> Image.Image:
    if picture.size == size:
        return picture
    if card.antialias:
        return picture.resize(size, _FILTERS[card.interpolation])
    whole = (0, 0, *picture.size)
    return picture.transform(size, Image.Transform.EXTENT, whole, _FILTERS[card.interpolation])
