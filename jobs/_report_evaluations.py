"""How good labels are, as the report shows it: figures, curves, confusions, and the worst frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionlake.expectations import frames
from visionlake.udfs.agreement import alike
from visionlake.udfs.draw_boxes import COLOURS

from ._lake import Lake
from ._report_confusion import confusion_matrix
from ._report_pictures import pictures_by_model
from ._report_plots import bars, lines

KEY = frames.TABLE.key
_FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100", "iou")
_OF_CLASS = ("frames", "truths", "found", "ap", "ap_before", "ap50", "ar_100", "iou", "best_score", "best_f1")
_CLASSES, _CURVES, _RESULTS = 60, 6, 40
_ALIKE = 0.5  # the overlap from which on two boxes of a class are told to be one, as in the confusions


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
    for row in rows.orderBy(*names, "_place").collect():
        each = row.asDict(recursive=True)
        entry = found.setdefault(tuple(each[name] for name in names), {"classes": []})
        if each["label"] is None:
            entry |= each
        else:
            entry["classes"].append(each)
    return [entry for entry in found.values() if "model_id" in entry][:_RESULTS]


def evaluation_section(
    result: Mapping[str, Any], found: Mapping[tuple[Any, ...], Mapping[str, Any]], *, place: int
) -> dict[str, Any]:
    """What the page says of one result; its `worst` are the frames that are shown."""
    shown = [name for name in _OF_CLASS if any(each[name] is not None for each in result["classes"])]
    return {
        "id": f"evaluation-{place}",
        "evaluation": result["evaluation"],
        "model_id": result["model_id"],
        "kind": result["kind"],
        "truth": result["truth"],
        "splits": ", ".join(result["splits"] or ()),
        "frames": f"{result['frames'] or 0:,}",
        "not_labelled": result["frames_not_labelled"] or 0,
        "figures": [
            (name, _number(result[name]), _since(result, name)) for name in _FIGURES if result[name] is not None
        ],
        "columns": shown,
        "classes": [{"label": each["label"], "cells": [_number(each[n]) for n in shown]} for each in result["classes"]],
        "left_out": result["_classes"] - len(result["classes"]),
        "plots": _plots(result, place),
        "confusion": confusion_matrix(result["confusion"] or ()),
        "threshold": f"{result['score_threshold'] or 0:g}",
        "pictures": _worst(result, found),
        "colours": COLOURS[:2],
        "versions": ", ".join(f"{table} {version}" for table, version in sorted((result["pins"] or {}).items())),
    }


def _since(result: Mapping[str, Any], name: str) -> str:
    """How the leading figure was before, where that is known."""
    is_leading = name == ("iou" if result["ap"] is None else "ap")
    return f"was {result['ap_before']:.3f}" if is_leading and result["ap_before"] is not None else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _plots(result: Mapping[str, Any], place: int) -> list[dict[str, Any]]:
    found = []
    curves = {
        each["label"]: [(p["recall"], p["precision"]) for p in each["curve"] if p["precision"]]
        for each in result["classes"]
        if each["curve"]
    }  # where a recall is not reached, there is no precision to draw
    if any(curves.values()):
        title = "precision and recall" + " of the most frequent classes" * (len(result["classes"]) > _CURVES)
        shown = {label: points for label, points in curves.items() if points}
        found.append(lines(title, shown, x="recall", y="precision at an overlap of 0.50", name=f"curve{place}"))
    bins = [(row["score"], row["precision"]) for row in result["calibration"] or ()]
    if bins:
        error = result["calibration_error"]
        title = "calibration: dotted is what scores promise" + (f"; off by {error:.3f}" if error is not None else "")
        found.append(
            lines(title, {"all": bins}, x="score", y="precision", name=f"calibration{place}", has_diagonal=True)
        )
    errors = [(_error(each), each["count"]) for each in result["errors"] or ()]
    if any(count for _, count in errors):
        found.append(bars("kinds of errors, and what ap50 would gain without", errors, name=f"errors{place}"))
    return found


def _error(each: Mapping[str, Any]) -> str:
    lost = each["ap50_lost"]
    return each["error"] if lost is None else f"{each['error']} {lost:+.3f}"


def _worst(result: Mapping[str, Any], found: Mapping[tuple[Any, ...], Mapping[str, Any]]) -> list[dict[str, Any]]:
    who = (result["truth"], result["model_id"])
    told = [(found.get(tuple(frame[name] for name in KEY)), frame) for frame in result["worst"] or ()]
    shown = [({**frame, "labels": _disagreeing(frame, result)}, worst) for frame, worst in told if frame is not None]
    pictures = pictures_by_model([frame for frame, _ in shown], who)
    for picture, (_, worst) in zip(pictures, shown, strict=True):
        picture["note"] = ", ".join(f"{worst[name]} {name}" for name in ("missed", "extra", "swapped") if worst[name])
        picture["alt"] = f"frame at {picture['when']}, truth and model: {picture['note']}"
    return pictures


def _disagreeing(frame: Mapping[str, Any], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The labels of truth and model; boxes that are alike in both come last, and are `is_quiet`."""
    who = (result["truth"], result["model_id"])
    rows = [_counted(row, result) for row in frame["labels"] if row["model_id"] in who]
    truth, model = ([each for row in rows if row["model_id"] == one for each in row["instances"]] for one in who)
    quiet = [instance for pair in alike(truth, model, iou=_ALIKE) for instance in pair]
    ids = {id(instance) for instance in quiet}
    return [
        {
            **row,
            "instances": sorted(
                ({**each, "is_quiet": id(each) in ids} for each in row["instances"]), key=lambda each: each["is_quiet"]
            ),
        }
        for row in rows
    ]


def _counted(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of a frame without those of the model that are too unsure to count there."""
    found = row["instances"] or []
    if row["model_id"] == result["model_id"]:
        found = [each for each in found if (each["score"] or 0.0) >= (result["score_threshold"] or 0.0)]
    return {**row, "instances": found}
