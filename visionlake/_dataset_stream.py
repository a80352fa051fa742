"""Pictures row group after row group: which ones each rank and worker reads, in which order, and how they are mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ._dataset_index import Frames
from ._dataset_tables import LakeTable

_BATCH_ROWS = 64
_BATCH_BYTES = 8 << 20
_MIXED_GROUPS = 4
"""Row groups that are read at once: neighbours in a row group are neighbours in a video."""

Encoded = tuple[int, bytes | None]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of an epoch that one of `of` readers reads."""

    part: int
    of: int

    def of_groups(self, groups: Sequence[Places]) -> list[Places]:
        """A stretch of the row groups, one after the other: whole ones but for the first and the last."""
        ends = np.cumsum([len(group) for group in groups], dtype=np.int64)
        count = int(ends[-1]) if len(groups) else 0
        first, last = self.part * count // self.of, (self.part + 1) * count // self.of
        cut = [
            group[max(first - (end - len(group)), 0) : max(last - (end - len(group)), 0)]
            for group, end in zip(groups, map(int, ends), strict=True)
        ]
        return [group for group in cut if len(group)]


def even_groups(groups: Sequence[Places], *, of: int, seed: int, epoch: int) -> list[Places]:
    """The row groups without the few frames that are over where `of` readers get as many: others in each epoch."""
    sizes = [len(group) for group in groups]
    kept = np.ones(sum(sizes), bool)
    kept[np.random.default_rng([seed, epoch]).choice(len(kept), len(kept) % of, replace=False)] = False
    parts = np.split(kept, np.cumsum(sizes)[:-1])
    return [group[part] for group, part in zip(groups, parts, strict=True)]


def epoch_groups(groups: Sequence[Places], *, seed: int, epoch: int) -> list[Places]:
    """The row groups in the order of an epoch, the same for every reader."""
    return [groups[place] for place in np.random.default_rng([seed, epoch]).permutation(len(groups))]


def read_images(table: LakeTable, frames: Frames, places: Places) -> Iterator[Encoded]:
    """The pictures of frames of one row group, in the order in which they are stored."""
    rows = frames.row[places]
    group = int(frames.row_group[places[0]])
    with table.open_stream(int(frames.file[places[0]])) as file:
        options: dict[str, Any] = {"columns": ["image"], "row_groups": [group], "use_threads": False}
        first = taken = 0
        for batch in file.iter_batches(_batch_rows(file.metadata.row_group(group)), **options):
            last = int(np.searchsorted(rows, first + len(batch)))
            images = batch.column(0)
            for place, row in zip(places[taken:last], rows[taken:last], strict=True):
                yield int(place), images[int(row) - first].as_py()
            first, taken = first + len(batch), last
            if taken == len(places):
                return


def _batch_rows(group: Any) -> int:
    """So many rows that a batch of their pictures stays small."""
    sizes = [group.column(place) for place in range(group.num_columns)]
    taken = sum(column.total_uncompressed_size for column in sizes if column.path_in_schema == "image")
    return int(np.clip(_BATCH_BYTES * group.num_rows // max(taken, 1), 1, _BATCH_ROWS))


def mixed(
    table: LakeTable, frames: Frames, groups: Sequence[Places], *, rng: np.random.Generator, buffer_bytes: int
) -> Iterator[Encoded]:
    """The pictures of all groups: of several at once, through a buffer that gives back any of those it holds."""
    buffer: list[Encoded] = []
    held = 0
    for place, image in _interleaved(table, frames, groups, rng=rng):
        buffer.append((place, image))
        held += len(image or b"")
        while held > buffer_bytes:
            given = _pop(buffer, rng)
            held -= len(given[1] or b"")
            yield given
    while buffer:
        yield _pop(buffer, rng)


def _interleaved(
    table: LakeTable, frames: Frames, groups: Sequence[Places], *, rng: np.random.Generator
) -> Iterator[Encoded]:
    waiting = iter(groups)
    reading = [read_images(table, frames, group) for group in islice(waiting, _MIXED_GROUPS)]
    while reading:
        place = int(rng.integers(len(reading)))
        found = next(reading[place], None)
        if found is not None:
            yield found
        elif (group := next(waiting, None)) is not None:
            reading[place] = read_images(table, frames, group)
        else:
            reading.pop(place)


def _pop(buffer: list[Encoded], rng: np.random.Generator) -> Encoded:
    place = int(rng.integers(len(buffer)))
    buffer[place], buffer[-1] = buffer[-1], buffer[place]
    return buffer.pop()
