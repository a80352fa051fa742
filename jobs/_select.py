"""`select`: the frames that a model labels, by a SQL predicate over frames, media and what other models found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from visionlake.errors import ConfigError
from visionlake.expectations import frames, media
from visionlake.expectations._table import Table

from ._label_names import find_label_section, label_sections
from ._predicate import FRAME_COLUMNS, MEDIA, MEDIA_COLUMNS, MODELS, named_models, tables_named, with_models
from ._record import producer_of
from ._schemas import struct_type
from ._sections import with_producers
from ._stage import Named, Stage, StageConfig
from ._stages import one_of, sections_by_name

if TYPE_CHECKING:
    from pyspark.errors import PySparkException
    from pyspark.sql import Column, DataFrame, SparkSession

    from ._lake import Lake

Stages = Sequence[tuple[Stage, StageConfig]]

KEY = frames.TABLE.key
LOOK = "struct<top_score: double, instance_count: int, labels: array<string>>"
"""What a model found in a frame: null where it has not looked; without a `top_score` where it found nothing."""


def predicate_of(stage: Stage, config: StageConfig) -> str | None:
    """The predicate that narrows a stage's parents, if it has one."""
    return getattr(config, stage.narrow) if stage.narrow else None


def pin_predicates(stages: Stages, chosen: Stages, lake: Lake) -> Stages:
    """The chosen stages, in their predicates each model by its `model_id`. Raises ConfigError for what cannot be asked.

    So a section that has got another model changes the predicates that name it. `stages` are all of the pipeline.
    """
    pinned: list[tuple[Stage, StageConfig]] = []
    for stage, config in chosen:
        text = predicate_of(stage, config)
        if stage.narrow and text is not None:
            try:
                text = with_models(text, _ids(named_models(text), stages, lake))
                _check_with_spark(text, lake.spark)
            except (ConfigError, ValueError) as error:
                given = predicate_of(stage, config)
                raise ConfigError(f"[{stage.label}] {stage.narrow} = {given!r}: {error}") from None
            config = config.model_copy(update={stage.narrow: text})
        pinned.append((stage, config))
    return pinned


def model_ids(stages: Stages, names: Collection[str] | None = None) -> dict[str, str]:
    """The `model_id` of each name that sections of models have; of `names` only, if they are given.

    Raises ConfigError for a section whose model cannot be found.
    """
    found = {}
    for stage, config in stages:
        called = [n for n, labels in sections_by_name(s for s, _ in stages).items() if labels == [stage.label]]
        if called := [name for name in called if names is None or name in names]:
            config = with_producers(stage, stage.pin(config) if stage.pin else config, stages)
            found |= dict.fromkeys(called, producer_of(stage, config))
    return found


def with_label_names(stage: Stage, config: StageConfig, stages: Stages) -> StageConfig:
    """The settings, with model ids and names of sources for sections. Raises ConfigError where one is unknown."""
    changed = {}
    for key, named in stage.names_labels.items():
        value = getattr(config, key)
        if value is None and config.takes_list(key):
            value = label_sections((other for other, _ in stages), named=named)
        if isinstance(value, tuple):
            changed[key] = tuple(_pinned(name, stages, named) for name in value)
        elif value is not None:
            changed[key] = _pinned(value, stages, named)
    return config.model_copy(update=changed) if changed else config


def _pinned(name: str, stages: Stages, named: Named) -> str:
    by_label = {stage.label: stage for stage, _ in stages}
    label = find_label_section(name, by_label.values(), named=named)
    if label is None:
        return name
    stage = by_label[label]
    if not stage.producer:
        return stage.instance or stage.name
    try:
        return model_ids(stages, {label})[label]
    except ConfigError as error:
        raise ConfigError(f"needs [{label}]: {error}") from error


def ids_in_lake(lake: Lake, table: str = "detections") -> list[str]:
    """The models that have labels."""
    if not lake.exists(table):
        return []
    return sorted(row["model_id"] for row in lake.table(table).select("model_id").distinct().collect())


def _ids(names: Sequence[str], stages: Stages, lake: Lake) -> dict[str, str]:
    found = model_ids(stages, names)
    if rest := [name for name in names if name not in found]:
        there = ids_in_lake(lake)
        sections = sorted(sections_by_name(stage for stage, _ in stages))
        for name in rest:
            if name not in there:
                raise ConfigError(f"no model {name!r} in the pipeline or the lake; {one_of(name, [*sections, *there])}")
    return found | {name: name for name in rest}


def _check_with_spark(text: str, spark: SparkSession) -> None:
    """Raises ConfigError for a predicate that Spark cannot read, or that is no condition."""
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    try:
        kind = spark.createDataFrame([], struct_type(_ddl())).select(F.expr(text)).schema[0].dataType.simpleString()
    except PySparkException as error:
        raise ConfigError(in_words(error)) from None
    if kind != "boolean":
        raise ConfigError(f"gives {kind}; allowed is a condition, true or false")


def in_words(error: PySparkException) -> str:
    """What Spark has against a predicate, in a line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("==", "JVM")))[:500].split(" SQLSTATE")[0]


def _ddl() -> str:
    columns = [f"`{c.name}` {c.type}" for c in frames.TABLE.pick(*FRAME_COLUMNS)]
    return ", ".join([*columns, f"{MEDIA} {_media_type()}", f"{MODELS} map<string, {LOOK}>"])


def _media_type() -> str:
    return f"struct<{', '.join(f'{c.name}: {c.type}' for c in media.TABLE.pick(*MEDIA_COLUMNS))}>"


def selected(rows: DataFrame, text: str | None, lake: Lake) -> DataFrame:
    """Keys of frames with `_selected`: whether the predicate holds, which it does not where it is null.

    Without a predicate every frame is selected.
    """
    from pyspark.sql import functions as F

    if text is None:
        return rows.select(*KEY, F.lit(True).alias("_selected"))
    named, names = tables_named(text), named_models(text)
    asked = rows.select(*_as_declared(rows, frames.TABLE, FRAME_COLUMNS))
    if "media" in named and lake.exists("media"):
        facts = lake.table("media")
        known = facts.select("media_id", F.struct(*_as_declared(facts, media.TABLE, MEDIA_COLUMNS)).alias(MEDIA))
        asked = asked.join(known, "media_id", "left")
    if "detections" in named and lake.exists("detections"):
        asked = asked.join(_looks(lake, names), list(KEY), "left")
    for name, kind in ((MEDIA, _media_type()), (MODELS, f"map<string, {LOOK}>")):
        if name not in asked.columns:
            asked = asked.withColumn(name, F.lit(None).cast(kind))
    return asked.select(*KEY, F.coalesce(F.expr(text), F.lit(False)).alias("_selected"))


def _as_declared(rows: DataFrame, table: Table, names: Sequence[str]) -> list[Column]:
    """Columns of a table, null where it was written before they were declared."""
    from pyspark.sql import functions as F

    columns = table.pick(*names)
    return [(F.col(c.name) if c.name in rows.columns else F.lit(None).cast(c.type)).alias(c.name) for c in columns]


def _looks(lake: Lake, models: Sequence[str]) -> DataFrame:
    """Per frame what these models found in it, by `model_id`."""
    from pyspark.sql import functions as F

    look = F.struct(
        F.array_max(F.transform("instances", lambda i: i["score"])).alias("top_score"),
        F.size("instances").alias("instance_count"),
        F.transform("instances", lambda i: i["label"]).alias("labels"),
    )
    rows = lake.table("detections").where(F.col("model_id").isin(list(models)))
    each = rows.select(*KEY, F.struct("model_id", look.alias("look")).alias("entry"))
    return each.groupBy(*KEY).agg(F.map_from_entries(F.collect_list("entry")).alias(MODELS))
