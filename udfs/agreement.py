"""How far two models agree on a frame: their boxes put together in pairs, and what is left over on either side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ._boxes import Floats, overlaps

EDGES = ("x_min", "y_min", "x_max", "y_max")


class Pair(NamedTuple):
    """The places of a box of A and of one of B, and their intersection over union."""

    place_a: int
    place_b: int
    iou: float


def pair_boxes(boxes_a: Floats, boxes_b: Floats, *, iou: float) -> list[Pair]:
    """Pairs of boxes (n, 4) and (m, 4) of one label, one to one: the pair with the highest overlap first, then on.

    Pairs overlap by `iou` at least. Of equal overlaps the pair with the earlier box of A comes first, then with the
    earlier one of B; as instances lie best first, that is the one with the higher score. This is greedy, as the usual
    measures of detectors are: a pair is never broken up so that two worse ones can be made.
    """
    shared = overlaps(boxes_a[:, None], boxes_b[None])
    rows, columns = np.nonzero(shared >= iou)
    values = shared[rows, columns]
    pairs: list[Pair] = []
    free_a, free_b = np.ones(len(boxes_a), bool), np.ones(len(boxes_b), bool)
    for place in np.lexsort((columns, rows, -values)):
        a, b = int(rows[place]), int(columns[place])
        if free_a[a] and free_b[b]:
            free_a[a] = free_b[b] = False
            pairs.append(Pair(a, b, float(values[place])))
    return pairs


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What became of the boxes of one label: in pairs that lie alike (`matched`) or not quite (`moved`), or alone."""

    boxes_a: int = 0
    boxes_b: int = 0
    matched: int = 0
    moved: int = 0

    @property
    def missed(self) -> int:
        """Boxes of A without one of B."""
        return self.boxes_a - self.matched - self.moved

    @property
    def extra(self) -> int:
        """Boxes of B without one of A."""
        return self.boxes_b - self.matched - self.moved

    @property
    def agreement(self) -> float | None:
        """The share of all boxes that are in pairs: F1, with either model taken for the truth. None without boxes."""
        boxes = self.boxes_a + self.boxes_b
        return 2 * (self.matched + self.moved) / boxes if boxes else None

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            boxes_a=self.boxes_a + other.boxes_a,
            boxes_b=self.boxes_b + other.boxes_b,
            matched=self.matched + other.matched,
            moved=self.moved + other.moved,
        )


def compare(
    instances_a: Sequence[Mapping[str, Any]], instances_b: Sequence[Mapping[str, Any]], *, iou: float, moved: float
) -> dict[str, Agreement]:
    """By label, how the instances of two rows of `detections` agree; `moved` is the overlap below which a pair has."""
    found = {}
    for label in sorted({str(each["label"]) for each in (*instances_a, *instances_b)}):
        a, b = _boxes(instances_a, label), _boxes(instances_b, label)
        pairs = pair_boxes(a, b, iou=iou)
        matched = sum(pair.iou >= moved for pair in pairs)
        found[label] = Agreement(boxes_a=len(a), boxes_b=len(b), matched=matched, moved=len(pairs) - matched)
    return found


def alike(
    instances_a: Sequence[Mapping[str, Any]], instances_b: Sequence[Mapping[str, Any]], *, iou: float
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Pairs of instances with the same label whose boxes overlap by `iou` at least, put together as by `compare`."""
    found = []
    for label in sorted({str(each["label"]) for each in instances_a}):
        a, b = ([each for each in some if str(each["label"]) == label] for some in (instances_a, instances_b))
        found += [(a[p.place_a], b[p.place_b]) for p in pair_boxes(_boxes(a, label), _boxes(b, label), iou=iou)]
    return found


def compare_frames(
    batches: Iterable[pd.DataFrame], *, keys: Sequence[str], iou: float, moved: float
) -> Iterator[pd.DataFrame]:
    """A row per frame and label: the columns `keys`, `label` and the counts. Frames without a box give none.

    `batches` have the columns `keys`, `a` and `b`: the instances that two models found in the same frame.
    """
    counts = ("boxes_a", "boxes_b", "matched", "moved")
    for batch in batches:
        rows = [
            (*key, label, *(getattr(agreed, name) for name in counts))
            for *key, a, b in batch[[*keys, "a", "b"]].itertuples(index=False, name=None)
            for label, agreed in compare(_listed(a), _listed(b), iou=iou, moved=moved).items()
        ]
        yield pd.DataFrame(rows, columns=[*keys, "label", *counts])


def _boxes(instances: Sequence[Mapping[str, Any]], label: str) -> Floats:
    boxes = [[each["box"][edge] for edge in EDGES] for each in instances if str(each["label"]) == label]
    return np.array(boxes, np.float64).reshape(-1, 4)


def _listed(instances: Any) -> list[Any]:
    """An array of instances as it comes out of Arrow, which may be none."""
    return [] if instances is None else list(instances)
