"""Hugging Face `datasets`: Parquet files with the pictures inside, which `load_dataset` reads from their folder.

Boxes are [x, y, width, height] in pixels, as COCO has them; the columns' types (pictures, names of classes) are in each
file as `datasets` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..export_types import ExportPlan, Sample, Shard, Target
from ._card import card
from .coco import area_of

TASKS = ("detection",)
UNIT = "frames"
_GROUP_BYTES = 64 << 20
_SCALARS = {
    "media_id": ("string", pa.string()), "stream_index": ("int32", pa.int32()), "pts": ("int64", pa.int64()),
    "pts_s": ("float64", pa.float64()), "width": ("int32", pa.int32()), "height": ("int32", pa.int32()),
    "labelled_by": ("string", pa.string()),
}  # fmt: skip
_OBJECTS = {"area": ("float64", pa.float64()), "iscrowd": ("bool", pa.bool_()), "score": ("float64", pa.float64())}


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """One Parquet file, in groups of rows of some 64 MiB."""
    schema = _schema(plan)
    path = f"data/{shard.split}-{shard.number:05d}.parquet"
    with target.open(path) as file, pq.ParquetWriter(file, schema) as writer:
        rows: list[dict[str, Any]] = []
        size = 0
        for sample in samples:
            rows.append(_row(sample, plan))
            size += len(sample.image or b"")
            if size >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows, size = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """Nothing: shards tell all."""


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """The card that says which files are of which split."""
    return {"README.md": card(plan, path="data/{split}-?????.parquet")}


def _schema(plan: ExportPlan) -> pa.Schema:
    objects = pa.struct(
        [
            ("bbox", pa.list_(pa.list_(pa.float64(), 4))),
            ("category", pa.list_(pa.int64())),
            *((name, pa.list_(kind)) for name, (_, kind) in _OBJECTS.items()),
        ]
    )
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("image", image), *((name, kind) for name, (_, kind) in _SCALARS.items()), ("objects", objects)]
    told = {"info": {"features": _features(plan)}}
    return pa.schema(columns, metadata={"huggingface": json.dumps(told)})


def _features(plan: ExportPlan) -> dict[str, Any]:
    def value(kind: str) -> dict[str, Any]:
        return {"dtype": kind, "_type": "Value"}

    def listed(feature: Any, **more: Any) -> dict[str, Any]:
        return {"feature": feature, **more, "_type": "List"}

    names = {"names": [each.name for each in plan.categories], "_type": "ClassLabel"}
    return {
        "image": {"_type": "Image"},
        **{name: value(kind) for name, (kind, _) in _SCALARS.items()},
        "objects": {
            "bbox": listed(listed(value("float64"), length=4)),
            "category": listed(names),
            **{name: listed(value(kind)) for name, (kind, _) in _OBJECTS.items()},
        },
    }


def _row(sample: Sample, plan: ExportPlan) -> dict[str, Any]:
    objects = {
        "bbox": [[x, y, right - x, bottom - y] for x, y, right, bottom in (each.box for each in sample.objects)],
        "category": [plan.index_of(each.category_id) for each in sample.objects],
        "area": [area_of(each) for each in sample.objects],
        "iscrowd": [each.iscrowd for each in sample.objects],
        "score": [each.score for each in sample.objects],
    }
    return {
        **{name: getattr(sample, name) for name in ("media_id", "stream_index", "pts", "pts_s", "labelled_by")},
        "image": {"bytes": sample.image, "path": sample.picture_name},
        "width": sample.width_px,
        "height": sample.height_px,
        "objects": objects,
    }
