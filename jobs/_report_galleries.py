"""Some frames of each class: which ones, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from visionlake.expectations import frames
from visionlake.udfs.draw_boxes import COLOURS

from ._label_names import is_model
from ._lake import Lake
from ._report_pictures import Look, picture

KEY = frames.TABLE.key
_MAX_CLASSES = 12
_DASHES = ("", "6 3")


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """A class: how many frames have it, and the keys of those that are shown."""

    label: str
    frames: int
    keys: list[dict[str, Any]]


def gallery_keys(lake: Lake, *, models: Sequence[str], sources: Sequence[str], most: int) -> list[Gallery]:
    """For each of the most frequent classes some frames that have it, the same ones for the same tables."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    parts = []
    for table, who, names in (("annotations", "source", sources), ("detections", "model_id", models)):
        if names and lake.exists(table):
            rows = lake.table(table).where(F.col(who).isin(list(names)))
            parts.append(rows.select(*KEY, F.explode(F.array_distinct("instances.label")).alias("label")))
    if not parts or not most or not lake.exists("frames"):
        return []
    seen = reduce(lambda one, other: one.unionByName(other), parts).distinct()
    # People may have annotated frames that were not extracted.
    seen = seen.join(lake.table("frames").select(*KEY), list(KEY), "left_semi")
    # Frames of a media lie apart, so that a gallery does not show the same scene again and again.
    drawn = F.xxhash64("label", *KEY)
    turn = F.row_number().over(Window.partitionBy("label", "media_id").orderBy(drawn))
    in_turn = seen.withColumn("_turn", turn)
    by_label = Window.partitionBy("label")
    place = F.row_number().over(by_label.orderBy("_turn", drawn))
    placed = in_turn.withColumns({"_place": place, "_count": F.count("*").over(by_label)})
    rank = F.dense_rank().over(Window.orderBy(F.desc("_count"), "label"))
    rows = placed.where(F.col("_place") <= most).withColumn("_rank", rank).where(F.col("_rank") <= _MAX_CLASSES)
    found: dict[str, Gallery] = {}
    for row in rows.orderBy("_rank", "_place").collect():
        gallery = found.setdefault(row["label"], Gallery(label=row["label"], frames=row["_count"], keys=[]))
        gallery.keys.append({name: row[name] for name in KEY})
    return list(found.values())


def galleries(
    wanted: Sequence[Gallery], found: Mapping[tuple[Any, ...], Mapping[str, Any]], who: Sequence[str]
) -> list[dict[str, Any]]:
    """The galleries of the page: each class with its pictures, on which only objects of it are drawn.

    `who` are the sources and models whose labels count; frames may have those of others.
    """
    made = []
    for place, gallery in enumerate(wanted):
        frames = [frame for key in gallery.keys if (frame := found.get(tuple(key[name] for name in KEY)))]
        pictures = [_of_class(frame, gallery.label, who) for frame in frames]
        made.append(
            {"id": f"class-{place}", "label": gallery.label, "frames": f"{gallery.frames:,}", "pictures": pictures}
        )
    return [gallery for gallery in made if gallery["pictures"]]


def _of_class(frame: Mapping[str, Any], label: str, who: Sequence[str]) -> dict[str, Any]:
    rows = [_only(row, label) for row in frame["labels"] if row["model_id"] in who]
    counts = [sum(len(row["instances"]) for row in rows if is_model(row["model_id"]) == machine) for machine in (0, 1)]
    words = ", ".join(f"{count} {how}" for count, how in zip(counts, ("annotated", "found"), strict=True) if count)
    shown = picture({**frame, "labels": [row for row in rows if row["instances"]]}, _style)
    return {**shown, "note": words, "alt": f"frame at {shown['when']}, {label}: {words}"}


def _only(row: Mapping[str, Any], label: str) -> dict[str, Any]:
    return {**row, "instances": [each for each in row["instances"] or () if each["label"] == label]}


def _style(who: str, label: str) -> Look:
    place = int(is_model(who))
    return Look(COLOURS[place], _DASHES[place], is_named_below=place == 1)
