"""Frames by reference: where their media lie, and work over them cut into parts that tasks decode again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from visionlake.expectations import frames

from ._deal import deal_out

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._lake import Lake

STILL_AWAY = frozenset({"source_missing", "source_changed", "read_failed"})
"""Reasons that say nothing about the content: the file may come back."""
MOST_PLACES = 20
FRAMES_PER_PART = 256
MEASURES = ("brightness", "contrast", "sharpness", "phash")
_SIZES = ("width_px", "height_px", "full_width_px", "full_height_px")


def with_places(media: DataFrame, sources: DataFrame) -> DataFrame:
    """Media with the place that their content has, and `elsewhere`, further ones; null where it is at none.

    A place may be gone before ingest knows it: any other that holds the same content will do.
    """
    from pyspark.sql import functions as F

    present = sources.where("state = 'present'").groupBy("media_id")
    places = F.array_sort(F.collect_list(F.struct("first_seen", "uri", "size_bytes", "mtime")))
    found = media.join(present.agg(places.alias("_places")), "media_id", "left")
    first = F.get("_places", F.lit(0))
    facts = [first[name].alias(name) for name in ("uri", "size_bytes", "mtime")]
    elsewhere = F.slice("_places", 2, MOST_PLACES).alias("elsewhere")
    return found.select(*media.columns, *facts, elsewhere)


def parts_of(rows: DataFrame, *, media: DataFrame, sources: DataFrame, most_tasks: int) -> DataFrame:
    """Frames in parts of one stream, as `udfs.frames_again` takes them, dealt out to at most `most_tasks` tasks.

    A long stream whose times are the container's own is cut into slices; the others can be decoded from their start
    only.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    stream = Window.partitionBy("media_id", "stream_index")
    own_times = (F.col("pts_source") == "container") & (F.col("pts_offset") == 0)
    is_seekable = F.bool_and(F.coalesce(own_times, F.lit(False))).over(stream)
    place = F.row_number().over(stream.orderBy("pts")) - 1
    cut = rows.withColumns({"is_seekable": is_seekable, "_place": place})
    slices = F.when(F.col("is_seekable"), F.floor(F.col("_place") / FRAMES_PER_PART)).otherwise(0)
    wanted = F.sort_array(F.collect_list(F.struct("pts", *_SIZES, *MEASURES)))
    parts = cut.groupBy("media_id", "stream_index", "is_seekable", slices.alias("_slice")).agg(wanted.alias("frames"))
    kinds = media.select("media_id", "kind")
    found = with_places(parts.join(kinds, "media_id", "left"), sources).withColumn("_size", F.size("frames"))
    return deal_out(found, by="_size", key="media_id", most=most_tasks).drop("_size", "_slice")


def with_pictures(lake: Lake, rows: DataFrame, *, max_pixels: int) -> DataFrame:
    """Some rows of `frames`, a picture (PNG) decoded again for those that store none; null where that fails."""
    if not (lake.exists("media") and lake.exists("sources")):
        return rows
    from visionlake.udfs.frame_types import Limits
    from visionlake.udfs.frames_again import fill_images

    kinds, sources = lake.table("media").select("media_id", "kind"), lake.now.table("sources")
    places = with_places(rows.join(kinds, "media_id", "left"), sources)
    schema = frames.TABLE.arrow_schema()
    work = partial(fill_images, schema=schema, limits=Limits(max_pixels=max_pixels))
    return places.mapInArrow(work, frames.TABLE.ddl)
