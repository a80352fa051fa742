"""`visionlake show`: one frame of a lake as a picture, with the boxes that models found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake.errors import UsageError
from visionlake.expectations import detections, semantic_masks

from ._text import clean

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from visionlake.jobs._lake import Lake

_MAX_PIXELS = 200_000_000
_NEAR = 5
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def write_picture(
    lake: Lake, media: str, *, stream: int, pts: int | None, model: str | None, models: Sequence[str], out: Path | None
) -> tuple[Path, list[tuple[str, int]] | None]:
    """Write the frame of a media as PNG or JPEG: that at `pts`, or the one with the most objects.

    Boxes are those of the models whose id begins with `model`; else of `models`, those of the pipeline; else of all.
    Returns the file, and per label and model how many objects and regions are drawn, or None where no model has looked
    at the frame. Raises UsageError where there is no such media, frame or model.
    """
    from visionlake.jobs._again import with_pictures
    from visionlake.udfs._errors import MediaError
    from visionlake.udfs.draw_boxes import draw_boxes
    from visionlake.udfs.stored_picture import open_stored

    if out is not None and out.suffix.lower() not in _FORMATS:
        raise UsageError(f"--out {clean(out)}: allowed are the endings {', '.join(_FORMATS)}")
    media_id = _find_media(lake, media)
    frames = _of(lake, "frames", media_id, stream)
    labels = _labels(lake, media_id, stream, model, models)
    pts = _find_pts(frames, labels, pts)
    frame = with_pictures(lake, frames.where(f"pts = {pts}"), max_pixels=_MAX_PIXELS).collect()[0]
    found = [] if labels is None else labels.where(f"pts = {pts}").orderBy("model_id").collect()
    try:
        picture = open_stored(frame["image"], max_pixels=_MAX_PIXELS)
    except MediaError as error:
        raise UsageError(f"the frame at pts {pts} cannot be shown: {error}") from None
    drawn, regions = (
        [(row["model_id"], one) for row in found for one in row.asDict(recursive=True)[what] or ()]
        for what in ("instances", "regions")
    )
    target = out or Path(f"{_stem(lake, media_id)}_{pts}.png")
    try:
        made = draw_boxes(picture, [one for _, one in drawn], regions=[one for _, one in regions])
        made.save(target, _FORMATS[target.suffix.lower()], quality=92)
    except (OSError, ValueError) as error:
        raise UsageError(f"{target} cannot be written: {error}") from None
    if not found:
        return target, None
    several = len({row["model_id"] for row in found}) > 1
    counts = Counter(f"{one['label']} ({model})" if several else str(one["label"]) for model, one in drawn + regions)
    return target, sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _find_media(lake: Lake, name: str) -> str:
    """The `media_id` for a path, a URI, a file's name, or the beginning of an id. Raises UsageError."""
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
        places = ", ".join(display(row["uri"]) for row in best[:_NEAR])
        raise UsageError(f"{clean(name)} means several media: {places}; give a whole path, or a media_id")
    text = f"no media {clean(name)} in lake {lake.uri}; allowed: a path, a file's name or a media_id"
    raise UsageError(f"{text}; what could not be read is listed by `visionlake quarantine list`")


def _labels(lake: Lake, media_id: str, stream: int, model: str | None, models: Sequence[str]) -> DataFrame | None:
    """Rows with `instances` or `regions` of the models chosen."""
    from pyspark.sql import functions as F

    parts, kinds = [], {"instances": detections.TABLE, "regions": semantic_masks.TABLE}
    for table in kinds.values():
        if lake.exists(table.name):
            rows = _of(lake, table.name, media_id, stream)
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


def _find_pts(frames: DataFrame, labels: DataFrame | None, pts: int | None) -> int:
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
    near = frames.select("pts").orderBy(F.abs(F.col("pts") - pts), "pts").limit(_NEAR).collect()
    if not near or near[0]["pts"] != pts:
        there = ", ".join(str(row["pts"]) for row in near) or "none"
        raise UsageError(f"no frame at pts {pts}; the nearest are: {there}")
    return pts


def _of(lake: Lake, table: str, media_id: str, stream: int) -> DataFrame:
    from pyspark.sql import functions as F

    return lake.table(table).where((F.col("media_id") == media_id) & (F.col("stream_index") == stream))


def _stem(lake: Lake, media_id: str) -> str:
    from pyspark.sql import functions as F

    from visionlake.udfs.uris import display

    rows = lake.table("sources").where(F.col("media_id") == media_id).orderBy("uri").select("uri").head(1)
    return Path(display(rows[0]["uri"])).stem or media_id[:12]
