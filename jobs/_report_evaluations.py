"""How good labels are, as the report shows it: figures, curves, confusions, and the worst frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from visionlake._text import clean
from visionlake.expectations import frames

from ._lake import Lake
from ._report_pictures import pictures_by_model

KEY = frames.TABLE.key
_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100", "iou")
_OF_CLASS = ("frames", "truths", "found", "ap", "ap_before", "ap50", "ar_100", "iou", "best_score", "best_f1")
_CLASSES, _CURVES, _CONFUSED = 60, 6, 12
_BACKGROUND = "background"


def evaluations(lake: Lake) -> list[dict[str, Any]]:
    """The results of each evaluation, model and kind: that of all classes, with those of the most frequent ones."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if not lake.exists("evaluations"):
        return []
    names = ("evaluation", "model_id", "kind")
    # The row of all classes, which has no label, comes first.
    order = Window.partitionBy(*names).orderBy(F.col("label").isNotNull(), F.desc_nulls_last("truths"), "label")
    rows = lake.table("evaluations").withColumns(
        {"_place": F.row_number().over(order), "_classes": F.count("label").over(Window.partitionBy(*names))}
    )
    rows = rows.where(F.col("_place") <= 1 + _CLASSES)
    rows = rows.withColumn("curve", F.when(F.col("_place") <= 1 + _CURVES, F.col("curve")))
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows.drop("calibration_error", "splits").orderBy(*names, "_place").collect():
        each = row.asDict(recursive=True)
        entry = found.setdefault(tuple(each[name] for name in names), {"classes": []})
        if each["label"] is None:
            entry |= each
        else:
            entry["classes"].append(each)
    return [entry for entry in found.values() if "model_id" in entry]


def worst_keys(results: Sequence[Mapping[str, Any]], *, most: int) -> list[dict[str, Any]]:
    """Keys of the frames that these results show."""
    return [{name: frame[name] for name in KEY} for each in results for frame in (each["worst"] or ())[:most]]


def evaluation_section(
    result: Mapping[str, Any],
    found: Mapping[tuple[Any, ...], Mapping[str, Any]],
    *,
    place: int,
    most: int,
    links: Mapping[str, str],
) -> dict[str, Any]:
    """What the page says of one result; `links` are the galleries of classes."""
    shown = [name for name in _OF_CLASS if any(each[name] is not None for each in result["classes"])]
    return {
        "id": f"evaluation-{place}",
        "evaluation": result["evaluation"],
        "model_id": result["model_id"],
        "kind": result["kind"],
        "truth": result["truth"],
        "frames": f"{result['frames']:,}",
        "not_labelled": result["frames_not_labelled"] or 0,
        "figures": [(name, _number(result[name])) for name in _FIGURES if result[name] is not None],
        "columns": shown,
        "classes": [
            {"label": each["label"], "link": links.get(each["label"]), "cells": [_number(each[n]) for n in shown]}
            for each in result["classes"]
        ],
        "left_out": result["_classes"] - len(result["classes"]),
        "plots": _plots(result, place),
        "confusion": _confusion(result["confusion"] or ()),
        "threshold": f"{result['score_threshold']:g}",
        "pictures": _worst(result, found, most=most),
        "versions": ", ".join(f"{table} {version}" for table, version in sorted((result["pins"] or {}).items())),
    }


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _plots(result: Mapping[str, Any], place: int) -> list[dict[str, Any]]:
    from markupsafe import Markup

    from visionlake.udfs.plots import bar_plot, curves

    found = []
    lines = {
        clean(each["label"]): [(p["recall"], p["precision"] or 0.0) for p in each["curve"]]
        for each in result["classes"]
        if each["curve"]
    }
    if lines:
        svg = curves(lines, x="recall", y="precision at an overlap of 0.50", name=f"curve{place}")
        found.append(("precision and recall of the most frequent classes", svg))
    bins = [(row["score"], row["precision"]) for row in result["calibration"] or ()]
    if len(bins) > 1:
        svg = curves({"all": bins}, x="score", y="precision", name=f"calibration{place}", has_diagonal=True)
        found.append(("calibration: dotted is what scores promise", svg))
    errors = [(each["error"], each["count"]) for each in result["errors"] or ()]
    if any(count for _, count in errors):
        found.append(
            (
                "kinds of errors at an overlap of 0.50",
                bar_plot([word for word, _ in errors], [n for _, n in errors], name=f"errors{place}"),
            )
        )
    return [{"title": title, "svg": Markup(svg)} for title, svg in found]


def _confusion(pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Rows of what was there, columns of what it was taken for: the most frequent classes, and the background."""
    total = Counter[str]()
    for pair in pairs:
        total.update({name: pair["count"] for name in {pair["truth"], pair["found"]} if name is not None})
    if not total:
        return None
    names = [name for name, _ in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:_CONFUSED]]
    counts = {(pair["truth"], pair["found"]): pair["count"] for pair in pairs}
    keys: list[str | None] = [*names, None]
    rows = []
    for truth in keys:
        row = [counts.get((truth, other), 0) for other in keys]
        most = max(sum(row), 1)
        cells = [
            {
                "text": "" if truth is None is other else f"{n:,}",
                "share": round(100 * n / most),
                "is_right": truth == other,
            }
            for n, other in zip(row, keys, strict=True)
        ]
        rows.append({"label": truth or _BACKGROUND, "cells": cells})
    return {
        "labels": [name or _BACKGROUND for name in keys],
        "rows": rows,
        "left_out": len(total) - len(names),
    }


def _worst(
    result: Mapping[str, Any], found: Mapping[tuple[Any, ...], Mapping[str, Any]], *, most: int
) -> list[dict[str, Any]]:
    who = (result["truth"], result["model_id"])
    told = [(found.get(tuple(frame[name] for name in KEY)), frame) for frame in (result["worst"] or ())[:most]]
    shown = [
        ({**frame, "labels": [row for row in frame["labels"] if row["model_id"] in who]}, worst)
        for frame, worst in told
        if frame is not None
    ]
    pictures = pictures_by_model([frame for frame, _ in shown], who)
    for picture, (_, worst) in zip(pictures, shown, strict=True):
        picture["note"] = ", ".join(f"{worst[name]} {name}" for name in ("missed", "extra", "swapped") if worst[name])
    return pictures
