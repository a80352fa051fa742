"""Hugging Face image folders: a folder of pictures per split, and `metadata.jsonl` with a line for each picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ..export_types import ExportPlan, Sample, Shard, Target
from ._card import card
from .coco import area_of

TASKS = ("detection",)
UNIT = "frames"


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """The pictures."""
    for sample in samples:
        assert sample.image is not None
        target.write(f"{shard.split}/{sample.picture_name}", sample.image)


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """The lines. Boxes are [x, y, width, height] in pixels; categories count from 0, as in classes.json."""
    with target.open(f"{split}/metadata.jsonl") as file:
        for sample in samples:
            names = ("media_id", "stream_index", "pts", "pts_s", "width_px", "height_px", "labelled_by")
            objects = {
                "bbox": [[x, y, right - x, bottom - y] for x, y, right, bottom in (o.box for o in sample.objects)],
                "categories": [plan.index_of(each.category_id) for each in sample.objects],
                "area": [area_of(each) for each in sample.objects],
                "iscrowd": [each.iscrowd for each in sample.objects],
            }
            told = {"file_name": sample.picture_name, **{name: getattr(sample, name) for name in names}}
            file.write(json.dumps({**told, "objects": objects}, ensure_ascii=False).encode() + b"\n")


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """Names of the classes, by place, and the card: without it, splits are guessed from names of folders above too."""
    names = json.dumps([each.name for each in plan.categories], ensure_ascii=False)
    return {"classes.json": names.encode(), "README.md": card(plan, path="{split}/**")}
