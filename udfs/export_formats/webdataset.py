"""WebDataset: tar files with a picture and a JSON file per sample, of the same stem, in the order of the frames.

What tar says of a file besides its name and size is the same for all, so that equal samples give equal bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from ..export_types import ExportObject, ExportPlan, Sample, Shard, Target

TASKS = ("detection", "segmentation")
UNIT = "frames"


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """One tar file."""
    path = f"{shard.split}/{shard.split}-{shard.number:06d}.tar"
    with target.open(path) as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            assert sample.image is not None
            _add(tar, sample.picture_name, sample.image)
            _add(tar, f"{sample.stem}.json", _json(_told(sample, plan)))


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """Nothing: shards tell all."""


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """The classes with their ids."""
    return {"classes.json": _json([{"id": each.id, "name": each.name} for each in plan.categories])}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _json(values: Any) -> bytes:
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _told(sample: Sample, plan: ExportPlan) -> dict[str, Any]:
    names = ("media_id", "stream_index", "pts", "pts_s", "frame_index", "width_px", "height_px", "image_name",
             "labelled_by", "split")  # fmt: skip
    found = {name: getattr(sample, name) for name in names}
    return {**found, "attributes": dict(sample.attributes), "objects": [_object(o, plan) for o in sample.objects]}


def _object(each: ExportObject, plan: ExportPlan) -> dict[str, Any]:
    names = ("category_id", "label", "score", "area", "iscrowd", "track_id", "annotation_id")
    found = {name: getattr(each, name) for name in names} | {"box": [*each.box], "attributes": dict(each.attributes)}
    if plan.task == "segmentation":
        polygons = None if each.polygons is None else [[*ring] for ring in each.polygons]
        found |= {"mask": None if each.mask is None else dict(each.mask), "polygons": polygons}
    points = each.keypoints
    return found | {"keypoints": None if points is None else [[*point] for point in points]}
