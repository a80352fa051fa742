"""Instances of several sources in one pool, the way fusion wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ._boxes import Floats, concatenate, take
from .detector_types import Instances

Places = npt.NDArray[np.intp]
Parent = tuple[int, int]
"""Which source, and which of its instances."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Instances of all sources, the most trusted first; see `gather`."""

    instances: Instances
    parents: tuple[Parent, ...]
    weights: Floats  # of the source of each
    total_weight: float  # of all sources, also of those that found nothing
    classes: npt.NDArray[np.int64]  # instances of one class are compared

    def by_class(self) -> Iterator[Places]:
        """Places of the instances that are compared with each other, the most trusted first."""
        for each in np.unique(self.classes):
            yield np.flatnonzero(self.classes == each)


def number_labels(names: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[npt.NDArray[np.int64]]]:
    """All names that occur, sorted, and the places of each source's names among them."""
    every = sorted({name for source in names for name in source})
    places = {name: place for place, name in enumerate(every)}
    return tuple(every), [np.array([places[name] for name in source], np.int64) for source in names]


def gather(
    sources: Sequence[Instances],
    *,
    weights: Sequence[float] | None = None,
    score_threshold: float = 0.0,
    labels: Literal["apart", "together"] = "apart",
) -> Pool:
    """Instances of several sources, to be fused; those with a score below `score_threshold` are left out.

    `weights`, one for each source, say how far it is trusted: score times weight decides which of two boxes comes
    first, and how much one counts in weighted boxes fusion. With labels "together" a box may also match those of other
    labels, and what comes out has the label of the most trusted.

    Raises ValueError for weights that are not one positive number for each source, and for sources with boxes or
    scores that are no numbers, or with scores outside 0 to 1.
    """
    given = np.ones(len(sources)) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (len(sources),) or not (np.isfinite(given) & (given > 0)).all():
        raise ValueError(f"weights {weights}: allowed is a number above 0 for each of the {len(sources)} sources")
    for place, source in enumerate(sources):
        _check(source, place)
    every = concatenate(sources)
    parents = [(place, index) for place, source in enumerate(sources) for index in range(len(source.scores))]
    each = np.repeat(given, [len(source.scores) for source in sources])
    kept = np.flatnonzero(every.scores >= score_threshold)
    kept = kept[np.argsort(-(every.scores * each)[kept], kind="stable")]
    return Pool(
        instances=take(every, kept),
        parents=tuple(parents[place] for place in kept),
        weights=each[kept],
        total_weight=float(given.sum()),
        classes=every.label_ids[kept] if labels == "apart" else np.zeros(len(kept), np.int64),
    )


def _check(source: Instances, place: int) -> None:
    count = len(source.scores)
    if source.boxes.shape != (count, 4) or source.label_ids.shape != (count,):
        raise ValueError(
            f"source {place}: boxes {source.boxes.shape}, scores {source.scores.shape}, label_ids "
            f"{source.label_ids.shape}; wanted are (N, 4), (N,) and (N,)"
        )
    wrong = ~np.isfinite(source.boxes).all(axis=1) | ~((source.scores >= 0) & (source.scores <= 1))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(
            f"source {place}, instance {index}: box {source.boxes[index].tolist()} with score {source.scores[index]}; "
            "edges must be numbers, and scores lie from 0 to 1"
        )
