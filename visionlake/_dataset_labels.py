"""The labels of a data set's frames, held in memory as flat arrays: a few dozen bytes for an object."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from visionlake.errors import UsageError
from visionlake.jobs._stages import one_of

from ._dataset_index import Frames, unique_names
from ._dataset_rows import MODELS, SOURCES, LabelKind, LabelRows, join_rows, read_rows
from ._dataset_tables import LakeTable, NoTableError, read_columns

pc: Any = pyarrow.compute  # its functions are made when it is imported: type checkers see none


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Objects of n frames, m in all: those of frame i from `start[i]` to `start[i + 1]`.

    Boxes are in pixels of a picture of `size` (width, height), one for each frame; ids count from 1 in `classes`.
    """

    classes: tuple[str, ...]
    start: npt.NDArray[np.int64]
    size: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    box: npt.NDArray[np.float32]
    area: npt.NDArray[np.float32]
    iscrowd: npt.NDArray[np.bool_]
    mask: pa.Array
    mask_size: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class LabelChoice:
    """Which labels are asked for: see `FrameDataset`."""

    names: tuple[str, ...]
    classes: tuple[str, ...] | None
    min_score: float
    annotator: str | None
    masks: bool
    keep_unlabelled: bool

    @property
    def kinds(self) -> list[LabelKind]:
        """The tables that they are in."""
        return [kind for kind in (SOURCES, MODELS) if self.names_in(kind)]

    def names_in(self, kind: LabelKind) -> list[str]:
        """Those that are in this table: model ids have an @, and names of sources cannot."""
        return [name for name in self.names if ("@" in name) == (kind is MODELS)]


def only_labels(opened: Callable[[str], LakeTable]) -> tuple[str]:
    """The only source of annotations, or the only model where there are no annotations. Raises UsageError."""
    for kind in (SOURCES, MODELS):
        try:
            table = opened(kind.table)
        except NoTableError:
            continue
        names = unique_names(read_columns(table, {kind.column: pa.string()})[kind.column])
        if len(names) == 1:
            return (names[0],)
        if names:
            raise UsageError(
                f"labels is not given, and table {table.name!r} has several: name one of {', '.join(names)}"
            )
    raise UsageError("labels is not given, and the lake has no labels: run import_annotations or detect_objects first")


def load_labels(frames: Frames, tables: Mapping[str, LakeTable], choice: LabelChoice) -> tuple[Frames, Labels]:
    """The frames that are labelled (or all, without objects where not), and their labels.

    Raises UsageError for labels and annotators that the tables do not have, and where an object has no mask.
    """
    parts = [part for kind in choice.kinds for part in _read(tables[kind.table], kind, choice)]
    rows = join_rows(parts)
    classes = _classes(rows, choice)
    found, places = _first(frames, rows)
    start = np.cumsum(rows.count) - rows.count
    objects, owners = _ranges(start[found], rows.count[found])
    ids = _ids(rows.label, classes)
    # NaN is no score, which people give: not less than any.
    is_model = np.array(["@" in name for name in choice.names])[rows.rank[found]][owners]
    kept = (ids[objects] > 0) & ~(is_model & (rows.score[objects] < choice.min_score))
    objects, places_of = objects[kept], places[owners[kept]]
    counts = np.bincount(places_of, minlength=len(frames))
    size = np.ones((len(frames), 2), np.int32)
    size[places] = np.column_stack([rows.width_px, rows.height_px])[found]
    if not choice.keep_unlabelled:
        # Places only grow in `places`, so objects are in the order of the frames that stay.
        frames, counts, size = frames.take(places), counts[places], size[places]
    mask = rows.mask.take(pa.array(objects))
    if choice.masks and mask.null_count:
        raise UsageError(
            f"masks = True, but {mask.null_count} of {len(mask)} objects of {', '.join(choice.names)} have no mask; "
            "take labels that have masks, or masks = False"
        )
    return frames, Labels(
        classes=classes,
        start=np.concatenate([[0], np.cumsum(counts)]),
        size=size,
        ids=ids[objects],
        box=rows.box[objects],
        area=rows.area[objects],
        iscrowd=rows.iscrowd[objects],
        mask=mask,
        mask_size=rows.mask_size[objects],
    )


def _read(table: LakeTable, kind: LabelKind, choice: LabelChoice) -> list[LabelRows]:
    parts, known = read_rows(table, kind, choice.names, annotator=choice.annotator, masks=choice.masks)
    names = sorted(known)
    for name in choice.names_in(kind):
        if name not in known:
            raise UsageError(
                f"labels = {name!r}: table {table.name!r}, version {table.version}, has none of that {kind.column}; "
                f"{one_of(name, names)}" + ("" if kind is MODELS else "; a model id has an @")
            )
    if not sum(map(len, parts)):
        raise UsageError(
            f"annotator = {choice.annotator!r} has annotated nothing of {', '.join(choice.names_in(kind))}"
        )
    return parts


def _classes(rows: LabelRows, choice: LabelChoice) -> tuple[str, ...]:
    """The classes that are asked for, or all that any frame has: so the splits of a set agree on them."""
    found = unique_names(rows.label)
    if choice.classes is None:
        return tuple(found)
    if found and not {*found} & {*choice.classes}:
        raise UsageError(
            f"classes = {list(choice.classes)}: none is a label of {', '.join(choice.names)}; "
            f"the labels there are {', '.join(found)}"
        )
    if missing := [name for name in choice.classes if name not in found]:
        warnings.warn(
            f"classes: {', '.join(missing)} is no label of {', '.join(choice.names)}; {one_of(missing[0], found)}",
            stacklevel=5,
        )
    return choice.classes


def _first(frames: Frames, rows: LabelRows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each frame with labels the row that counts, and the frame's place, which grows.

    Of several sources the one that was named first counts; of several annotators, the first by name.
    """
    found, places = frames.places(rows.media_id, rows.stream, rows.pts)
    names = rows.annotator.dictionary_encode()
    by_name = np.argsort(pc.array_sort_indices(names.dictionary).to_numpy())  # the rank of each name
    annotator = by_name[names.indices.to_numpy()]
    order = np.lexsort((annotator[found], rows.rank[found], places))
    found, places = found[order], places[order]
    first = np.diff(places, prepend=-1) > 0
    return found[first], places[first]


def _ranges(
    start: npt.NDArray[np.int64], count: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers from each start on, as many as `count` says, and which range each is of."""
    owners = np.repeat(np.arange(len(start)), count)
    return np.arange(len(owners)) + (start - (np.cumsum(count) - count))[owners], owners


def _ids(labels: Any, classes: Sequence[str]) -> npt.NDArray[np.int32]:
    """Places of the labels among the classes, from 1; 0 for those that are none."""
    found = pc.index_in(labels, value_set=pa.array(classes, pa.string()))
    return (pc.fill_null(found, -1).to_numpy() + 1).astype(np.int32)
