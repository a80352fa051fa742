"""Rows of labels as files hold them, made flat: arrays with an entry for each row, and for each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from ._dataset_tables import LakeTable, fit

pc: Any = pyarrow.compute  # its functions are made when it is imported: type checkers see none

_EDGES = ("x_min", "y_min", "x_max", "y_max")
_KEY = {"media_id": pa.string(), "stream_index": pa.int32(), "pts": pa.int64()}


@dataclass(frozen=True, kw_only=True)
class LabelKind:
    """A table that labels are in: whose they are, and in which picture's pixels."""

    table: str
    column: str
    width: str
    height: str
    annotator: bool = False


MODELS = LabelKind(table="detections", column="model_id", width="frame_width_px", height="frame_height_px")
SOURCES = LabelKind(
    table="annotations", column="source", width="full_width_px", height="full_height_px", annotator=True
)


@dataclass(frozen=True, kw_only=True)
class LabelRows:
    """n rows, and m objects: those of the first row, then those of the second, and so on.

    `rank` is the place of the row's source among those that are asked for, `annotator` empty where it is not known.
    Boxes are (x_min, y_min, x_max, y_max) in a picture of `width_px` x `height_px`; what is not known is NaN. `mask`
    is the text of COCO's RLE of `mask_size` (height, width), null where there is none or none is asked for.
    """

    media_id: pa.Array
    stream: npt.NDArray[np.int32]
    pts: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int32]
    annotator: pa.Array
    width_px: npt.NDArray[np.int32]
    height_px: npt.NDArray[np.int32]
    count: npt.NDArray[np.int64]
    label: pa.Array
    box: npt.NDArray[np.float32]
    score: npt.NDArray[np.float32]
    area: npt.NDArray[np.float32]
    iscrowd: npt.NDArray[np.bool_]
    mask: pa.Array
    mask_size: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.pts)


def join_rows(parts: Sequence[LabelRows]) -> LabelRows:
    """The rows of all parts, of which there is one at least."""

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return pa.concat_arrays(values) if isinstance(values[0], pa.Array) else np.concatenate(values)

    return LabelRows(**{field.name: joined(field.name) for field in fields(LabelRows)})


def read_rows(
    table: LakeTable, kind: LabelKind, wanted: Sequence[str], *, annotator: str | None, masks: bool
) -> tuple[list[LabelRows], set[str]]:
    """The rows of these sources or models, and the names of all that the table has."""

    def work(table: LakeTable, file: int) -> tuple[list[LabelRows], set[str]]:
        with table.open(file) as opened:
            groups = range(opened.metadata.num_row_groups)
            found = [_read_group(opened, group, kind, wanted, annotator=annotator, masks=masks) for group in groups]
        return [rows for rows, _ in found if rows is not None], set().union(*(names for _, names in found))

    parts = table.read(work)
    return [rows for found, _ in parts for rows in found], set().union(*(names for _, names in parts))


def _read_group(
    file: pq.ParquetFile, group: int, kind: LabelKind, wanted: Sequence[str], *, annotator: str | None, masks: bool
) -> tuple[LabelRows | None, set[str]]:
    names = fit(file.read_row_group(group, [kind.column], use_threads=False), {kind.column: pa.string()})[kind.column]
    known = {name for name in pc.unique(names).to_pylist() if name is not None}
    if not known & {*wanted}:
        return None, known
    columns = {**_KEY, kind.column: pa.string(), kind.width: pa.int32(), kind.height: pa.int32()}
    if kind.annotator:
        columns["annotator"] = pa.string()
    leaves = _leaves(file, ("label", "score", "box", "area", "area_px", "iscrowd", *(["mask"] if masks else [])))
    rows = file.read_row_group(group, [*columns, *leaves], use_threads=False)
    chosen = pc.is_in(names, value_set=pa.array(wanted))
    if annotator is not None and kind.annotator:
        chosen = pc.and_(chosen, pc.fill_null(pc.equal(rows["annotator"].cast(pa.string()), annotator), False))
    rows = rows.filter(chosen)
    return _flat(fit(rows, columns), _one(rows["instances"]), kind, wanted), known


def _leaves(file: pq.ParquetFile, wanted: Sequence[str]) -> list[str]:
    """Columns of the file that hold these fields of the instances: what lists are called inside differs by writer."""
    schema: Any = file.schema
    paths = [schema.column(place).path for place in range(len(schema))]
    return [path for path in paths if path.startswith("instances.") and [*path.split("."), "", ""][3] in wanted]


def _flat(rows: pa.Table, lists: Any, kind: LabelKind, wanted: Sequence[str]) -> LabelRows:
    objects = lists.flatten()
    area, area_px = (_numbers(_child(objects, name, pa.float64())) for name in ("area", "area_px"))
    masks = _child(objects, "mask", pa.null())
    annotators = rows["annotator"] if kind.annotator else pa.nulls(rows.num_rows, pa.string())
    return LabelRows(
        media_id=_one(rows["media_id"]),
        stream=rows["stream_index"].to_numpy(),
        pts=rows["pts"].to_numpy(),
        rank=pc.index_in(_one(rows[kind.column]), value_set=pa.array(wanted)).to_numpy(),
        annotator=_one(pc.fill_null(annotators, "")),
        width_px=pc.fill_null(rows[kind.width], 0).to_numpy(),
        height_px=pc.fill_null(rows[kind.height], 0).to_numpy(),
        count=pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int64()).to_numpy(),
        label=_child(objects, "label", pa.string()),
        box=np.column_stack([_numbers(_child(objects, "box", pa.float64(), edge)) for edge in _EDGES]).astype("f4"),
        score=_numbers(_child(objects, "score", pa.float64())).astype("f4"),
        area=np.where(np.isnan(area), area_px, area).astype("f4"),
        iscrowd=pc.fill_null(_child(objects, "iscrowd", pa.bool_()), False).to_numpy(zero_copy_only=False),
        mask=_child(masks, "counts", pa.large_string()),
        mask_size=_sizes(masks),
    )


def _child(objects: Any, name: str, kind: pa.DataType, *inner: str) -> Any:
    """A field of structs, null where there is no struct or no such field; with `pa.null()` as it is."""
    found = objects
    for step in (name, *inner):
        if not pa.types.is_struct(found.type) or found.type.get_field_index(step) < 0:
            return pa.nulls(len(objects), kind)
        found = pc.struct_field(found, step)
    return found if pa.types.is_null(kind) else found.cast(kind)


def _sizes(masks: Any) -> npt.NDArray[np.int32]:
    sizes = _child(masks, "size", pa.list_(pa.int32()))
    known = pc.fill_null(pc.equal(pc.list_value_length(sizes), 2), False)
    found = np.zeros((len(sizes), 2), np.int32)
    found[known.to_numpy(zero_copy_only=False)] = sizes.filter(known).flatten().to_numpy().reshape(-1, 2)
    return found


def _numbers(column: Any) -> npt.NDArray[np.float64]:
    return column.to_numpy(zero_copy_only=False)  # a null becomes NaN


def _one(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
