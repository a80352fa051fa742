"""Splits and the data sets that were handed over, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionlake.udfs.uris import display

from ._lake import Lake
from ._report_card import size_text

_MAX_CLASSES, _MAX_SETS, _MAX_EXPORTS, _MAX_SPLITS = 30, 10, 50, 100


def splits(lake: Lake) -> list[dict[str, Any]]:
    """Each set of splits, with what its splits hold: media, frames, and objects that people have seen, by class."""
    from pyspark.sql import functions as F

    if not lake.exists("splits"):
        return []
    rows = lake.table("splits")
    sizes = (
        rows.groupBy("split_set", "split")
        .agg(
            F.count("*").alias("media"),
            F.sum("frames").alias("frames"),
            F.count_distinct("group_id").alias("groups"),
            F.sum(F.size("near")).alias("near"),
        )
        .orderBy(F.desc("frames"), "split_set", "split")
        .limit(_MAX_SPLITS)
        .collect()
    )
    counts: dict[tuple[str, str], dict[str, int]] = {}
    if lake.exists("annotations"):
        labels = lake.table("annotations").select("media_id", F.explode("instances.label").alias("label"))
        by_media = labels.groupBy("media_id", "label").count()
        joined = rows.select("split_set", "media_id", "split").join(by_media, "media_id")
        by_split = joined.groupBy("split_set", "label", "split").agg(F.sum("count").alias("n"))
        by_class = by_split.groupBy("split_set", "label").agg(
            F.sum("n").alias("total"), F.map_from_entries(F.collect_list(F.struct("split", "n"))).alias("by_split")
        )
        for row in by_class.orderBy(F.desc("total"), "label").limit(_MAX_CLASSES * _MAX_SETS).collect():
            counts[row["split_set"], row["label"]] = row["by_split"]
    return [
        _split_set(name, [row for row in sizes if row["split_set"] == name], counts)
        for name in sorted({row["split_set"] for row in sizes})
    ]


def _split_set(name: str, sizes: list[Any], counts: Mapping[tuple[str, str], Mapping[str, int]]) -> dict[str, Any]:
    total = max(1, sum(row["frames"] or 0 for row in sizes))
    mine = {label: by_split for (split_set, label), by_split in counts.items() if split_set == name}
    order = sorted(mine, key=lambda label: (-sum(mine[label].values()), label))
    names = [row["split"] for row in sizes]
    return {
        "name": name,
        "splits": [
            {
                "split": row["split"],
                **{count: f"{row[count] or 0:,}" for count in ("media", "groups", "frames")},
                "share": f"{100 * (row['frames'] or 0) / total:.1f} %",
            }
            for row in sizes
        ],
        "names": names,
        "near": sum(row["near"] or 0 for row in sizes) // 2,
        "classes": [{"label": label, "cells": _cells(mine[label], names)} for label in order[:_MAX_CLASSES]],
        "is_cut": len(order) > _MAX_CLASSES,
    }


def _cells(by_split: Mapping[str, int], names: list[str]) -> list[tuple[str, int]]:
    """The objects of a class in each split, and what share of them that is, in hundredths."""
    total = sum(by_split.values())
    return [(f"{by_split.get(name, 0):,}", round(100 * by_split.get(name, 0) / total)) for name in names]


def exports(lake: Lake) -> list[dict[str, Any]]:
    """The newest version of each data set that was handed over, with how many files it has and how large they are."""
    from pyspark.sql import functions as F

    if not lake.exists("exports"):
        return []
    rows = lake.table("exports").orderBy("export").limit(_MAX_EXPORTS)
    if lake.exists("export_files"):
        files = lake.table("export_files").groupBy("export")
        rows = rows.join(files.agg(F.count("*").alias("files"), F.sum("size_bytes").alias("bytes")), "export", "left")
    else:
        rows = rows.selectExpr("*", "cast(null AS bigint) AS files", "cast(null AS bigint) AS bytes")
    return [
        {
            "export": row["export"],
            "format": row["format"],
            "task": row["task"] or "",
            "uri": display(row["uri"]),
            "frames": f"{row['frames'] or 0:,}",
            "objects": f"{row['objects'] or 0:,}",
            "files": ""
            if row["files"] is None
            else f"{row['files']:,} file{'s' * (row['files'] != 1)}, {size_text(row['bytes'] or 0)}",
            "splits": ", ".join(f"{each['split']} {each['frames']:,}" for each in row["splits"] or ()),
            "labels": ", ".join(f"{each['labels']} {each['frames']:,}" for each in row["labelled_by"] or ()),
            "versions": ", ".join(f"{table} {version}" for table, version in sorted((row["pins"] or {}).items())),
        }
        for row in rows.orderBy("export").collect()
    ]
