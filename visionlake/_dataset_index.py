"""Which frames a data set has, in which order, and where in which file each one's picture is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from visionlake.errors import UsageError
from visionlake.jobs._stages import one_of

from ._dataset_tables import LakeTable, fit, read_columns

pc: Any = pyarrow.compute  # its functions are made when it is imported: type checkers see none

_COLUMNS = {
    "media_id": pa.string(),
    "stream_index": pa.int32(),
    "pts": pa.int64(),
    "width_px": pa.int32(),
    "height_px": pa.int32(),
    "image_format": pa.string(),
}
_KEY = ("media", "stream", "pts")


@dataclass(frozen=True, kw_only=True)
class Frames:
    """n frames by (media_id, stream_index, pts): arrays of n entries, but for `media_ids`, which `media` points into.

    A picture is in `file` (its place among the table's files), there in `row_group`, there in `row`.
    """

    media_ids: pa.Array
    media: npt.NDArray[np.int32]
    stream: npt.NDArray[np.int32]
    pts: npt.NDArray[np.int64]
    width_px: npt.NDArray[np.int32]
    height_px: npt.NDArray[np.int32]
    has_picture: npt.NDArray[np.bool_]
    file: npt.NDArray[np.int32]
    row_group: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.pts)

    def key(self, place: int) -> tuple[str, int, int]:
        """(media_id, stream_index, pts) of a frame."""
        return self.media_ids[int(self.media[place])].as_py(), int(self.stream[place]), int(self.pts[place])

    def take(self, places: npt.NDArray[Any]) -> Frames:
        """The frames at these places, or where a mask is true."""
        arrays = {f.name: getattr(self, f.name)[places] for f in fields(self) if f.name != "media_ids"}
        return Frames(media_ids=self.media_ids, **arrays)

    def of_media(self, media_ids: pa.Array) -> Frames:
        """The frames of these media."""
        wanted = pc.is_in(self.media_ids, value_set=media_ids).to_numpy(zero_copy_only=False)
        return self.take(wanted[self.media])

    def places(
        self, media_ids: pa.Array, stream: npt.NDArray[Any], pts: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Which of these keys are frames, and which ones: rows of the keys, and their places here."""
        codes = pc.fill_null(pc.index_in(media_ids, value_set=self.media_ids), -1)
        keys = pa.table([codes, pa.array(stream), pa.array(pts), pa.array(np.arange(len(pts)))], names=[*_KEY, "key"])
        own = [pa.array(getattr(self, name)) for name in _KEY]
        frames = pa.table([*own, pa.array(np.arange(len(self)))], names=[*_KEY, "place"])
        found = keys.join(frames, list(_KEY), join_type="inner", use_threads=False)
        return found["key"].to_numpy(), found["place"].to_numpy()

    def row_groups(self) -> list[npt.NDArray[np.int64]]:
        """The places of the frames by row group, as they are stored: files, row groups and rows in order."""
        order = np.lexsort((self.row, self.row_group, self.file))
        steps = np.diff(self.file[order]) | np.diff(self.row_group[order])
        return np.split(order, np.flatnonzero(steps) + 1) if len(order) else []


def read_frames(table: LakeTable) -> Frames:
    """All frames of a table, in order; of their pictures nothing is read."""
    parts = table.read(_read_file)
    media_ids = pc.unique(pa.concat_arrays([pa.array([], pa.string()), *(codes.dictionary for codes, _ in parts)]))
    media_ids = media_ids.take(pc.array_sort_indices(media_ids))
    media = [np.zeros(0, np.int32)]
    for codes, _ in parts:
        own = pc.index_in(codes.dictionary, value_set=media_ids).to_numpy()
        media.append(own[codes.indices.to_numpy()].astype(np.int32))
    names = [field.name for field in fields(Frames) if field.name not in ("media_ids", "media")]
    empty = _arrays(pa.schema(list(_COLUMNS.items())).empty_table(), np.zeros(0), np.zeros(0), 0)
    arrays: dict[str, Any] = {
        name: np.concatenate([empty[name], *(columns[name] for _, columns in parts)]) for name in names
    }
    found = Frames(media_ids=media_ids, media=np.concatenate(media), **arrays)
    return found.take(np.lexsort((found.pts, found.stream, found.media)))


def _read_file(table: LakeTable, file: int) -> tuple[pa.DictionaryArray, dict[str, npt.NDArray[Any]]]:
    with table.open(file) as opened:
        counts = [opened.metadata.row_group(i).num_rows for i in range(opened.metadata.num_row_groups)]
        rows = fit(opened.read(list(_COLUMNS), use_threads=False), _COLUMNS)
    groups = np.repeat(np.arange(len(counts)), counts)
    within = np.concatenate([np.zeros(0, int), *(np.arange(count) for count in counts)])
    return rows["media_id"].combine_chunks().dictionary_encode(), _arrays(rows, groups, within, file)


def _arrays(
    rows: pa.Table, groups: npt.NDArray[Any], within: npt.NDArray[Any], file: int
) -> dict[str, npt.NDArray[Any]]:
    return {
        "stream": rows["stream_index"].to_numpy(),
        "pts": rows["pts"].to_numpy(),
        "width_px": pc.fill_null(rows["width_px"], 0).to_numpy(),
        "height_px": pc.fill_null(rows["height_px"], 0).to_numpy(),
        "has_picture": rows["image_format"].is_valid().to_numpy(),
        "file": np.full(rows.num_rows, file, np.int32),
        "row_group": groups.astype(np.int32),
        "row": within.astype(np.int32),
    }


def media_of_split(table: LakeTable, *, split: str, split_set: str | None) -> pa.Array:
    """The media of a split. Raises UsageError where there is no such set or split, or no set is named of several."""
    rows = read_columns(table, {name: pa.string() for name in ("split_set", "media_id", "split")})
    sets = unique_names(rows["split_set"])
    if split_set is None:
        if len(sets) != 1:
            what = f"there are several: name one of {', '.join(sets)}" if sets else "table 'splits' has no row"
            raise UsageError(f"split_set is not given, and {what}")
        split_set = sets[0]
    elif split_set not in sets:
        raise UsageError(f"split_set = {split_set!r}: table 'splits' has no such set; {one_of(split_set, sets)}")
    rows = rows.filter(pc.equal(rows["split_set"], split_set))
    splits = unique_names(rows["split"])
    if split not in splits:
        raise UsageError(f"split = {split!r}: set {split_set!r} has no such split; {one_of(split, splits)}")
    return rows.filter(pc.equal(rows["split"], split))["media_id"].combine_chunks()


def unique_names(column: Any) -> list[str]:
    """The strings of a column, in order; null is none."""
    return sorted(name for name in pc.unique(column).to_pylist() if name is not None)


def check_pictures(frames: Frames) -> None:
    """Raises UsageError where a frame has no picture."""
    missing = int((~frames.has_picture).sum())
    if missing:
        raise UsageError(
            f'{missing} of {len(frames)} frames have no picture, as image_format = "none" leaves them; set '
            'image_format = "jpeg" (or "png") in [extract_frames] and run it again with --rebuild'
        )
