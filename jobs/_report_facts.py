"""What the report shows, asked of the tables: bounded answers, however large the lake is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = frames.TABLE.key
EXAMPLES = 3
BINS = 20
_MAX_PIXELS = 178_956_970  # beyond it Pillow refuses, too
QUALITY = {"brightness": (0.0, 255.0), "contrast": (0.0, 128.0), "sharpness": (0.0, 5.0)}
"""Measures of a frame and the ranges that are shown; of sharpness its decimal logarithm."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What one model found: objects by label, by score (parts of 0 to 1) and by octaves of size (log2 of px)."""

    model_id: str
    frames: int
    instances: int
    labels: Mapping[str, int]
    scores: Sequence[int]
    octaves: Mapping[int, int]


def newest_waves(lake: Lake) -> list[dict[str, Any]]:
    """The newest wave of each producer, in the order of their work."""
    from pyspark.sql import functions as F

    if not lake.exists("waves"):
        return []
    rows = lake.table("waves").groupBy("stage", "producer").agg(F.max_by(F.struct("*"), "sequence").alias("wave"))
    found = [row["wave"].asDict(recursive=True) for row in rows.collect()]
    return sorted(found, key=lambda wave: (wave["started_at"], wave["wave_id"]))


def quarantined(lake: Lake) -> list[dict[str, Any]]:
    """Reasons with their counts and some examples, most frequent first."""
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
    media = {row["input_key"].partition("/")[0] for row in examples if row["input_key"]}
    places = {key: display(uri).rpartition("/")[2] for key, uri in places_of(lake, sorted(media)).items()}
    for row in examples:
        entry = {"stage": row["stage"], "reason": row["reason"], "count": row["n"], "examples": []}
        entry = found.setdefault((row["stage"], row["reason"]), entry)
        key = row["output_key"] or row["input_key"]
        place = places.get((row["input_key"] or "").partition("/")[0])
        entry["examples"].append({"key": key, "message": row["message"], "place": place})
    return list(found.values())


def counts(lake: Lake, names: Iterable[str]) -> dict[str, int]:
    """Rows of those tables and views that there are."""
    return {name: lake.table(name).count() for name in names if lake.exists(name)}


def gone_files(lake: Lake) -> int:
    """Files that were read once and are no longer there; what they gave stays in the tables."""
    return lake.table("sources").where("state <> 'present'").count() if lake.exists("sources") else 0


def model_facts(lake: Lake) -> list[ModelFacts]:
    """What each model found."""
    from pyspark.sql import functions as F

    if not lake.exists("detections"):
        return []
    size = F.expr("sqrt((x_max - x_min) * (y_max - y_min))")
    grouped = (
        lake.table("instances")
        .groupBy(
            "model_id",
            "label",
            F.least(F.floor(F.col("score") * BINS), F.lit(BINS - 1)).alias("score_bin"),
            F.floor(F.log2(F.greatest(size, F.lit(1.0)))).alias("octave"),
        )
        .count()
        .collect()
    )
    frames = lake.table("detections").groupBy("model_id").count().orderBy("model_id").collect()
    found = []
    for row in frames:
        mine = [group for group in grouped if group["model_id"] == row["model_id"]]
        labels, scores, octaves = Counter(), Counter(), Counter()
        for group in mine:
            labels[group["label"]] += group["count"]
            scores[group["score_bin"]] += group["count"]
            octaves[group["octave"]] += group["count"]
        found.append(
            ModelFacts(
                model_id=row["model_id"],
                frames=row["count"],
                instances=labels.total(),
                labels=dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
                scores=[scores[place] for place in range(BINS)],
                octaves=dict(sorted(octaves.items())),
            )
        )
    return found


def quality_counts(lake: Lake) -> dict[str, list[int]]:
    """Frames in equal parts of each measure's range; what lies outside counts in the outermost part."""
    from pyspark.sql import functions as F

    if not lake.exists("frames"):
        return {}
    columns = []
    for name, (low, high) in QUALITY.items():
        value = F.log10(F.greatest(F.col(name), F.lit(1.0))) if name == "sharpness" else F.col(name)
        place = F.floor((value - low) / (high - low) * BINS)
        columns.append(F.greatest(F.lit(0), F.least(place, F.lit(BINS - 1))).alias(name))
    rows = lake.table("frames").groupBy(*columns).count().collect()
    found = {name: [0] * BINS for name in QUALITY}
    for row in rows:
        for name, bins in found.items():
            if row[name] is not None:
                bins[row[name]] += row["count"]
    return found


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
    lake: Lake, keys: Sequence[Mapping[str, Any]], *, side_px: int, models: Sequence[str]
) -> list[dict[str, Any]]:
    """These frames with a small picture, place and the labels of some models, in the order of their places.

    Executors make the pictures small: few bytes reach the driver.
    """
    from pyspark.sql import functions as F

    if not keys:
        return []
    rows = _of_keys(lake.table("frames"), keys)
    if not rows.where("image_format IS NULL").isEmpty():
        rows = with_pictures(lake, rows, max_pixels=_MAX_PIXELS)
    rows = rows.select(*KEY, "pts_s", "width_px", "height_px", "image")
    work = partial(thumbnails, side_px=side_px, max_pixels=_MAX_PIXELS)
    small = rows.mapInPandas(work, f"{_ddl(rows)}, thumb_width_px int, thumb_height_px int, why string")
    found = {tuple(row[name] for name in KEY): row.asDict() for row in small.collect()}
    labels: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    if lake.exists("detections"):
        labelled = lake.table("detections").where(F.col("model_id").isin(list(models)))
        for row in _of_keys(labelled, keys).orderBy("model_id").collect():
            labels.setdefault(tuple(row[name] for name in KEY), []).append(row.asDict(recursive=True))
    places = places_of(lake, sorted({row["media_id"] for row in keys}))
    ordered = sorted(found.items(), key=lambda item: (places.get(item[0][0]) or "", item[0]))
    return [
        {
            **frame,
            "place": display(places[key[0]]) if key[0] in places else f"media {key[0][:12]}",
            "labels": labels.get(key, []),
        }
        for key, frame in ordered
    ]


def _ddl(rows: DataFrame) -> str:
    return ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in rows.schema.fields)


def _of_keys(rows: DataFrame, keys: Sequence[Any]) -> DataFrame:
    """The rows of some frames; literal media let Delta skip the files of others."""
    from pyspark.sql import functions as F

    schema = arrow_schema({column.name: column.type for column in frames.TABLE.pick(*KEY)})
    wanted = to_spark(rows.sparkSession, [{name: key[name] for name in KEY} for key in keys], schema)
    near = rows.where(F.col("media_id").isin(sorted({key["media_id"] for key in keys})))
    return near.join(F.broadcast(wanted), list(KEY), "left_semi")
