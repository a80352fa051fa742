"""Frames with their labels become the files of a data set, shard by shard, on the executors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any

import pyarrow as pa

from .export_formats import find_format
from .export_target import FolderTarget
from .export_types import ExportObject, ExportPlan, Sample, Shard
from .frame_types import Limits
from .frames_again import fill_images
from .resize_rle import resize_rle
from .rle import Rle

FILE_DDL = "path string, size_bytes bigint, sha256 string, output_key string, reason string, message string"
_FILE = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("sha256", pa.string()),
                   ("output_key", pa.string()), ("reason", pa.string()), ("message", pa.string())])  # fmt: skip
_FILLED = pa.schema([("image", pa.binary()), ("image_format", pa.string())])
_CHUNK = 32  # frames whose pictures are held at a time


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """What is written: format and plan, and the folder's URI."""

    format: str
    plan: ExportPlan
    folder: str
    limits: Limits = field(default_factory=Limits)


def write_shards(batches: Iterable[pa.RecordBatch], *, job: ExportJob) -> Iterator[pa.RecordBatch]:
    """A row of `FILE_DDL` per file, and one per frame whose picture cannot be had, which the data set then lacks.

    In: rows of shards, one after the other (`split`, `shard`), each in the order of the frames' key: the columns of
    `frames`, `image_name`, `labelled_by`, `instances` (as in `annotations`) with the width and height that they are in
    (`from_width_px`, `from_height_px`), `attributes`, and what `frames_again` wants to know of the media.
    """
    work, problems = find_format(job.format), list[dict[str, Any]]()
    target = FolderTarget(job.folder)
    rows = _with_pictures(batches, job, problems)
    for (split, number), group in groupby(rows, key=lambda row: (row["split"], row["shard"])):
        samples = (sample_of(row, job.plan) for row in group)
        work.write_shard(Shard(split=split, number=number), samples, job.plan, target)
        yield _told(target, problems)
    if problems:  # of frames after the last one with a picture
        yield _told(target, problems)


def write_splits(batches: Iterable[pa.RecordBatch], *, job: ExportJob) -> Iterator[pa.RecordBatch]:
    """A row per file that tells of a whole split. In: rows as for `write_shards`, without pictures, split by split."""
    work, target = find_format(job.format), FolderTarget(job.folder)
    rows = (row for batch in batches for row in batch.to_pylist())
    for split, group in groupby(rows, key=lambda row: row["split"]):
        work.write_split(split, (sample_of(row, job.plan) for row in group), job.plan, target)
        yield _told(target, [])


def write_set(batches: Iterable[pa.RecordBatch], *, job: ExportJob) -> Iterator[pa.RecordBatch]:
    """A row per file that tells of the whole set, which one of the tasks writes: that with a row."""
    for batch in batches:
        if batch.num_rows:
            target = FolderTarget(job.folder)
            for path, data in find_format(job.format).set_files(job.plan).items():
                target.write(path, data)
            yield _told(target, [])


def sample_of(row: Mapping[str, Any], plan: ExportPlan) -> Sample:
    """A row as a sample, its objects in pixels of the stored frame."""
    size = row["height_px"], row["width_px"]
    scale = size[1] / row["from_width_px"], size[0] / row["from_height_px"]
    ids = {category.name: category.id for category in plan.categories}
    objects = tuple(object_of(each, ids[each["label"]], scale=scale, size=size) for each in row["instances"] or ())
    names = ("media_id", "stream_index", "pts", "pts_s", "frame_index", "split", "width_px", "height_px", "image_name")
    return Sample(
        **{name: row[name] for name in names},
        image=row.get("image"),
        image_format=row["image_format"] or "png",
        labelled_by=row["labelled_by"],
        attributes=dict(row["attributes"] or ()),
        objects=objects,
    )


def object_of(
    each: Mapping[str, Any], category_id: int, *, scale: tuple[float, float], size: tuple[int, int]
) -> ExportObject:
    """An instance of the tables, scaled; what is not scaled keeps every bit."""
    mask: Rle | None = each["mask"]
    found = ExportObject(
        category_id=category_id,
        label=each["label"],
        box=(each["box"]["x_min"], each["box"]["y_min"], each["box"]["x_max"], each["box"]["y_max"]),
        score=each["score"],
        area=each["area"],
        iscrowd=bool(each["iscrowd"]),
        mask=None if mask is None else resize_rle(mask, size=size),
        polygons=each["polygons"],
        keypoints=_keypoints(each["keypoints"]),
        track_id=each["track_id"],
        annotation_id=each["annotation_id"],
        attributes=dict(each["attributes"] or ()),
    )
    return found if scale == (1.0, 1.0) else _scaled(found, scale)


def _keypoints(points: Any) -> list[tuple[str, float, float, int]] | None:
    return None if points is None else [(p["name"], p["x"], p["y"], p["visibility"]) for p in points]


def _scaled(found: ExportObject, scale: tuple[float, float]) -> ExportObject:
    x, y = scale
    x_min, y_min, x_max, y_max = found.box
    return replace(
        found,
        box=(x_min * x, y_min * y, x_max * x, y_max * y),
        area=None if found.area is None else found.area * x * y,
        polygons=found.polygons and [[n * scale[k % 2] for k, n in enumerate(ring)] for ring in found.polygons],
        keypoints=found.keypoints and [(name, a * x, b * y, seen) for name, a, b, seen in found.keypoints],
    )


def _with_pictures(
    batches: Iterable[pa.RecordBatch], job: ExportJob, problems: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The rows, few at a time, with pictures; those whose media have to be decoded again and cannot become problems."""
    rows = (row for batch in batches for row in _rows(batch))
    while chunk := list(islice(rows, _CHUNK)):
        lacking = [row for row in chunk if row["image"] is None]
        if lacking:
            _fill(lacking, job)
        for row in chunk:
            if row["image"] is not None:
                yield row
                continue
            key = f"{row['media_id']}/{row['stream_index']}/{row['pts']}"
            words = "the frame stores no picture, and its media cannot be decoded again: is the file still there?"
            problems.append({"output_key": key, "reason": "picture_missing", "message": words})


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows of a batch, one by one: pictures of all at once, as Python's bytes, would double them."""
    for place in range(batch.num_rows):
        yield batch.slice(place, 1).to_pylist()[0]


def _fill(rows: list[dict[str, Any]], job: ExportJob) -> None:
    batch = pa.RecordBatch.from_pylist(rows)
    found = [row for part in fill_images([batch], schema=_FILLED, limits=job.limits) for row in part.to_pylist()]
    for row, filled in zip(rows, found, strict=True):
        row |= {"image": filled["image"], "image_format": filled["image_format"]}


def _told(target: FolderTarget, problems: list[dict[str, Any]]) -> pa.RecordBatch:
    rows: list[dict[str, Any]] = [
        *({"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in target.written),
        *problems,
    ]
    target.written.clear()
    problems.clear()
    return pa.RecordBatch.from_pylist(rows, schema=_FILE)
