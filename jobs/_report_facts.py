"""What the report shows, asked of the tables: bounded answers, however large the lake is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from visionlake.expectations import frames
from visionlake.expectations._table import arrow_schema
from visionlake.udfs.contact_sheet import thumbnails
from visionlake.udfs.uris import display

from ._again import with_pictures
from ._lake import Lake
from ._places import places_of
from ._schemas import to_spark
from ._side import side_by_side

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

KEY = frames.TABLE.key
EXAMPLES = 3
BINS = 20
_MEDIA_ID = re.compile(r"[0-9a-f]{64}")
_SIZES = 8
_MAX_PIXELS = 178_956_970  # beyond it Pillow refuses, too
QUALITY = {"brightness": (0.0, 255.0), "contrast": (0.0, 128.0), "sharpness": (0.0, 5.0)}
"""Measures of a frame and the ranges that are shown; of sharpness its decimal logarithm."""


def newest_waves(lake: Lake) -> list[dict[str, Any]]:
    """The newest wave of each producer, in the order of their work."""
    from pyspark.sql import functions as F

    if not lake.exists("waves"):
        return []
    rows = lake.table("waves").groupBy("stage", "producer").agg(F.max_by(F.struct("*"), "sequence").alias("wave"))
    found = [row["wave"].asDict(recursive=True) for row in rows.collect()]
    return sorted(found, key=lambda wave: (wave["started_at"], wave["wave_id"]))


def key_of(text: str | None) -> dict[str, Any] | None:
    """The frame that a key of the quarantine names (media/stream/pts, and maybe more), None where it names none."""
    parts = (text or "").split("/")
    try:
        stream_index, pts = int(parts[1]), int(parts[2])
    except (IndexError, ValueError):
        return None
    is_one = 0 <= stream_index < 2**31 and -(2**63) <= pts < 2**63
    return {"media_id": parts[0], "stream_index": stream_index, "pts": pts} if is_one else None


def quarantined(lake: Lake) -> list[dict[str, Any]]:
    """Reasons with their counts and some examples, most frequent first.

    An example that names a frame, or a media with frames, has it in `frame`: of a media its last one, which is next to
    where a damaged file ends.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if not lake.exists("quarantine"):
        return []
    by_reason = Window.partitionBy("stage", "reason")
    rows = lake.table("quarantine").select(
        "stage", "reason", "input_key", "output_key", "message",
        F.count("*").over(by_reason).alias("n"),
        F.row_number().over(by_reason.orderBy("input_key", "output_key")).alias("place"),
    )  # fmt: skip
    found: dict[tuple[str, str], dict[str, Any]] = {}
    examples = rows.where(F.col("place") <= EXAMPLES).orderBy("stage", F.desc("n"), "reason", "place").collect()
    media = sorted({row["input_key"].partition("/")[0] for row in examples if row["input_key"]})
    places = {key: display(uri).rpartition("/")[2] for key, uri in places_of(lake, media).items()}
    frames = [key_of(row["output_key"]) or key_of(row["input_key"]) for row in examples]
    last = _last_frames(lake, [key for key in media if _MEDIA_ID.fullmatch(key)]) if None in frames else {}
    for row, frame in zip(examples, frames, strict=True):
        entry = {"stage": row["stage"], "reason": row["reason"], "count": row["n"], "examples": []}
        entry = found.setdefault((row["stage"], row["reason"]), entry)
        key, parent = row["output_key"] or row["input_key"], (row["input_key"] or "").partition("/")[0]
        entry["examples"].append(
            {"key": key, "message": row["message"], "place": places.get(parent), "frame": frame or last.get(parent)}
        )
    return list(found.values())


def _last_frames(lake: Lake, media: Sequence[str]) -> dict[str, dict[str, Any]]:
    from pyspark.sql import functions as F

    if not media or not lake.exists("frames"):
        return {}
    rows = lake.table("frames").where(F.col("media_id").isin(list(media)))
    found = rows.groupBy("media_id").agg(F.max(F.struct("stream_index", "pts")).alias("last")).collect()
    return {row["media_id"]: {"media_id": row["media_id"], **row["last"].asDict()} for row in found}


def counts(lake: Lake, names: Iterable[str]) -> dict[str, int]:
    """Rows of those tables and views that there are."""
    return {name: lake.table(name).count() for name in names if lake.exists(name)}


def frame_counts(lake: Lake) -> dict[str, Any]:
    """Frames in all, by size (the most frequent ones), and in equal parts of each measure's range.

    What lies outside of a range counts in the outermost part.
    """
    from pyspark.sql import functions as F

    if not lake.exists("frames"):
        return {}
    size = F.concat_ws(" × ", *(F.col(f"{side}_px").cast("string") for side in ("width", "height")))
    facts = [F.struct(F.lit("size").alias("kind"), size.alias("value"))]
    for name, (low, high) in QUALITY.items():
        value = F.log10(F.greatest(F.col(name), F.lit(1.0))) if name == "sharpness" else F.col(name)
        part = F.greatest(F.lit(0), F.least(F.floor((value - low) / (high - low) * BINS), F.lit(BINS - 1)))
        bounded = F.when(F.col(name).isNotNull(), part).cast("string")
        facts.append(F.struct(F.lit(name).alias("kind"), bounded.alias("value")))
    counted = lake.table("frames").select(F.inline(F.array(*facts))).groupBy("kind", "value").count()
    # All parts of ranges, and then sizes: one more than is shown tells that there are more.
    first = counted.orderBy(F.col("kind") == "size", F.desc("count"), "value")
    bins, sizes, total = {name: [0] * BINS for name in QUALITY}, list[tuple[str, int]](), 0
    for row in first.limit((BINS + 1) * len(QUALITY) + _SIZES + 1).collect():
        if row["kind"] == "size":
            sizes.append((row["value"], row["count"]))
        elif row["value"] is not None:
            bins[row["kind"]][int(row["value"])] += row["count"]
        total += row["count"] if row["kind"] == "brightness" else 0
    known = {name: parts for name, parts in bins.items() if any(parts)}
    return {"total": total, "sizes": sizes[:_SIZES], "has_more_sizes": len(sizes) > _SIZES, "quality": known}


def sheet_keys(lake: Lake, *, most: int) -> list[dict[str, Any]]:
    """Keys of frames to show: from all media in turn, and the same ones for the same tables."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if not most or not lake.exists("frames"):
        return []
    order = F.xxhash64(*KEY)
    turn = F.row_number().over(Window.partitionBy("media_id").orderBy(order))
    chosen = lake.table("frames").select(*KEY).withColumns({"_turn": turn, "_order": order})
    return [key.asDict() for key in chosen.orderBy("_turn", "media_id").limit(most).collect()]


def frames_of_keys(
    lake: Lake,
    keys: Sequence[Mapping[str, Any]],
    *,
    side_px: int,
    models: Sequence[str],
    sources: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """These frames with a small picture, place and the labels of some models and sources, in the order of their places.

    Executors make the pictures small: few bytes reach the driver. Whose labels they are is in `model_id`, also of
    people; all are in pixels of the stored frame.
    """
    if not keys:
        return []
    rows = _of_keys(lake.table("frames"), keys)
    if not rows.where("image_format IS NULL").isEmpty():
        rows = with_pictures(lake, rows, max_pixels=_MAX_PIXELS)
    rows = rows.select(*KEY, "pts_s", "width_px", "height_px", "image")
    work = partial(thumbnails, side_px=side_px, max_pixels=_MAX_PIXELS)
    small = rows.mapInPandas(work, f"{_ddl(rows)}, thumb_width_px int, thumb_height_px int, why string")
    with side_by_side(lake.spark, threads=2) as start:
        labelled = start(_labels_of_keys, lake, keys, models=models, sources=sources)
        named = start(places_of, lake, sorted({row["media_id"] for row in keys}))
        found = {tuple(row[name] for name in KEY): row.asDict() for row in small.collect()}
        places, rows_of_labels = named.result(), labelled.result()
    labels: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows_of_labels:
        key = tuple(row[name] for name in KEY)
        if key in found:
            labels.setdefault(key, []).append(_scaled(row, found[key]))
    ordered = sorted(found.items(), key=lambda item: (places.get(item[0][0]) or "", item[0]))
    return [
        {
            **frame,
            "place": display(places[key[0]]) if key[0] in places else f"media {key[0][:12]}",
            "labels": labels.get(key, []),
        }
        for key, frame in ordered
    ]


def _labels_of_keys(
    lake: Lake, keys: Sequence[Mapping[str, Any]], *, models: Sequence[str], sources: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of `detections` and of `annotations`, each with `model_id`, `instances`, and the size that these are in."""
    from pyspark.sql import functions as F

    found = []
    for table, who, names, size in (
        ("annotations", "source", sources, "full"), ("detections", "model_id", models, "frame"),
    ):  # fmt: skip
        if not names or not lake.exists(table):
            continue
        width, height = (F.col(f"{size}_{side}_px").alias(side) for side in ("width", "height"))
        rows = _of_keys(lake.table(table).where(F.col(who).isin(list(names))), keys)
        rows = rows.select(*KEY, F.col(who).alias("model_id"), _drawn(rows).alias("instances"), width, height)
        found += [row.asDict(recursive=True) for row in rows.orderBy("model_id").collect()]
    return found


def _drawn(rows: DataFrame) -> Column:
    """The instances with what is drawn of them; a table from before there were masks has none."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, StructType

    instances = rows.schema["instances"].dataType
    assert isinstance(instances, ArrayType) and isinstance(instances.elementType, StructType)
    names = [name for name in ("label", "score", "box", "mask") if name in instances.elementType.names]
    return F.transform("instances", lambda each: F.struct(*(each[name].alias(name) for name in names)))


def _scaled(row: dict[str, Any], frame: Mapping[str, Any]) -> dict[str, Any]:
    """The row, its boxes in pixels of the stored frame."""
    x, y = (frame[f"{side}_px"] / row[side] if row[side] else 1.0 for side in ("width", "height"))
    for instance in row["instances"] or () if (x, y) != (1.0, 1.0) else ():
        box = instance["box"]
        instance["box"] = {name: value * (x if name.startswith("x") else y) for name, value in box.items()}
    return row


def _ddl(rows: DataFrame) -> str:
    return ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in rows.schema.fields)


def _of_keys(rows: DataFrame, keys: Sequence[Any]) -> DataFrame:
    """The rows of some frames; literal media let Delta skip the files of others."""
    from pyspark.sql import functions as F

    schema = arrow_schema({column.name: column.type for column in frames.TABLE.pick(*KEY)})
    wanted = to_spark(rows.sparkSession, [{name: key[name] for name in KEY} for key in keys], schema)
    near = rows.where(F.col("media_id").isin(sorted({key["media_id"] for key in keys})))
    return near.join(F.broadcast(wanted), list(KEY), "left_semi")
