"""Frames as the report shows them: a small picture, and boxes drawn over it by the page itself."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from visionlake.udfs.draw_boxes import COLOURS

_MAX_BOXES = 100
_MAX_OUTLINES, _OUTLINE_PX = 20, 160  # masks of a frame, and at which size they are outlined
_MAX_NAMED = 10  # boxes of a frame: more names would cover each other
_CELL_PX, _TEXT_PX = (340, 227), 12  # of a picture and of its labels, as a desktop shows them
_DASHES = ("", "6 3", "2 2", "8 2 2 2")

Frame = Mapping[str, Any]


class Look(NamedTuple):
    """How a box is drawn: its line, and whether its name stands below it."""

    colour: str
    dashes: str
    is_named_below: bool = False


Style = Callable[[str, str], Look]
"""How a box of a model with a label is drawn."""


def pictures_by_label(frames: Sequence[Frame]) -> list[dict[str, Any]]:
    """The frames with a colour for each label, and dashes for each model."""
    models = sorted({row["model_id"] for frame in frames for row in frame["labels"]})
    labels = sorted({i["label"] or "" for frame in frames for row in frame["labels"] for i in row["instances"] or ()})

    def style(model: str, label: str) -> Look:
        return Look(COLOURS[labels.index(label) % len(COLOURS)], _DASHES[models.index(model) % len(_DASHES)])

    return [picture(frame, style) for frame in frames]


def pictures_by_model(frames: Sequence[Frame], models: Sequence[str]) -> list[dict[str, Any]]:
    """The frames with a colour and dashes for each of the models; every other one names its boxes below them."""

    def style(model: str, label: str) -> Look:
        place = models.index(model)
        return Look(COLOURS[place % len(COLOURS)], _DASHES[place % len(_DASHES)], is_named_below=place % 2 == 1)

    return [picture(frame, style) for frame in frames]


def picture(frame: Frame, style: Style) -> dict[str, Any]:
    """A frame of `frames_of_keys` as the page's template takes it."""
    from visionlake.udfs.contact_sheet import data_uri

    font = max(4, round(_TEXT_PX * max(frame["width_px"] / _CELL_PX[0], frame["height_px"] / _CELL_PX[1])))
    boxes = [
        _box(
            instance,
            look=style(row["model_id"], instance["label"] or ""),
            size=(frame["width_px"], frame["height_px"]),
            font=font,
            is_named=place < _MAX_NAMED and not instance.get("is_quiet"),
            has_outline=place < _MAX_OUTLINES,
        )
        for row in frame["labels"]
        for place, instance in enumerate((row["instances"] or ())[:_MAX_BOXES])
    ]
    words = "; ".join(filter(None, (_found(row["instances"] or ()) for row in frame["labels"])))
    seconds = "" if frame["pts_s"] is None else f"{frame['pts_s']:.3f} s, "
    when = f"{seconds}stream {frame['stream_index']}, pts {frame['pts']}"
    return {
        "source": frame["image"] and data_uri(frame["image"]),
        "why": frame["why"],
        "width": frame["thumb_width_px"],
        "height": frame["thumb_height_px"],
        "frame_width": frame["width_px"],
        "frame_height": frame["height_px"],
        "font": font,
        "boxes": boxes,
        "id": _id(frame),
        "also": [],
        "place": "/".join(frame["place"].rsplit("/", 2)[-2:]),
        "uri": frame["place"],
        "when": when,
        "note": words or ("nothing found" if frame["labels"] else ""),
        "alt": f"frame at {when}: {words or 'no labels'}",
    }


def link_alike(sections: Mapping[str, tuple[str, Sequence[dict[str, Any]]]]) -> None:
    """Let each picture say in `also` where else the page shows its frame; sections have an id, a title and pictures."""
    places: dict[str, list[tuple[str, str]]] = {}
    for name, (title, pictures) in sections.items():
        for each in pictures:
            places.setdefault(each["id"], []).append((name, title))
    for name, (_, pictures) in sections.items():
        for each in pictures:
            each["also"] = [(f"{other}-{each['id']}", title) for other, title in places[each["id"]] if other != name]


def _id(frame: Frame) -> str:
    """What tells a frame from others in a link, the same on every page."""
    return hashlib.sha256(f"{frame['media_id']}/{frame['stream_index']}/{frame['pts']}".encode()).hexdigest()[:12]


def _found(instances: Sequence[Mapping[str, Any]]) -> str:
    """What one model found in a frame, in words."""
    seen = Counter(instance["label"] for instance in instances)
    return ", ".join(f"{count} {label}" for label, count in seen.most_common(8))


def _box(
    instance: Mapping[str, Any],
    *,
    look: Look,
    size: tuple[int, int],
    font: int,
    is_named: bool,
    has_outline: bool,
) -> dict[str, Any]:
    box = instance["box"]
    is_right = box["x_min"] > size[0] * 0.6
    above, below = max(box["y_min"] - font * 0.25, font), min(box["y_max"] + font, size[1] - font * 0.25)
    return {
        "x": round(box["x_min"], 2),
        "y": round(box["y_min"], 2),
        "width": round(box["x_max"] - box["x_min"], 2),
        "height": round(box["y_max"] - box["y_min"], 2),
        "text_x": round(box["x_max"] if is_right else box["x_min"], 2),
        "text_y": round(below if look.is_named_below else above, 2),
        "anchor": "end" if is_right else "start",
        "text": _named(instance) if is_named else "",
        "outline": _outline(instance, size) if has_outline else "",
        "colour": look.colour,
        "dashes": look.dashes,
        "is_quiet": instance.get("is_quiet", False),
    }


def _named(instance: Mapping[str, Any]) -> str:
    """Label and score; people give none."""
    score = instance.get("score")
    return f"{instance['label']}" if score is None else f"{instance['label']} {score:.2f}"


def _outline(instance: Mapping[str, Any], size: tuple[int, int]) -> str:
    """The mask as an SVG path in pixels of the frame, roughly; empty where there is none."""
    from visionlake.udfs.mask_polygons import outline
    from visionlake.udfs.resize_rle import resize_rle

    mask = instance.get("mask")
    if mask is None:
        return ""
    scale = max(1.0, max(size) / _OUTLINE_PX)
    width, height = (max(1, round(side / scale)) for side in size)
    rings = outline(resize_rle(mask, size=(height, width)))
    across, down = size[0] / width, size[1] / height
    paths = []
    for ring in rings:
        points = [f"{x * across:.0f} {y * down:.0f}" for x, y in zip(ring[::2], ring[1::2], strict=True)]
        paths.append(f"M{' '.join(points)}Z")
    return "".join(paths)
