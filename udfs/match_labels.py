"""Objects that a model found against those that are there, frame by frame, by COCO's rules.

Matching is that of COCO's evaluation (Lin et al., Microsoft COCO, arXiv:1405.0312, as `pycocotools` does it): per class
and frame, at most 100 objects, best first; each takes the free true object that it overlaps most, from a threshold on,
and a crowd any number of times. Kinds of errors are those of TIDE (Bolya et al., arXiv:2008.08115).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco_mask

from .resize_rle import resize_rle

Kind = Literal["bbox", "segm"]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
"""Overlaps (intersection over union) from which on two objects match."""
AREAS = ("all", "small", "medium", "large")
_AREA_LIMITS = np.array([[0.0, 1e10], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])
MAX_FOUND = 100
"""So many objects of a class count in a frame, the best."""
ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""Kinds of errors; an object found has the place of its kind here, plus 1, and 0 where it is right."""
IGNORED = len(ERRORS) + 1
"""In place of a kind: neither right nor wrong, as it lies in a crowd."""
_NEAR = 0.1  # what overlaps less has nothing to do with each other (TIDE)

_FOUND = pa.struct([("score", pa.float64()), ("hits", pa.int64()), ("ignored", pa.int64()), ("error", pa.int8()),
                    ("is_mended", pa.bool_())])  # fmt: skip
_PAIR = pa.struct([("truth", pa.string()), ("found", pa.string()), ("count", pa.int64())])
KEY = ("media_id", "stream_index", "pts")
MATCHES = pa.schema(
    [
        *(("media_id", pa.string()), ("stream_index", pa.int32()), ("pts", pa.int64()), ("model_id", pa.string())),
        *(("kind", pa.string()), ("label", pa.string())),
        ("truths", pa.list_(pa.int64())),  # those that count, by AREAS
        *(("crowds", pa.int64()), ("missed", pa.int64())),
        ("found", pa.list_(_FOUND)),
        ("elsewhere", pa.list_(pa.float64())),  # scores of objects of other classes that would be right in this one
        ("pairs", pa.list_(_PAIR)),
        *(("missed_there", pa.int64()), ("extra_there", pa.int64()), ("swapped_there", pa.int64())),
    ]
)
"""A row per frame, model, kind and class; without a class, of the frame as a whole: its confusions at the threshold."""
MATCHES_DDL = (
    "media_id string, stream_index int, pts bigint, model_id string, kind string, label string, truths array<bigint>, "
    "crowds bigint, missed bigint, found array<struct<score: double, hits: bigint, ignored: bigint, error: tinyint, "
    "is_mended: boolean>>, elsewhere array<double>, pairs array<struct<truth: string, found: string, count: bigint>>, "
    "missed_there bigint, extra_there bigint, swapped_there bigint"
)
_BATCH_ROWS = 1024


class Side(NamedTuple):
    """The objects of one side, n of them: shapes as pycocotools takes them, areas in square pixels."""

    labels: list[str]
    shapes: Any
    areas: Floats
    scores: Floats
    crowd: Bools


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """Of objects of a class, best first: the true one that each took (D x A x T; -1: none), and which to ignore."""

    partner: Ints
    ignored: Bools


def match_frames(
    batches: Iterable[pa.RecordBatch], *, kinds: Sequence[Kind], score_threshold: float
) -> Iterator[pa.RecordBatch]:
    """Rows of `MATCHES` for frames that somebody has labelled and a model has looked at.

    In: the columns of KEY, `model_id`, `truth` (instances as in `annotations`) with `full_width_px` and
    `full_height_px`, `found` (instances as in `detections`) with `frame_width_px` and `frame_height_px`. What was found
    is brought to the full size, in whose pixels areas count. `score_threshold` is where confusions are counted. A frame
    with an object without a mask gives no row of kind `segm`.
    """
    rows: list[dict[str, Any]] = []
    for batch in batches:
        for frame in batch.to_pylist():
            rows += _frame_rows(frame, kinds, score_threshold)
            if len(rows) >= _BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema=MATCHES)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=MATCHES)


def _frame_rows(frame: Mapping[str, Any], kinds: Sequence[Kind], score_threshold: float) -> list[dict[str, Any]]:
    who = {name: frame[name] for name in (*KEY, "model_id")}
    size = frame["full_height_px"], frame["full_width_px"]
    scale = size[1] / frame["frame_width_px"], size[0] / frame["frame_height_px"]
    truth, found = frame["truth"] or (), sorted(frame["found"] or (), key=lambda each: -each["score"])
    rows = []
    for kind in kinds:
        if kind == "bbox":
            sides = boxes_of(truth), boxes_of(found, scale=scale)
        elif all(each["mask"] is not None for each in (*truth, *found)):
            sides = masks_of(truth, size=size), masks_of(found, size=size)
        else:
            continue
        rows += [{**who, "kind": kind, **row} for row in compare(*sides, score_threshold=score_threshold)]
    return rows


def boxes_of(instances: Sequence[Mapping[str, Any]], *, scale: tuple[float, float] = (1.0, 1.0)) -> Side:
    """Boxes as x, y, width, height. An annotation's area is the one that it states, else that of its mask or box."""
    edges = np.array([[*each["box"].values()] for each in instances], np.float64).reshape(-1, 4)
    edges *= (*scale, *scale)
    shapes = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)
    return _side(instances, shapes, shapes[:, 2] * shapes[:, 3])


def masks_of(instances: Sequence[Mapping[str, Any]], *, size: tuple[int, int]) -> Side:
    """Masks, brought to a `size` (height, width) in pixels."""
    shapes: Any = [resize_rle(each["mask"], size=size) for each in instances]
    # One by one: given many at once, its count of them overflows a byte.
    areas = np.array([float(coco_mask.area(shape)) for shape in shapes], np.float64)
    return _side(instances, shapes, areas)


def _side(instances: Sequence[Mapping[str, Any]], shapes: Any, drawn: Floats) -> Side:
    stated = [each.get("area") if "area" in each else None for each in instances]
    pixels = [each.get("area_px") if "area" in each else None for each in instances]
    areas = [s if s is not None else p if p is not None else d
             for s, p, d in zip(stated, pixels, drawn.tolist(), strict=True)]  # fmt: skip
    return Side(
        labels=[str(each["label"]) for each in instances],
        shapes=shapes,
        areas=np.array(areas, np.float64),
        scores=np.array([each["score"] if each["score"] is not None else 1.0 for each in instances], np.float64),
        crowd=np.array([bool(each.get("iscrowd")) for each in instances], bool),
    )


def compare(truth: Side, found: Side, *, score_threshold: float) -> list[dict[str, Any]]:
    """The rows of one frame, model and kind, without their keys."""
    overlap = _overlaps(truth, found)
    of_truth, of_found = np.array(truth.labels, object), np.array(found.labels, object)
    labels = sorted({*truth.labels, *found.labels})
    parts: dict[str, tuple[Ints, Ints, _Matched]] = {}
    for label in labels:
        there, mine = np.flatnonzero(of_truth == label), np.flatnonzero(of_found == label)[:MAX_FOUND]
        parts[label] = there, mine, _match(overlap[np.ix_(mine, there)], _take(truth, there), found.areas[mine])
    errors, mended_by, missed = _errors(truth, found, overlap, parts)
    rows = []
    for label, (there, mine, matched) in parts.items():
        ignored = _outside(truth.areas[there]) | truth.crowd[there]
        rows.append(
            {
                "label": label,
                "truths": (~ignored).sum(axis=1).tolist(),
                "crowds": int(truth.crowd[there].sum()),
                "missed": sum(truth.labels[place] == label for place in missed),
                "found": _found(found.scores[mine], matched, errors[mine], mended_by, mine),
                "elsewhere": [
                    float(found.scores[place])
                    for place, other in mended_by.items()
                    if truth.labels[other] == label and found.labels[place] != label
                ],
            }
        )
    return [*rows, {"label": None, **_confusions(truth, found, overlap, score_threshold)}]


def _take(side: Side, places: Ints) -> Side:
    return Side(labels=[], shapes=None, areas=side.areas[places], scores=side.scores[places], crowd=side.crowd[places])


def _overlaps(truth: Side, found: Side) -> Floats:
    """Found by true (D x G); with a crowd, the share of what was found that lies in it."""
    if not truth.labels or not found.labels:
        return np.zeros((len(found.labels), len(truth.labels)))
    return np.asarray(coco_mask.iou(found.shapes, truth.shapes, truth.crowd.astype(np.uint8).tolist()), np.float64)


def _outside(areas: Floats) -> Bools:
    """Which of n areas lie outside each of AREAS (A x n)."""
    return (areas[None] < _AREA_LIMITS[:, :1]) | (areas[None] > _AREA_LIMITS[:, 1:])


def _match(overlap: Floats, truth: Side, areas: Floats) -> _Matched:
    """Match objects found, best first, with true ones of their class; `overlap` is D x G."""
    found, there = overlap.shape
    ignore = _outside(truth.areas) | truth.crowd
    taken = np.zeros((len(AREAS), len(THRESHOLDS), there), bool)
    partner = np.full((found, len(AREAS), len(THRESHOLDS)), -1, np.int64)
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    for place in range(found) if there else ():
        if overlap[place].max() < least[0, 0]:
            continue
        free = (overlap[place] >= least)[None] & (~taken | truth.crowd)
        counts = free & ~ignore[:, None]
        usable = np.where(counts.any(axis=2, keepdims=True), counts, free)
        # Of equal overlaps the last one is taken.
        values = np.where(usable, overlap[place], -1.0)[:, :, ::-1]
        best = there - 1 - values.argmax(axis=2)
        partner[place] = np.where(usable.any(axis=2), best, -1)
        np.put_along_axis(taken, best[:, :, None], usable.any(axis=2)[:, :, None] | _at(taken, best), axis=2)
    is_hit = partner >= 0
    of_partner = np.take_along_axis(ignore[None], np.maximum(partner, 0), axis=2) if there else np.zeros_like(is_hit)
    return _Matched(partner=partner, ignored=np.where(is_hit, of_partner, _outside(areas).T[:, :, None]))


def _at(values: Bools, places: Ints) -> Bools:
    return np.take_along_axis(values, places[:, :, None], axis=2)


def _found(
    scores: Floats, matched: _Matched, errors: Ints, mended_by: Mapping[int, int], mine: Ints
) -> list[dict[str, Any]]:
    bits = 1 << np.arange(len(AREAS) * len(THRESHOLDS), dtype=np.int64)
    hits = ((matched.partner >= 0).reshape(len(scores), len(bits)) * bits).sum(axis=1)
    ignored = (matched.ignored.reshape(len(scores), len(bits)) * bits).sum(axis=1)
    return [
        {"score": score, "hits": h, "ignored": i, "error": e, "is_mended": place in mended_by}
        for score, h, i, e, place in zip(
            scores.tolist(), hits.tolist(), ignored.tolist(), errors.tolist(), mine.tolist(), strict=True
        )
    ]


def _errors(
    truth: Side, found: Side, overlap: Floats, parts: Mapping[str, tuple[Ints, Ints, _Matched]]
) -> tuple[Ints, dict[int, int], list[int]]:
    """The error of each object found, which true object each would match if only that were mended, and what is missed.

    At the first threshold and all areas. Of several that one mend would bring to the same true object, it is the best.
    """
    errors = np.full(len(found.labels), IGNORED, np.int64)
    used: set[int] = set()
    for there, mine, matched in parts.values():
        partner, ignored = matched.partner[:, 0, 0], matched.ignored[:, 0, 0]
        errors[mine] = np.where(ignored, IGNORED, np.where(partner >= 0, 0, -1))
        used |= {int(there[place]) for place in partner if place >= 0}
    real = np.flatnonzero(~truth.crowd)
    mended_by, explained = dict[int, int](), set[int]()
    wanted: set[int] = set()
    for place in np.flatnonzero(errors == -1).tolist():
        kind, other = _error(place, found.labels[place], truth, overlap[place], real)
        errors[place] = ERRORS.index(kind) + 1
        if other is not None:
            explained.add(other)
            if other not in used | wanted:
                wanted.add(other)
                mended_by[place] = other
    missed = [place for place in real.tolist() if place not in used | explained]
    return errors, mended_by, missed


def _error(place: int, label: str, truth: Side, overlap: Floats, real: Ints) -> tuple[str, int | None]:
    """What is wrong with an object found that matches nothing, and the true one that it was meant to be."""
    same = [int(i) for i in real if truth.labels[i] == label]
    others = [int(i) for i in real if truth.labels[i] != label]
    best = max(same, key=lambda i: overlap[i], default=None)
    if best is not None and _NEAR <= overlap[best] < THRESHOLDS[0]:
        return "localisation", best
    other = max(others, key=lambda i: overlap[i], default=None)
    if other is not None and overlap[other] >= THRESHOLDS[0]:
        return "classification", other
    if best is not None and overlap[best] >= THRESHOLDS[0]:
        return "duplicate", None
    near = max((overlap[i] for i in real), default=0.0)
    return ("background" if near < _NEAR else "both"), None


def _confusions(truth: Side, found: Side, overlap: Floats, score_threshold: float) -> dict[str, Any]:
    """Which classes were taken for which, null for the background: pairs whatever their class, the closest first."""
    counted = np.flatnonzero(found.scores >= score_threshold)
    real = np.flatnonzero(~truth.crowd)
    close = overlap[np.ix_(counted, real)]
    rows, columns = np.nonzero(close >= THRESHOLDS[0])
    pairs: Counter[tuple[str | None, str | None]] = Counter()
    left, open_ = {*counted.tolist()}, {*real.tolist()}
    for k in np.lexsort((columns, rows, -close[rows, columns])):
        one, other = int(counted[rows[k]]), int(real[columns[k]])
        if one in left and other in open_:
            left.remove(one)
            open_.remove(other)
            pairs[truth.labels[other], found.labels[one]] += 1
    in_crowd = {i for i in left if (overlap[i][truth.crowd] >= THRESHOLDS[0]).any()}
    pairs.update((truth.labels[other], None) for other in open_)
    pairs.update((None, found.labels[one]) for one in left - in_crowd)
    ordered = sorted(pairs.items(), key=lambda item: tuple(name or "" for name in item[0]))
    return {
        "pairs": [{"truth": a, "found": b, "count": n} for (a, b), n in ordered],
        "missed_there": len(open_),
        "extra_there": len(left - in_crowd),
        "swapped_there": sum(n for (a, b), n in pairs.items() if a is not None and b is not None and a != b),
    }
