"""From matches of all frames to average precision and recall, curves, calibration, and what errors cost.

Numbers are those of COCO's evaluation (see `match_labels`). What an error costs is as in TIDE: how much the AP at an
overlap of 0.5 would grow if all errors of that kind were mended. Calibration error: Guo et al., arXiv:1706.04599.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .match_labels import AREAS, ERRORS, KEY, THRESHOLDS

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_MOST = (1, 10, 100)  # objects of a frame that count for average recall
_BINS = 10
_WORST = 100
_EPSILON = np.spacing(1)

AVERAGES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
)
"""What COCO's summary has, in its order; null where there is nothing to find."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """All objects found of a class, best first (N); `hits` and `ignored` have a bit per area and threshold."""

    scores: Floats
    hits: Ints
    ignored: Ints
    errors: Ints
    is_mended: Bools
    rank: Ints

    def at(self, area: int, threshold: int) -> tuple[Bools, Bools]:
        """Which are right, and which are wrong, in an area at a threshold."""
        bit = area * len(THRESHOLDS) + threshold
        hit, counts = (self.hits >> bit & 1).astype(bool), ~(self.ignored >> bit & 1).astype(bool)
        return hit & counts, ~hit & counts


def average_class(matches: pa.Table) -> dict[str, Any]:
    """The result of one class of a model: of all its rows of `MATCHES`, in any order."""
    matches = matches.sort_by([(name, "ascending") for name in KEY])
    first = {name: matches.column(name)[0].as_py() for name in ("model_id", "kind", "label")}
    truths = np.array(matches.column("truths").to_pylist(), np.int64).sum(axis=0)
    found = _flatten(matches.column("found"))
    right, wrong = found.at(0, 0)
    elsewhere = np.array([s for row in matches.column("elsewhere").to_pylist() for s in row], np.float64)
    missed = sum(matches.column("missed").to_pylist())
    return {
        **first,
        "frames": matches.num_rows,
        "truths": int(truths[0]),
        "crowds": sum(matches.column("crowds").to_pylist()),
        "found": len(found.scores),
        **_averages(found, truths),
        **_best(found.scores, right, wrong, int(truths[0])),
        **_calibration(found.scores, right, wrong),
        "curve": _curve(found.scores, right, wrong, int(truths[0])),
        "errors": _costs(found, elsewhere, missed=missed, truths=int(truths[0])),
    }


def _flatten(column: pa.ChunkedArray) -> _Found:
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks)
    sizes = np.diff(lists.offsets.to_numpy())
    values = lists.flatten()
    scores = values.field("score").to_numpy(zero_copy_only=False)
    rank = np.arange(len(scores)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    order = np.argsort(-scores, kind="mergesort")

    def ordered(name: str, kind: Any) -> Any:
        return values.field(name).to_numpy(zero_copy_only=False)[order].astype(kind)

    return _Found(
        scores=scores[order],
        hits=ordered("hits", np.int64),
        ignored=ordered("ignored", np.int64),
        errors=ordered("error", np.int64),
        is_mended=ordered("is_mended", bool),
        rank=rank[order],
    )


def _averages(found: _Found, truths: Ints) -> dict[str, float | None]:
    precision: dict[str, list[float]] = {}
    recall: dict[tuple[str, int], list[float]] = {}
    for area, name in enumerate(AREAS):
        for threshold in range(len(THRESHOLDS)):
            right, wrong = found.at(area, threshold)
            precision.setdefault(name, []).append(interpolated(right, wrong, int(truths[area])))
            for most in _MOST if area == 0 else _MOST[-1:]:
                hits = np.count_nonzero(right & (found.rank < most))
                recall.setdefault((name, most), []).append(hits / truths[area] if truths[area] else 0.0)
    has = dict(zip(AREAS, (truths > 0).tolist(), strict=True))
    at = {round(float(t), 2): k for k, t in enumerate(THRESHOLDS)}
    values = [
        *(("all", np.mean(precision["all"])), ("all", precision["all"][at[0.5]]), ("all", precision["all"][at[0.75]])),
        *((name, np.mean(precision[name])) for name in AREAS[1:]),
        *(("all", np.mean(recall["all", most])) for most in _MOST),
        *((name, np.mean(recall[name, _MOST[-1]])) for name in AREAS[1:]),
    ]
    return {name: float(value) if has[area] else None for name, (area, value) in zip(AVERAGES, values, strict=True)}


def interpolated(right: Bools, wrong: Bools, truths: int) -> float:
    """Mean precision at 101 recalls, of objects best first that are right, wrong, or neither."""
    return float(_at_recalls(right, wrong, truths)[0].mean()) if truths else 0.0


def _at_recalls(right: Bools, wrong: Bools, truths: int) -> tuple[Floats, Ints]:
    """The precision at each of RECALLS, 0 beyond the last, and how many objects it takes to get there."""
    hits, misses = np.cumsum(right), np.cumsum(wrong)
    precision = hits / (hits + misses + _EPSILON)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(hits / truths, RECALLS, side="left")
    return np.append(precision, 0.0)[places], places


def _curve(scores: Floats, right: Bools, wrong: Bools, truths: int) -> list[dict[str, float | None]] | None:
    if not truths:
        return None
    precision, places = _at_recalls(right, wrong, truths)
    reached = np.append(scores, np.nan)[places]
    return [
        {"recall": r, "precision": p, "score": None if np.isnan(s) else s}
        for r, p, s in zip(RECALLS.tolist(), precision.tolist(), reached.tolist(), strict=True)
    ]


def _best(scores: Floats, right: Bools, wrong: Bools, truths: int) -> dict[str, float | None]:
    """The score from which on labels are best by F1, at an overlap of 0.5."""
    names = ("best_score", "best_f1", "best_precision", "best_recall")
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, np.int64)
    if not truths or not len(last):
        return dict.fromkeys(names)
    hits, kept = np.cumsum(right)[last], np.cumsum(right | wrong)[last]
    f1 = 2 * hits / (kept + truths)
    best = int(f1.argmax())
    values = (scores[last[best]], f1[best], hits[best] / max(kept[best], 1), hits[best] / truths)
    return dict(zip(names, map(float, values), strict=True))


def _calibration(scores: Floats, right: Bools, wrong: Bools) -> dict[str, Any]:
    counted = right | wrong
    bins = np.minimum((scores[counted] * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    sums = np.bincount(bins, scores[counted], _BINS), np.bincount(bins, right[counted], _BINS)
    rows = [
        {"score": s / n, "precision": r / n, "count": n}
        for n, s, r in zip(counts.tolist(), sums[0].tolist(), sums[1].tolist(), strict=True)
        if n
    ]
    return {"calibration": rows, "calibration_error": _calibration_error(rows)}


def _calibration_error(rows: Sequence[Mapping[str, Any]]) -> float | None:
    total = sum(row["count"] for row in rows)
    return sum(row["count"] * abs(row["score"] - row["precision"]) for row in rows) / total if total else None


def _costs(found: _Found, elsewhere: Floats, *, missed: int, truths: int) -> list[dict[str, Any]]:
    right, wrong = found.at(0, 0)
    now = interpolated(right, wrong, truths)
    costs = []
    for place, error in enumerate(ERRORS):
        mine = (found.errors == place + 1) & wrong
        count = missed if error == "missed" else int(mine.sum())
        lost = None
        if truths:
            lost = _mended(found, right, wrong, mine, elsewhere, missed=missed, error=error, truths=truths) - now
        costs.append({"error": error, "count": count, "ap50_lost": lost})
    return costs


def _mended(
    found: _Found, right: Bools, wrong: Bools, mine: Bools, elsewhere: Floats, *, missed: int, error: str, truths: int
) -> float:
    """The AP at an overlap of 0.5 if there were no such error."""
    if error == "missed":
        return interpolated(right, wrong, truths - missed) if truths > missed else 1.0
    if error == "localisation":
        return interpolated(right | (mine & found.is_mended), wrong & ~mine, truths)
    if error != "classification":
        return interpolated(right, wrong & ~mine, truths)
    scores = np.concatenate([found.scores, elsewhere])  # what has another class today would have this one
    order = np.argsort(-scores, kind="mergesort")
    more = np.ones(len(elsewhere), bool)
    return interpolated(np.concatenate([right, more])[order], np.concatenate([wrong & ~mine, ~more])[order], truths)


def describe_frames(matches: pa.Table) -> dict[str, Any]:
    """What all rows of `MATCHES` without a class say of a model: frames, confusions, and the worst frames."""
    confusion: Counter[tuple[str | None, str | None]] = Counter()
    for row in matches.column("pairs").to_pylist():
        for pair in row or ():
            confusion[pair["truth"], pair["found"]] += pair["count"]
    names = ("missed", "extra", "swapped")
    frames = matches.select([*KEY, *(f"{name}_there" for name in names)]).to_pylist()
    bad = (frame for frame in frames if any(frame[f"{name}_there"] for name in names))
    worst = nsmallest(_WORST, bad, key=lambda f: (-sum(f[f"{n}_there"] for n in names), *(f[name] for name in KEY)))
    ordered = sorted(confusion.items(), key=lambda item: tuple((name is None, name or "") for name in item[0]))
    return {
        **{name: matches.column(name)[0].as_py() for name in ("model_id", "kind")},
        "frames": matches.num_rows,
        "confusion": [{"truth": a, "found": b, "count": n} for (a, b), n in ordered],
        "worst": [{**{k: f[k] for k in KEY}, **{n: f[f"{n}_there"] for n in names}} for f in worst],
    }


def average_all(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Results of a model, of each class and of all: of what `average_class` and `describe_frames` say of it."""
    frames = next(row for row in rows if row.get("label") is None)
    classes = sorted((row for row in rows if row.get("label") is not None), key=lambda row: row["label"])
    overall = {
        **{name: frames[name] for name in ("model_id", "kind", "frames", "confusion", "worst")},
        "label": None,
        **{name: sum(row[name] for row in classes) for name in ("truths", "crowds", "found")},
        **{name: _mean(row[name] for row in classes) for name in AVERAGES},
        "errors": [_total(place, error, classes) for place, error in enumerate(ERRORS)],
        **_pooled([row["calibration"] or () for row in classes]),
    }
    return [overall, *({**row, "confusion": None, "worst": None} for row in classes)]


def _total(place: int, error: str, classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mine = [row["errors"][place] for row in classes]
    return {
        "error": error,
        "count": sum(each["count"] for each in mine),
        "ap50_lost": _mean(each["ap50_lost"] for each in mine),
    }


def _pooled(parts: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Calibration of all classes: bins of equal scores put together."""
    bins: dict[int, list[Mapping[str, Any]]] = {}
    for part in parts:
        for row in part:
            # A mean of equal scores may be rounded to just below the edge that they lie on.
            bins.setdefault(min(int(row["score"] * _BINS + 1e-9), _BINS - 1), []).append(row)
    rows = []
    for _, mine in sorted(bins.items()):
        count = sum(row["count"] for row in mine)
        rows.append(
            {
                "score": sum(row["score"] * row["count"] for row in mine) / count,
                "precision": sum(row["precision"] * row["count"] for row in mine) / count,
                "count": count,
            }
        )
    return {"calibration": rows, "calibration_error": _calibration_error(rows)}


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
