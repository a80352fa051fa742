"""What `waves` says of all producers of a run: read at its begin, and again only where that may no longer be so."""

from __future__ import annotations

from collections.abc import Collection

from ._lake import Lake
from ._record import History, read_histories, read_history


class Histories:
    """The histories of a run. Each look at `waves` costs a query, and a table's head next to nothing."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._mark = lake.mark("waves")  # first: what is written meanwhile makes them old
        self._found = read_histories(lake)
        self._given: set[tuple[str, str]] = set()

    def at_begin(self, stage: str, producer: str) -> History:
        """The history of a producer as it was when the run began."""
        return self._found.get((stage, producer), History())

    def of(self, stage: str, producer: str, *, staged: Collection[str]) -> History:
        """The history of a producer as it is, with the status of the waves in `staged`.

        It is read again where others have written since, where this run has given it to a stage already, which then
        wrote, and for what is staged: the status of a wave that is done was not read at the begin.
        """
        key = stage, producer
        is_old = staged or key in self._given or not self._lake.is_own_since("waves", self._mark)
        self._given.add(key)
        if is_old:
            return read_history(self._lake, stage=stage, producer=producer, staged=staged)
        return self.at_begin(stage, producer)
