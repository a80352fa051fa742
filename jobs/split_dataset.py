"""Split data sets: train, val and test that do not leak, stay as they were when data comes, and have all classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from visionlake.expectations import detections, frames, sources, splits
from visionlake.expectations._table import Check, Metric, arrow_schema
from visionlake.expectations.annotations import TABLE as ANNOTATIONS
from visionlake.jobs._label_names import is_model
from visionlake.jobs._stage import Input, Stage, WholeConfig, setting
from visionlake.jobs._whole import find_due_whole
from visionlake.udfs.split_groups import FEW_GROUPS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

READS = ("frames", "sources", "annotations", "detections")
PLACED = {c.name: c.type for c in splits.TABLE.columns if c.name not in ("split_set", "pins", "run_id")}
_SHARES_OFF = "shares of frames within 0.1 of what is asked: media that have a split keep it, new ones mend the shares"
_FLAT = 5.0  # contrast below which a picture shows so little that its hash says nothing


class Config(WholeConfig):
    """Settings of one set of splits, `[split_dataset.<name>]`."""

    shares: dict[str, float] = setting(
        {"train": 0.8, "val": 0.1, "test": 0.1}, description="parts of 1 for each split; the last is held out most"
    )
    group_by: tuple[str, ...] = setting(
        (), description="columns of a manifest; media with equal values stay together, as of one site and day"
    )
    near_duplicates: int = setting(
        4,
        ge=-1,
        le=10,
        description="media with frames whose hashes differ in at most so many bits stay together; -1: no",
    )
    stratify: str | None = setting(None, description="whose labels are balanced; unset: frames only")
    column: str | None = setting(None, description="column of a manifest that says the split of media already")
    seed: int = setting(0, description="another seed, another split of what has none yet")

    @field_validator("shares")
    @classmethod
    def _are_shares(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or any(share <= 0 for share in value.values()) or not math.isclose(sum(value.values()), 1):
            raise ValueError(f"add up to {sum(value.values()):g}; allowed are numbers above 0 that add up to 1")
        if bad := [name for name in value if not name.replace("-", "").replace("_", "").isalnum()]:
            raise ValueError(f"has {bad[0]!r}; allowed are letters, digits, - and _")
        return value


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Rows of `splits` for all media that have frames and are present, or have a split already."""
    from pyspark.sql import functions as F

    from visionlake.udfs.split_groups import place_media

    media = inputs["frames"].groupBy("media_id").agg(F.count("*").alias("frames"))
    for found in (
        _manifest(inputs, config),
        _near(inputs["frames"], config.near_duplicates),
        _counts(inputs, config),
        _before(inputs, config),
    ):
        media = media.join(found, "media_id", "left")
    # What is away for a while keeps its split.
    media = media.where("is_present OR before IS NOT NULL")
    wanted = ("media_id", "frames", "group", "near", "counts", "given", "before")
    work = partial(place_media, schema=arrow_schema(PLACED), shares=config.shares, seed=config.seed)
    together = media.select(*wanted).repartition(1).sortWithinPartitions("media_id")
    placed = together.mapInArrow(work, ", ".join(f"{name} {kind}" for name, kind in PLACED.items()))
    return inputs["due"].select("split_set", "pins").crossJoin(placed)


def _manifest(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Media, each with the group and the split that its earliest-seen source is of, the present ones before others."""
    from pyspark.sql import functions as F

    from visionlake.errors import ConfigError

    rows = inputs.get("sources")
    if rows is None:
        if config.group_by or config.column:
            raise ConfigError("group_by and column name columns of a manifest, and there is no table of sources")
        rows = inputs["frames"].select("media_id", F.lit("present").alias("state"), F.lit("").alias("uri"),
                                       F.lit(None).cast("timestamp").alias("first_seen"))  # fmt: skip
    for name in (*config.group_by, *([config.column] if config.column else [])):
        if name not in rows.columns:
            known = ", ".join(sorted({*rows.columns} - {*sources.TABLE.column_names})) or "none"
            raise ConfigError(f"there is no column {name!r} in the manifest; columns: {known}")
    values = [F.col(f"`{name}`").cast("string") for name in config.group_by]
    is_known = F.forall(F.array(*values), lambda value: value.isNotNull()) if values else F.lit(False)
    group = F.when(is_known, F.to_json(F.array(*values))) if values else F.lit(None).cast("string")
    given = F.col(f"`{config.column}`").cast("string") if config.column else F.lit(None).cast("string")
    is_present = F.col("state") == "present"
    first = F.min_by(F.struct(group.alias("group"), given.alias("given")), F.struct(~is_present, "first_seen", "uri"))
    found = rows.groupBy("media_id").agg(first.alias("first"), F.bool_or(is_present).alias("is_present"))
    return found.select("media_id", "first.group", "first.given", "is_present")


def _near(rows: DataFrame, most: int) -> DataFrame:
    """For each media the others with a frame whose hash differs in at most so many bits from that of one of its own.

    Of `most + 1` parts of two such hashes one is the same, which is what they are found by.
    """
    from pyspark.sql import functions as F

    hashes = rows.where((F.col("contrast") >= _FLAT) & F.col("phash").rlike("^[0-9a-f]{16}$"))
    if most < 0:
        hashes = hashes.limit(0)
    halves = [F.substring("phash", start, 8) for start in (1, 9)]
    bits = F.concat(*(F.lpad(F.conv(half, 16, 2), 32, "0") for half in halves)).alias("bits")
    words = [F.conv(half, 16, 10).cast("bigint").alias(name) for half, name in zip(halves, "hl", strict=True)]
    known = hashes.select("media_id", bits, *words).distinct()
    edges = [64 * part // (max(most, 0) + 1) for part in range(max(most, 0) + 2)]
    parts = F.array(
        *(
            F.struct(F.lit(place).alias("place"), F.substring("bits", start + 1, end - start).alias("part"))
            for place, (start, end) in enumerate(pairwise(edges))
        )
    )
    cut = known.select("media_id", "h", "l", F.explode(parts).alias("p"))
    one, other = cut.alias("a"), cut.alias("b")
    differ = F.bit_count(F.col("a.h").bitwiseXOR(F.col("b.h"))) + F.bit_count(F.col("a.l").bitwiseXOR(F.col("b.l")))
    pairs = one.join(other, (F.col("a.p") == F.col("b.p")) & (F.col("a.media_id") != F.col("b.media_id")))
    close = pairs.where(differ <= most).select(F.col("a.media_id"), F.col("b.media_id").alias("other")).distinct()
    return close.groupBy("media_id").agg(F.array_sort(F.collect_set("other")).alias("near"))


def _counts(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Objects by class in each media."""
    from pyspark.sql import functions as F

    name = config.stratify
    rows = inputs.get("detections" if name and is_model(name) else "annotations")
    if name is None or rows is None:
        return inputs["frames"].limit(0).select("media_id", F.lit(None).cast("map<string, bigint>").alias("counts"))
    mine = rows.where(F.col("model_id" if is_model(name) else "source") == name)
    each = mine.select("media_id", F.explode("instances.label").alias("label")).groupBy("media_id", "label").count()
    entries = F.array_sort(F.collect_list(F.struct("label", "count")))
    return each.groupBy("media_id").agg(F.map_from_entries(entries).alias("counts"))


def _before(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    from pyspark.sql import functions as F

    rows = inputs.get("splits")
    if rows is None:
        return inputs["frames"].limit(0).select("media_id", F.lit(None).cast("string").alias("before"))
    return rows.where(F.col("split_set") == config.name).select("media_id", F.col("split").alias("before"))


def measure(rows: DataFrame, parents: DataFrame, config: Config) -> DataFrame:
    """Leaks, counted in what came out, and how far splits are from what was asked."""
    from pyspark.sql import functions as F

    torn = rows.groupBy("group_id").agg(F.count_distinct("split").alias("n")).where("n > 1")
    torn = torn.agg(
        F.count("*").alias("torn_groups"), F.slice(F.collect_list("group_id"), 1, 5).alias("torn_groups_keys")
    )
    others = rows.select(F.col("media_id").alias("other"), F.col("split").alias("other_split"))
    pairs = rows.select("media_id", "split", F.explode("near").alias("other")).join(others, "other")
    leaks = pairs.where("split <> other_split AND media_id < other")
    names = F.concat_ws(" ~ ", "media_id", "other")
    leaks = leaks.agg(
        F.count("*").alias("near_pairs_across"), F.slice(F.collect_list(names), 1, 5).alias("near_pairs_across_keys")
    )
    total, groups = F.sum("frames"), F.count_distinct("group_id")
    shares = [
        F.coalesce(F.sum(F.when(F.col("split") == name, F.col("frames"))), F.lit(0)) / total for name in config.shares
    ]
    off = F.greatest(*(F.abs(share - asked) for share, asked in zip(shares, config.shares.values(), strict=True)),
                     F.lit(0.0))  # fmt: skip
    empty = sum((F.when(share > 0, 0).otherwise(1) for share in shares), start=F.lit(0))
    sizes = rows.agg(F.when(groups >= FEW_GROUPS, off).otherwise(0.0).alias("share_off"), empty.alias("empty_splits"))
    return torn.crossJoin(leaks).crossJoin(sizes)


def figures(rows: DataFrame) -> dict[str, Metric]:
    """What is told of splits: media and frames of each."""
    from pyspark.sql import functions as F

    found = rows.groupBy("split").agg(F.count("*").alias("media"), F.sum("frames").alias("frames")).orderBy("split")
    return {f"{row['split']} {name}": row[name] for row in found.collect() for name in ("media", "frames")}


def _check(name: str, metric: str, expected: str, **more: Any) -> Check:
    return Check(name=name, metric=metric, maximum=more.pop("maximum", 0), expected=expected, **more)


STAGE = Stage(
    name="split_dataset",
    summary="train, val and test that do not leak",
    config=Config,
    inputs=(
        Input(table=frames.TABLE), Input(table=sources.TABLE), Input(table=ANNOTATIONS),
        Input(table=detections.TABLE), Input(table=splits.TABLE),
    ),
    outputs=(splits.TABLE,),
    transform=transform,
    measure=measure,
    checks=(
        _check("groups_in_several_splits", "torn_groups", "what belongs together is in one split"),
        _check("near_duplicates_across_splits", "near_pairs_across", "no two splits have frames that are nearly alike"),
        _check("empty_splits", "empty_splits", "every split has media", severity="warn"),
        _check("share_off", "share_off", _SHARES_OFF, maximum=0.1, severity="warn"),
    ),
    figures=figures,
    discover=find_due_whole("split_set", reads=READS, stage="split_dataset"),
    unit="split_set",
    parent_key=("split_set",),
    names_labels={"stratify": "any"},
    is_named=True,
    is_whole=True,
)  # fmt: skip


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("split_dataset")
