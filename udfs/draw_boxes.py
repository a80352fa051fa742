"""Boxes, masks and labels drawn onto a picture, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .rle import decode_mask

COLOURS = (
    "#4ea1ff", "#ffb000", "#3ddc84", "#ff6b81", "#c792ea", "#ffd866", "#4dd0e1", "#ff9e64", "#a5d6a7", "#f48fb1",
)  # fmt: skip
_TINT = 0.45  # how much of a pixel's colour is that of its mask


def draw_boxes(
    picture: Image.Image, instances: Iterable[Mapping[str, Any]], *, regions: Iterable[Mapping[str, Any]] = ()
) -> Image.Image:
    """A copy of an RGB picture with the instances of a row of `detections`: a colour per label, best on top.

    Masks are tinted, and so are the `regions` of a row of `semantic_masks`, below them. Masks of another size than the
    picture's are left out.
    """
    found, below = list(instances), list(regions)
    labels = sorted({str(each["label"]) for each in (*found, *below)})
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}
    drawn = _tinted(picture, [*below, *reversed(found)], colours)
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(max(drawn.size) / 400))
    font = ImageFont.load_default(max(10, round(max(drawn.size) / 55)))
    for instance in reversed(found):
        box, label = instance["box"], str(instance["label"])
        colour = colours[label]
        corners = (box["x_min"], box["y_min"], max(box["x_min"], box["x_max"] - 1), max(box["y_min"], box["y_max"] - 1))
        pen.rectangle(corners, outline=colour, width=line)
        text = f"{label} {instance['score']:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        x = min(max(0.0, box["x_min"]), max(0.0, drawn.width - right - 4))
        y = max(0.0, box["y_min"] - bottom - 2)
        pen.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
        pen.text((x + 2 - left, y + 2 - top), text, fill="black", font=font)
    return drawn


def _tinted(picture: Image.Image, masked: Iterable[Mapping[str, Any]], colours: Mapping[str, str]) -> Image.Image:
    """A copy of the picture in which the pixels of each mask have some of its label's colour."""
    masks = [(each["mask"], colours[str(each["label"])]) for each in masked if each.get("mask")]
    masks = [(mask, colour) for mask, colour in masks if tuple(mask["size"]) == (picture.height, picture.width)]
    if not masks:
        return picture.copy()
    pixels = np.asarray(picture).astype(np.float32)
    for mask, colour in masks:
        inside = decode_mask(mask)
        tint = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)], np.float32)
        pixels[inside] = (1 - _TINT) * pixels[inside] + _TINT * tint
    return Image.fromarray(pixels.round().astype(np.uint8))
