"""COCO: pictures in a folder per split, and one JSON file for each (Lin et al., arXiv:1405.0312).

Which frame an image is, and whose labels it has, is in its entry `visionlake`; the importer of COCO finds it again by
that. Objects that were found have their `score`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from tempfile import SpooledTemporaryFile
from typing import Any

from ..export_types import Category, ExportObject, ExportPlan, Sample, Shard, Target

TASKS = ("detection", "segmentation")
UNIT = "frames"
_MEMORY_BYTES = 64 << 20


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """The pictures."""
    for sample in samples:
        assert sample.image is not None
        target.write(f"images/{shard.split}/{sample.picture_name}", sample.image)


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """The annotations of a split. Images are written as they come, and what is on them is kept aside until then."""
    names = {category.id: category for category in plan.categories}
    with target.open(f"annotations/instances_{split}.json") as file, SpooledTemporaryFile(_MEMORY_BYTES) as aside:
        file.write(b'{"images": [')
        count = 0
        for number, sample in enumerate(samples, 1):
            file.write(_item(number, _image(number, sample)))
            for each in sample.objects:
                count += 1
                aside.write(_item(count, {"id": count, "image_id": number, **_annotation(each, plan, names)}))
        file.write(b'\n],\n"annotations": [')
        aside.seek(0)
        shutil.copyfileobj(aside, file)
        categories = [_category(category) for category in plan.categories]
        file.write(b'\n],\n"categories": ' + _json(categories) + b"}\n")


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """None: each split tells all of itself."""
    return {}


def _item(number: int, values: Mapping[str, Any]) -> bytes:
    return (b",\n" if number > 1 else b"\n") + _json(values)


def _json(values: Any) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _image(number: int, sample: Sample) -> dict[str, Any]:
    names = ("media_id", "stream_index", "pts", "pts_s", "frame_index", "image_name", "labelled_by")
    found = {
        "id": number,
        "file_name": sample.picture_name,
        "width": sample.width_px,
        "height": sample.height_px,
        "visionlake": {name: getattr(sample, name) for name in names},
    }
    return found | ({"attributes": dict(sorted(sample.attributes.items()))} if sample.attributes else {})


def _annotation(each: ExportObject, plan: ExportPlan, names: Mapping[int, Category]) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = each.box
    found: dict[str, Any] = {
        "category_id": each.category_id,
        "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
        "area": area_of(each),
        "iscrowd": int(each.iscrowd),
        "segmentation": _segmentation(each) if plan.task == "segmentation" else [],
    }
    if each.keypoints is not None:
        found |= _keypoints(each, names[each.category_id])
    told = {"score": each.score, "track_id": each.track_id, "attributes": dict(sorted(each.attributes.items())) or None,
            "visionlake": None if each.annotation_id is None else {"annotation_id": each.annotation_id}}  # fmt: skip
    return found | {name: value for name, value in told.items() if value is not None}


def area_of(each: ExportObject) -> float:
    """The area that was stated, else that of the mask, else of the box, in square pixels."""
    if each.area is not None:
        return each.area
    if each.mask is not None:
        from pycocotools import mask as coco_mask

        return float(coco_mask.area(dict(each.mask)))  # pyright: ignore[reportArgumentType] -- text will do
    x_min, y_min, x_max, y_max = each.box
    return (x_max - x_min) * (y_max - y_min)


def _segmentation(each: ExportObject) -> Any:
    if each.polygons and not each.iscrowd:
        return [[*ring] for ring in each.polygons]
    return dict(each.mask) if each.mask is not None else []


def _keypoints(each: ExportObject, category: Category) -> dict[str, Any]:
    """Three numbers for each keypoint of the class; those that are not there are zeros."""
    points = {name: (x, y, seen) for name, x, y, seen in each.keypoints or ()}
    flat = [number for name in category.keypoints for number in points.get(name, (0, 0, 0))]
    return {"keypoints": flat, "num_keypoints": sum(seen > 0 for *_, seen in points.values())}


def _category(category: Category) -> dict[str, Any]:
    found: dict[str, Any] = {"id": category.id, "name": category.name}
    return found | ({"keypoints": [*category.keypoints]} if category.keypoints else {})
