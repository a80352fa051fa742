"""YOLO as Ultralytics reads it: pictures, a text file of the same stem for each, and `data.yaml`.

Coordinates are shares of the picture. A line of a file has one polygon, so that the rings of an object of several parts
are joined, by lines that go there and back. Crowds are left out: YOLO has no word for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..export_types import ExportObject, ExportPlan, Sample, Shard, Target
from ..mask_polygons import outline

TASKS = ("detection", "segmentation")
UNIT = "frames"
_KEYS = ("train", "val", "test")

Points = npt.NDArray[np.float64]


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """Pictures with their text files; that of a picture which shows nothing is empty."""
    for sample in samples:
        assert sample.image is not None
        target.write(f"images/{shard.split}/{sample.picture_name}", sample.image)
        lines = (_line(each, sample, plan) for each in sample.objects if not each.iscrowd)
        target.write(f"labels/{shard.split}/{sample.stem}.txt", "".join(lines).encode())


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """Nothing: which pictures a split has, its folder says."""


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """`data.yaml`. Ultralytics wants train and val: where a set has no such split, they are what it has first."""
    folders = {split: f"images/{split}" for split in plan.splits}
    first = next(iter(folders.values()), "images/train")
    paths = {key: folders.get(key, first) for key in _KEYS if key in folders or key != "test"} | folders
    lines = [*(f"{json.dumps(key)}: {json.dumps(path)}" for key, path in paths.items()), "names:"]
    lines += [f"  {place}: {json.dumps(each.name)}" for place, each in enumerate(plan.categories)]
    return {"data.yaml": "\n".join([*lines, ""]).encode()}  # YAML reads JSON's text


def _line(each: ExportObject, sample: Sample, plan: ExportPlan) -> str:
    numbers = _ring(each, sample) if plan.task == "segmentation" else _box(each, sample)
    return " ".join([str(plan.index_of(each.category_id)), *map(repr, numbers)]) + "\n"


def _box(each: ExportObject, sample: Sample) -> list[float]:
    x_min, y_min, x_max, y_max = each.box
    width, height = sample.width_px, sample.height_px
    return [
        (x_min + x_max) / 2 / width,
        (y_min + y_max) / 2 / height,
        (x_max - x_min) / width,
        (y_max - y_min) / height,
    ]


def _ring(each: ExportObject, sample: Sample) -> list[float]:
    """One polygon: of the polygons there are, else of the mask, else of the box."""
    x_min, y_min, x_max, y_max = each.box
    flat: Sequence[Sequence[float]] = each.polygons or (outline(each.mask) if each.mask is not None else [])
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in flat]
    ring = join_rings(rings or [np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]])])
    return (ring / (sample.width_px, sample.height_px)).ravel().tolist()


def join_rings(rings: Sequence[Points]) -> Points:
    """Rings (n, 2) as one, each joined to what is there by a line between nearest points, walked there and back."""
    whole = rings[0]
    for ring in rings[1:]:
        apart = ((whole[:, None] - ring[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(apart.argmin(), apart.shape)
        detour = np.concatenate([ring[there:], ring[: there + 1], whole[here : here + 1]])
        whole = np.concatenate([whole[: here + 1], detour, whole[here + 1 :]])
    return whole
