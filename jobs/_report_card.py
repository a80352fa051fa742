"""What a data set is made of, as the report shows it: files, how long they are, and under which licences."""

from __future__ import annotations

from typing import Any

from ._lake import Lake

_LICENCES = ("licence", "license")
_MAX_LICENCES, _MAX_KINDS = 10, 6  # of kinds: video, image and neither, there or gone


def files(lake: Lake) -> dict[str, Any] | None:
    """Files that are there, by kind, and by licence where a manifest names some; and how many are there no more."""
    from pyspark.sql import functions as F

    if not lake.exists("sources"):
        return None
    rows = lake.table("sources")
    known = next((name for name in _LICENCES if name in rows.columns), None)
    licence = F.col(f"`{known}`").cast("string") if known else F.lit(None).cast("string")
    rows = rows.select("media_id", "state", "size_bytes", licence.alias("licence"))
    if lake.exists("media"):
        rows = rows.join(lake.table("media").select("media_id", "kind", "duration_s"), "media_id", "left")
    else:
        rows = rows.selectExpr("*", "cast(null AS string) AS kind", "cast(null AS double) AS duration_s")
    rows = rows.withColumn("is_present", F.col("state") == "present")
    sums = (F.count("*").alias("files"), F.sum("size_bytes").alias("size_bytes"), F.sum("duration_s").alias("length_s"))
    found = rows.groupingSets([["kind", "is_present"], ["licence", "is_present"]], "kind", "licence", "is_present").agg(
        *sums, (F.grouping("kind") == 1).alias("no_kind")
    )
    # A row for each kind, and then the most frequent licences; one more than is shown tells that there are more.
    told = found.orderBy("no_kind", F.desc("is_present"), F.desc("files"), F.coalesce("licence", F.lit("")))
    told = told.limit(_MAX_KINDS + _MAX_LICENCES + 1).collect()
    kinds = sorted((row for row in told if not row["no_kind"]), key=lambda row: row["kind"] or "")
    licences = [row for row in told if row["no_kind"] and row["is_present"]]
    return {
        "kinds": [
            (
                row["kind"] or "cannot be read",
                f"{row['files']:,}",
                size_text(row["size_bytes"] or 0),
                _length(row["length_s"]),
            )
            for row in kinds
            if row["is_present"]
        ],
        "licences": [(row["licence"] or "unknown", f"{row['files']:,}") for row in licences[:_MAX_LICENCES]],
        "has_more_licences": len(licences) > _MAX_LICENCES,
        "has_licences": known is not None,
        "gone": sum(row["files"] for row in kinds if not row["is_present"]),
    }


def size_text(size_bytes: int) -> str:
    """A size for people, in powers of 1024."""
    value, unit = float(size_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"


def _length(length_s: float | None) -> str:
    """Hours, minutes and seconds; nothing for stills."""
    if not length_s:
        return ""
    minutes, seconds = divmod(round(length_s), 60)
    if minutes >= 60:
        return f"{minutes // 60:,} h {minutes % 60:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{length_s:.3g} s"
