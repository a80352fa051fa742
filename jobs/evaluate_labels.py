"""Evaluate labels: what models found against annotations, by COCO's measures, and a gate on how good it has to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from visionlake.expectations import detections, evaluations, frames, semantic_masks, splits
from visionlake.expectations._table import ERROR_TYPE, Check, Metric, arrow_schema
from visionlake.expectations.annotations import TABLE as ANNOTATIONS
from visionlake.jobs._stage import Input, Stage, WholeConfig, setting
from visionlake.jobs._whole import find_due_whole
from visionlake.udfs.average_precision import AVERAGES

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

KEY = frames.TABLE.key
READS = ("annotations", "detections", "semantic_masks", "splits")
_ADDED = ("truth", "splits", "frames_not_labelled", "ap_before", "score_threshold", "pins", "run_id", "evaluation")
RESULT = {c.name: c.type for c in evaluations.TABLE.columns if c.name not in _ADDED}
"""What the summary of a model says."""
_DDL = ", ".join(f"{name} {kind}" for name, kind in RESULT.items())


class Config(WholeConfig):
    """Settings of one evaluation, `[evaluate_labels.<name>]`."""

    truth: str = setting(description="the section that imports the annotations: [import_annotations.<truth>]")
    models: tuple[str, ...] | None = setting(
        None, min_length=1, description="sections of models, or whole model_ids; unset: all models of this file"
    )
    annotator: str | None = setting(None, description="whose annotations count, where a frame has several people's")
    split_set: str | None = setting(None, description="[split_dataset.<split_set>], of which `splits` are")
    splits: tuple[str, ...] = setting(("test",), min_length=1, description="splits that count, with a split_set")
    kinds: tuple[Literal["bbox", "segm", "semantic"], ...] | None = setting(
        None,
        min_length=1,
        description="what is compared; unset: boxes, masks where both have them, semantic of models without boxes",
    )
    score_threshold: float = setting(0.3, ge=0, le=1, description="from which score on confusions are counted")
    min_ap: float | None = setting(
        None, affects_output=False, ge=0, le=1, description="least ap (or mean iou) of every model; unset: none"
    )
    max_drop: float | None = setting(
        None, affects_output=False, ge=0, le=1, description="how far ap of a class may fall below the last accepted one"
    )


def checks(config: Config) -> tuple[Check, ...]:
    """The checks that the settings ask for."""
    found = []
    if config.min_ap is not None:
        found.append(
            Check(name="min_ap", metric="least_ap", minimum=config.min_ap, expected=f"ap of at least {config.min_ap:g}")
        )
    if config.max_drop is not None:
        words = f"no class more than {config.max_drop:g} below the last accepted result"
        found.append(Check(name="max_drop", metric="largest_drop", maximum=config.max_drop, expected=words))
    if found:
        words = "every model has labels of frames that are annotated"
        found.append(Check(name="all_compared", metric="errors:nothing_to_compare", maximum=0, expected=words))
    return tuple(found)


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Rows of `evaluations` for each model, or an error for one that there is nothing to say of."""
    from pyspark.sql import functions as F

    due, spark = inputs["due"], inputs["due"].sparkSession
    truth = _truth(inputs, config)
    models = spark.createDataFrame([(model,) for model in config.models or ()], "model_id string")
    results = _results(inputs, config, truth)
    looked = results.where("label IS NULL").groupBy("model_id", "kind").agg(F.max("frames").alias("_looked"))
    found = models.join(results, "model_id", "left").join(F.broadcast(looked), ["model_id", "kind"], "left")
    found = found.crossJoin(F.broadcast(truth.agg(F.count("*").alias("_annotated"))))
    before = _before(inputs, config)
    name = F.substring_index("model_id", "@", 1)
    found = found.withColumn("_name", name).join(
        F.broadcast(before),
        (F.col("_name") == F.col("b_name")) & (F.col("kind") == F.col("b_kind"))
        & F.col("label").eqNullSafe(F.col("b_label")),
        "left",
    )  # fmt: skip
    where = f" in {', '.join(config.splits)} of {config.split_set}" if config.split_set else ""
    words = f"no frame{where} is both annotated by {config.truth!r} and labelled by this model"
    error = F.when(
        F.col("kind").isNull(),
        F.struct(F.lit("nothing_to_compare").alias("reason"), F.lit(words).alias("message"), _null("payload")),
    )
    split = F.array(*map(F.lit, config.splits)) if config.split_set else F.lit(None).cast("array<string>")
    return due.crossJoin(F.broadcast(found)).select(
        F.col("evaluation"),
        *(F.col(name) for name in RESULT),
        F.lit(config.truth).alias("truth"),
        split.alias("splits"),
        F.when(F.col("label").isNull(), F.col("_annotated") - F.col("_looked")).alias("frames_not_labelled"),
        F.col("ap_before"),
        F.lit(config.score_threshold).alias("score_threshold"),
        F.col("pins"),
        error.cast(ERROR_TYPE).alias("error"),
    )


def _null(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.lit(None).cast("string").alias(name)


def _truth(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """The annotated frames that count, each with what one annotator says of it: the first by name."""
    from pyspark.sql import functions as F

    rows = inputs["annotations"].where(F.col("source") == config.truth)
    if config.annotator is not None:
        rows = rows.where(F.col("annotator") == config.annotator)
    said = F.struct("instances", "full_width_px", "full_height_px")
    rows = rows.groupBy(*KEY).agg(F.min_by(said, F.coalesce("annotator", F.lit(""))).alias("said"))
    rows = rows.select(*KEY, F.col("said.instances").alias("truth"), "said.full_width_px", "said.full_height_px")
    if config.split_set is None:
        return rows
    wanted = inputs["splits"].where((F.col("split_set") == config.split_set) & F.col("split").isin(*config.splits))
    return rows.join(wanted.select("media_id").distinct(), "media_id", "left_semi")


def _results(inputs: Mapping[str, DataFrame], config: Config, truth: DataFrame) -> DataFrame:
    """The summaries of all models and kinds."""
    parts = []
    shapes = [kind for kind in config.kinds or ("bbox", "segm") if kind != "semantic"]
    if "detections" in inputs and shapes:
        parts.append(_instance_results(inputs["detections"], config, truth, shapes))
    if "semantic_masks" in inputs and "semantic" in (config.kinds or ("semantic",)):
        labels = inputs["semantic_masks"]
        if config.kinds is None and "detections" in inputs:  # of those that have objects nobody has asked
            labels = labels.join(inputs["detections"].select("model_id").distinct(), "model_id", "left_anti")
        parts.append(_semantic_results(labels, config, truth))
    if not parts:
        return truth.sparkSession.createDataFrame([], _DDL)
    return parts[0] if len(parts) == 1 else parts[0].unionByName(parts[1])


def _instance_results(labels: DataFrame, config: Config, truth: DataFrame, kinds: Sequence[Any]) -> DataFrame:
    from pyspark.sql import functions as F

    from visionlake.udfs.match_labels import MATCHES_DDL, match_frames
    from visionlake.udfs.summarise_labels import summarise_class, summarise_model

    rows = labels.where(F.col("model_id").isin(*(config.models or ())))
    rows = rows.select(*KEY, "model_id", F.col("instances").alias("found"), "frame_width_px", "frame_height_px")
    pairs = rows.join(truth, list(KEY))
    work = partial(match_frames, kinds=tuple(kinds), score_threshold=config.score_threshold)
    matches = pairs.mapInArrow(work, MATCHES_DDL)
    schema = arrow_schema(RESULT)
    by_class = matches.groupBy("model_id", "kind", "label").applyInArrow(summarise_class(schema), _DDL)
    results = by_class.groupBy("model_id", "kind").applyInArrow(summarise_model(schema), _DDL)
    if config.kinds is not None:
        return results
    # Frames without an object have no mask that is missing: only where some object has one is there a kind to speak of.
    has_masks = pairs.groupBy("model_id").agg(
        (F.bool_or(_any_mask("truth")) & F.bool_or(_any_mask("found"))).alias("_has_masks")
    )
    known = results.join(F.broadcast(has_masks), "model_id")
    return known.where((F.col("kind") != "segm") | F.col("_has_masks")).drop("_has_masks")


def _any_mask(column: str) -> Column:
    from pyspark.sql import functions as F

    return F.exists(column, lambda each: each["mask"].isNotNull())


def _semantic_results(labels: DataFrame, config: Config, truth: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    from visionlake.udfs.semantic_overlap import OVERLAP_DDL, overlap_frames

    rows = labels.where(F.col("model_id").isin(*(config.models or ()))).select(*KEY, "model_id", "regions")
    overlaps = rows.join(truth, list(KEY)).mapInArrow(overlap_frames, OVERLAP_DDL)
    sums = overlaps.groupBy("model_id", "label").agg(
        F.count("*").alias("frames"), (F.sum("shared_px") / F.nullif(F.sum("either_px"), F.lit(0))).alias("iou")
    )
    mean = sums.where("label IS NOT NULL").groupBy("model_id").agg(F.avg("iou").alias("_mean"))
    sums = sums.join(mean, "model_id", "left")
    iou = F.when(F.col("label").isNull(), F.col("_mean")).otherwise(F.col("iou"))
    told = {"model_id": F.col("model_id"), "kind": F.lit("semantic"), "label": F.col("label"),
            "frames": F.col("frames"), "iou": iou}  # fmt: skip
    return sums.select(*((told.get(name, F.lit(None)).cast(kind)).alias(name) for name, kind in RESULT.items()))


def _before(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """The ap (or iou) of the last accepted result, by the name of the model: its version may be another by now."""
    from pyspark.sql import functions as F

    rows = inputs.get("evaluations")
    if rows is None:
        return inputs["due"].sparkSession.createDataFrame(
            [], "b_name string, b_kind string, b_label string, ap_before double"
        )
    mine = rows.where(F.col("evaluation") == config.name)
    name = F.substring_index("model_id", "@", 1).alias("b_name")
    keys = (name, F.col("kind").alias("b_kind"), F.col("label").alias("b_label"))
    return mine.groupBy(*keys).agg(F.max(F.coalesce("ap", "iou")).alias("ap_before"))


def measure(rows: DataFrame, parents: DataFrame, config: Config) -> DataFrame:
    """The least ap of a model, and the largest drop of a class, each with the names of what it is of."""
    from pyspark.sql import functions as F

    value = F.coalesce("ap", "iou")
    now = F.coalesce(value, F.lit(0.0))
    what = F.concat_ws(" ", "model_id", "kind", "label")
    # A class that there is nothing of any more has no ap, and has not become worse.
    is_whole, drop = F.col("label").isNull(), F.col("ap_before") - value
    too_low = is_whole & (now < F.lit(config.min_ap))
    too_deep = drop > F.lit(config.max_drop)
    return rows.agg(
        F.min(F.when(is_whole, now)).alias("least_ap"),
        F.collect_set(F.when(too_low, what)).alias("least_ap_keys"),
        F.coalesce(F.max(drop), F.lit(0.0)).alias("largest_drop"),
        F.collect_set(F.when(too_deep, what)).alias("largest_drop_keys"),
    )


def figures(rows: DataFrame) -> dict[str, Metric]:
    """What is told of a result: for each model and kind its averages over all classes."""
    names = ("ap", "ap50", "ap75", "iou", *(name for name in AVERAGES if name not in ("ap", "ap50", "ap75")))
    whole = rows.where("label IS NULL").orderBy("model_id", "kind").select("model_id", "kind", *names)
    return {
        f"{row['model_id'].partition('@')[0]} {row['kind']} {name}": row[name]
        for row in whole.collect()
        for name in names
        if row[name] is not None
    }


STAGE = Stage(
    name="evaluate_labels",
    summary="how good labels are against annotations",
    config=Config,
    inputs=(
        Input(table=ANNOTATIONS), Input(table=detections.TABLE), Input(table=semantic_masks.TABLE),
        Input(table=splits.TABLE), Input(table=evaluations.TABLE),
    ),
    outputs=(evaluations.TABLE,),
    transform=transform,
    measure=measure,
    checks_for=checks,
    figures=figures,
    discover=find_due_whole("evaluation", reads=READS, stage="evaluate_labels"),
    unit="evaluation",
    parent_key=("evaluation",),
    names_labels={"truth": "annotations", "models": "models"},
    is_named=True,
    is_whole=True,
)  # fmt: skip


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("evaluate_labels")
