"""What a data set is made of, as the report shows it: files, licences, splits, and what was handed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionlake.expectations import frames
from visionlake.udfs.uris import display

from ._lake import Lake

KEY = frames.TABLE.key
_LICENCES = ("licence", "license")
_MAX_LICENCES, _MAX_CLASSES, _MAX_EXPORTS = 10, 30, 50


def files(lake: Lake) -> dict[str, Any] | None:
    """Files that are there, by kind, and by licence where a manifest names some."""
    from pyspark.sql import functions as F

    if not (lake.exists("sources") and lake.exists("media")):
        return None
    rows = lake.table("sources").where("state = 'present'")
    known = next((name for name in _LICENCES if name in rows.columns), None)
    licence = F.col(f"`{known}`").cast("string") if known else F.lit(None).cast("string")
    size = F.col("size_bytes") if "size_bytes" in rows.columns else F.lit(None).cast("bigint")
    rows = rows.select("media_id", licence.alias("licence"), size.alias("size_bytes"))
    kinds = lake.table("media").select("media_id", "kind")
    found = (
        rows.join(kinds, "media_id", "left")
        .groupBy("kind", "licence")
        .agg(F.count("*").alias("files"), F.sum("size_bytes").alias("size_bytes"))
        .collect()
    )
    by_kind, by_licence = dict[str, list[int]](), dict[str, int]()
    for row in found:
        total = by_kind.setdefault(row["kind"] or "cannot be read", [0, 0])
        total[0] += row["files"]
        total[1] += row["size_bytes"] or 0
        name = row["licence"] or "not known"
        by_licence[name] = by_licence.get(name, 0) + row["files"]
    licences = sorted(by_licence.items(), key=lambda item: (-item[1], item[0]))
    return {
        "kinds": [(kind, f"{n:,}", _size(size)) for kind, (n, size) in sorted(by_kind.items())],
        "licences": [(name, f"{n:,}") for name, n in licences[:_MAX_LICENCES]],
        "more_licences": max(0, len(licences) - _MAX_LICENCES),
    }


def _size(size_bytes: int) -> str:
    value, unit = float(size_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"


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
        .orderBy(F.desc("frames"))
        .collect()
    )
    counts: dict[tuple[str, str], dict[str, int]] = {}
    if lake.exists("annotations"):
        labels = lake.table("annotations").select("media_id", F.explode("instances.label").alias("label"))
        by_media = labels.groupBy("media_id", "label").count()
        joined = rows.select("split_set", "media_id", "split").join(by_media, "media_id")
        for row in joined.groupBy("split_set", "split", "label").agg(F.sum("count").alias("n")).collect():
            counts.setdefault((row["split_set"], row["label"]), {})[row["split"]] = row["n"]
    return [
        _split_set(name, [row for row in sizes if row["split_set"] == name], counts)
        for name in sorted({row["split_set"] for row in sizes})
    ]


def _split_set(name: str, sizes: list[Any], counts: Mapping[tuple[str, str], Mapping[str, int]]) -> dict[str, Any]:
    total = max(1, sum(row["frames"] or 0 for row in sizes))
    mine = {label: by_split for (split_set, label), by_split in counts.items() if split_set == name}
    order = sorted(mine, key=lambda label: (-sum(mine[label].values()), label))
    return {
        "name": name,
        "splits": [
            {"split": row["split"], "media": f"{row['media']:,}", "groups": f"{row['groups']:,}",
             "frames": f"{row['frames'] or 0:,}", "share": f"{100 * (row['frames'] or 0) / total:.1f} %"}
            for row in sizes
        ],
        "names": [row["split"] for row in sizes],
        "near": sum(row["near"] or 0 for row in sizes) // 2,
        "classes": [
            {
                "label": label,
                "cells": [
                    (f"{mine[label].get(row['split'], 0):,}",
                     round(100 * mine[label].get(row["split"], 0) / sum(mine[label].values())))
                    for row in sizes
                ],
            }
            for label in order[:_MAX_CLASSES]
        ],
        "left_out": max(0, len(order) - _MAX_CLASSES),
    }  # fmt: skip


def exports(lake: Lake) -> list[dict[str, Any]]:
    """The newest version of each data set that was handed over."""
    if not lake.exists("exports"):
        return []
    rows = lake.table("exports").orderBy("export").limit(_MAX_EXPORTS).collect()
    return [
        {
            "export": row["export"],
            "format": row["format"],
            "uri": display(row["uri"]),
            "frames": f"{row['frames']:,}",
            "objects": f"{row['objects']:,}",
            "splits": ", ".join(f"{each['split']} {each['frames']:,}" for each in row["splits"] or ()),
            "versions": ", ".join(f"{table} {version}" for table, version in sorted((row["pins"] or {}).items())),
        }
        for row in rows
    ]
