"""Boxes and labels drawn onto a picture, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image, ImageDraw, ImageFont

COLOURS = (
    "#4ea1ff", "#ffb000", "#3ddc84", "#ff6b81", "#c792ea", "#ffd866", "#4dd0e1", "#ff9e64", "#a5d6a7", "#f48fb1",
)  # fmt: skip


def draw_boxes(picture: Image.Image, instances: Iterable[Mapping[str, Any]]) -> Image.Image:
    """A copy of an RGB picture with the instances of a row of `detections`: a colour per label, best on top."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(max(drawn.size) / 400))
    font = ImageFont.load_default(max(10, round(max(drawn.size) / 55)))
    found = list(instances)
    labels = sorted({str(instance["label"]) for instance in found})
    for instance in reversed(found):
        box, label = instance["box"], str(instance["label"])
        colour = COLOURS[labels.index(label) % len(COLOURS)]
        corners = (box["x_min"], box["y_min"], max(box["x_min"], box["x_max"] - 1), max(box["y_min"], box["y_max"] - 1))
        pen.rectangle(corners, outline=colour, width=line)
        text = f"{label} {instance['score']:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        x = min(max(0.0, box["x_min"]), max(0.0, drawn.width - right - 4))
        y = max(0.0, box["y_min"] - bottom - 2)
        pen.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
        pen.text((x + 2 - left, y + 2 - top), text, fill="black", font=font)
    return drawn
