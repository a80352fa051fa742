"""YOLO as Ultralytics reads it: pictures, a text file of the same stem for each, and `data.yaml`.

Coordinates are shares of the picture, and shapes end at its edges: Ultralytics refuses pictures with others. A line of
a file has one polygon, so that the rings of an object of several parts are joined, by lines that go there and back.
Crowds are left out, for which YOLO has no word, and what lies beyond the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..export_types import ExportObject, ExportPlan, Sample, Shard, Target
from ..mask_polygons import outline
from ._yaml import quoted

TASKS = ("detection", "segmentation")
UNIT = "frames"
_KEYS = ("train", "val", "test")
_TAKEN = frozenset({"path", "names", "nc", "channels", "download", "kpt_shape", "flip_idx", "yaml_file"})
"""Keys that mean something else to Ultralytics: a split of such a name is in its folder only."""

Points = npt.NDArray[np.float64]


def write_shard(shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """Pictures with their text files; that of a picture which shows nothing is empty."""
    for sample in samples:
        assert sample.image is not None
        target.write(f"images/{shard.split}/{sample.picture_name}", sample.image)
        lines = (_line(each, sample, plan) for each in sample.objects if not each.iscrowd and _is_inside(each, sample))
        target.write(f"labels/{shard.split}/{sample.stem}.txt", "".join(lines).encode())


def write_split(split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
    """Nothing: which pictures a split has, its folder says."""


def set_files(plan: ExportPlan) -> Mapping[str, bytes]:
    """`data.yaml`. Ultralytics wants train and val: where a set has no such split, they are what it has first."""
    folders = {split: f"images/{split}" for split in plan.splits}
    first = next(iter(folders.values()), "images/train")
    paths = {key: folders.get(key, first) for key in _KEYS if key in folders or key != "test"} | folders
    lines = [_split(key, path, is_own=key in folders) for key, path in paths.items() if key not in _TAKEN]
    lines += ["names:", *(f"  {place}: {quoted(each.name)}" for place, each in enumerate(plan.categories))]
    return {"data.yaml": "\n".join([*lines, ""]).encode()}


def _split(key: str, path: str, *, is_own: bool) -> str:
    told = "" if is_own else "  # the set has no such split: these pictures are of another"
    return f"{quoted(key)}: {quoted(path)}{told}"


def _line(each: ExportObject, sample: Sample, plan: ExportPlan) -> str:
    numbers = _ring(each, sample) if plan.task == "segmentation" else _box(each, sample)
    return " ".join([str(plan.index_of(each.category_id)), *map(repr, numbers)]) + "\n"


def _is_inside(each: ExportObject, sample: Sample) -> bool:
    """Whether any of it is in the picture."""
    x_min, y_min, x_max, y_max = each.box
    return x_min < sample.width_px and y_min < sample.height_px and x_max > 0 and y_max > 0


def _box(each: ExportObject, sample: Sample) -> list[float]:
    width, height = sample.width_px, sample.height_px
    x_min, x_max = (min(max(x, 0.0), float(width)) for x in each.box[::2])
    y_min, y_max = (min(max(y, 0.0), float(height)) for y in each.box[1::2])
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
    return (ring / (sample.width_px, sample.height_px)).clip(0.0, 1.0).ravel().tolist()


def join_rings(rings: Sequence[Points]) -> Points:
    """Rings (n, 2) as one, each joined to what is there by a line between nearest points, walked there and back."""
    whole = rings[0]
    for ring in rings[1:]:
        apart = ((whole[:, None] - ring[None]) ** 2).sum(axis=2)
        here, there = np.unravel_index(apart.argmin(), apart.shape)
        detour = np.concatenate([ring[there:], ring[: there + 1], whole[here : here + 1]])
        whole = np.concatenate([whole[: here + 1], detour, whole[here + 1 :]])
    return whole
