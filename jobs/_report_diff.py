"""The report's comparison of two models: the classes, and the frames on which they agree least."""

from __future__ import annotations

from typing import Any

from visionlake.errors import UsageError
from visionlake.udfs.agreement import Agreement
from visionlake.udfs.draw_boxes import COLOURS

from ._diff_labels import LabelDiff, diff_labels
from ._lake import Lake
from ._report_facts import frames_of_keys
from ._report_pictures import pictures_by_model

_MAX_CLASSES = 50


def diff_section(lake: Lake, models: tuple[str, str], *, most: int, side_px: int) -> dict[str, Any]:
    """What the page says of the agreement of two models, A and B; in `problem`, why it can say nothing."""
    try:
        diff = diff_labels(lake, *models, worst=most)
    except UsageError as error:  # a model that has not looked yet is no reason to have no page
        return {"problem": str(error)}
    frames = frames_of_keys(lake, [each.as_dict() for each in diff.worst], side_px=side_px, models=models)
    found = {(frame["media_id"], frame["stream_index"], frame["pts"]): frame for frame in frames}
    keys = [(each.media_id, each.stream_index, each.pts) for each in diff.worst]
    shown = [(found[key], each.agreed) for key, each in zip(keys, diff.worst, strict=True) if key in found]
    pictures = pictures_by_model([frame for frame, _ in shown], models)
    for picture, (_, agreed) in zip(pictures, shown, strict=True):
        picture["note"] = (
            f"{agreed.missed} missed, {agreed.extra} extra, {agreed.moved} moved, {agreed.matched} matched"
        )
    return {
        "problem": "",
        "models": [
            {"name": name, "model_id": model, "colour": colour, "alone": f"{alone:,}"}
            for name, model, colour, alone in zip(
                "AB", models, COLOURS, (diff.frames_only_a, diff.frames_only_b), strict=False
            )
        ],
        "frames": f"{diff.frames:,}",
        "iou": f"{diff.iou:g}",
        "moved": f"{diff.moved:g}",
        "classes": _classes(diff),
        "left_out": max(0, len(diff.classes) - _MAX_CLASSES),
        "pictures": pictures,
    }


def _classes(diff: LabelDiff) -> list[dict[str, str]]:
    rows = [_row(each.label, each.frames, each.agreed) for each in diff.classes[:_MAX_CLASSES]]
    return [*rows, *[_row("all", diff.frames, diff.total)] * (len(diff.classes) > 1)]


def _row(label: str, frames: int, agreed: Agreement) -> dict[str, str]:
    names = ("boxes_a", "boxes_b", "matched", "moved", "missed", "extra")
    share = "" if agreed.agreement is None else f"{agreed.agreement:.3f}"
    return {
        "label": label,
        "frames": f"{frames:,}",
        **{n: f"{getattr(agreed, n):,}" for n in names},
        "agreement": share,
    }
