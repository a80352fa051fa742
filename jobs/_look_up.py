"""What a person means by the name of a media, a time in it and the name of a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake._text import clean
from visionlake.errors import UsageError
from visionlake.expectations import detections, semantic_masks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._lake import Lake

NEAR = 5


class NoSuchMedia(UsageError):
    """There is no media of a name."""


def find_media(lake: Lake, name: str) -> str:
    """The `media_id` for a path, a URI, a file's name, or the beginning of an id.

    Raises NoSuchMedia, and UsageError for a name that cannot be or that means several.
    """
    from pyspark.sql import functions as F

    from visionlake.udfs.uris import display, to_uri

    rows = lake.table("sources").select("media_id", "uri", (F.col("state") != "present").alias("gone"))
    try:
        exact = F.col("uri") == to_uri(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    by_name = F.element_at(F.split("uri", "/"), -1) == to_uri(Path(name).name).rsplit("/", 1)[-1]
    by_id = F.col("media_id").startswith(name.lower()) if len(name) >= 6 else F.lit(False)
    ranked = F.when(exact, 0).when(by_id, 1).when(by_name, 2).alias("rank")
    found = rows.select("*", ranked).where("rank IS NOT NULL").orderBy("rank", "gone", "uri").limit(100).collect()
    best = [row for row in found if (row["rank"], row["gone"]) == (found[0]["rank"], found[0]["gone"])]
    ids = sorted({row["media_id"] for row in best})
    if len(ids) == 1:
        return ids[0]
    if ids:
        places = ", ".join(display(row["uri"]) for row in best[:NEAR])
        raise UsageError(f"{clean(name)} means several media: {places}; give a whole path, or a media_id")
    text = f"no media {clean(name)} in lake {lake.uri}; allowed: a path, a file's name or a media_id"
    raise NoSuchMedia(f"{text}; what could not be read is listed by `visionlake quarantine list`")


def find_labels(lake: Lake, media_id: str, stream: int, model: str | None, models: Sequence[str]) -> DataFrame | None:
    """Rows with `instances` or `regions` of the models chosen."""
    from pyspark.sql import functions as F

    parts, kinds = [], {"instances": detections.TABLE, "regions": semantic_masks.TABLE}
    for table in kinds.values():
        if lake.exists(table.name):
            rows = rows_of(lake, table.name, media_id, stream)
            values = [
                (F.col(what) if table is of else F.lit(None).cast(of.pick(what)[0].type)).alias(what)
                for what, of in kinds.items()
            ]
            parts.append(rows.select("pts", "model_id", *values))
    if not parts:
        return None
    rows = reduce(lambda one, other: one.unionByName(other), parts)
    ids = sorted(row["model_id"] for row in rows.select("model_id").distinct().collect())
    if model is None:
        chosen = [found for found in ids if found in models] or ids
    else:
        chosen = [found for found in ids if found.startswith(model)]
        chosen = [found for found in chosen if found in models] or chosen
        if not chosen:
            raise UsageError(f"no labels of model {clean(model)} for this media; there are: {', '.join(ids) or 'none'}")
    return rows.where(rows["model_id"].isin(chosen))


def find_pts(frames: DataFrame, labels: DataFrame | None, pts: int | None) -> int:
    """The pts of a frame: that one, or of the frame with the most objects. Raises UsageError where there is none."""
    from pyspark.sql import functions as F

    if pts is None:
        best: Sequence[Any] = ()
        if labels is not None:
            most = (
                labels.join(frames.select("pts"), "pts", "left_semi")
                .groupBy("pts")
                .agg(F.sum(F.coalesce(F.size("instances"), F.size("regions"))).alias("n"))
            )
            best = most.orderBy(F.desc("n"), "pts").head(1)
        best = best or frames.orderBy("pts").select("pts").head(1)
        if not best:
            raise UsageError(
                "this media has no frames in that stream: give another --stream, or see `visionlake quarantine list`"
            )
        return best[0]["pts"]
    near = frames.select("pts").orderBy(F.abs(F.col("pts") - pts), "pts").limit(NEAR).collect()
    if not near or near[0]["pts"] != pts:
        there = ", ".join(str(row["pts"]) for row in near) or "none"
        raise UsageError(f"no frame at pts {pts}; the nearest are: {there}")
    return pts


def rows_of(lake: Lake, table: str, media_id: str, stream: int) -> DataFrame:
    """A table's rows of one stream of a media."""
    from pyspark.sql import functions as F

    return lake.table(table).where((F.col("media_id") == media_id) & (F.col("stream_index") == stream))
