"""Export data sets: frames with chosen labels, in the formats that people train with, the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from visionlake import __version__
from visionlake.errors import ConfigError
from visionlake.expectations import detections, export_files, exports, frames, media, sources, splits
from visionlake.expectations._table import ERROR_TYPE, Check
from visionlake.expectations.annotations import TABLE as ANNOTATIONS
from visionlake.jobs._again import with_places
from visionlake.jobs._label_names import is_model
from visionlake.jobs._predicate import check_predicate, tables_named
from visionlake.jobs._schemas import fitted, struct_type
from visionlake.jobs._stage import Input, Stage, WholeConfig, setting
from visionlake.jobs._whole import find_due_whole
from visionlake.udfs.export_formats import find_format, format_names
from visionlake.udfs.export_types import Category, ExportPlan, Task
from visionlake.udfs.uris import display, has_secret, join, local_path, to_uri

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from visionlake.jobs._stage import Discovery

KEY = frames.TABLE.key
READS = ("frames", "media", "sources", "annotations", "detections", "splits")
MANIFEST, SUCCESS = "manifest.json", "_SUCCESS"
_INSTANCES = next(c.type for c in ANNOTATIONS.columns if c.name == "instances")
_UNSPLIT = "train"
_PLACE = "struct<first_seen timestamp, uri string, size_bytes bigint, mtime timestamp>"
_PLACES = {
    "kind": "string", "uri": "string", "size_bytes": "bigint", "mtime": "timestamp", "elsewhere": f"array<{_PLACE}>",
}  # fmt: skip
_SAMPLE = (
    *KEY, "pts_s", "pts_source", "pts_offset", "frame_index", "width_px", "height_px", "full_width_px",
    "full_height_px", "brightness", "contrast", "sharpness", "phash", "image_format",
)  # fmt: skip


class Config(WholeConfig):
    """Settings of one export, `[export_dataset.<name>]`."""

    format: str = setting(description=f"one of {', '.join(format_names())}")
    to: str = setting(is_path=True, min_length=1, description="folder, in which each version gets a folder of its own")
    labels: tuple[str, ...] | None = setting(
        None,
        min_length=1,
        description="sections that import annotations, sections of models, model_ids; a frame has those of the first "
        "that has looked at it; unset: all of this file, people's, then fusions', then models'",
    )
    task: Task | None = setting(None, description="detection or segmentation; unset: what the format can hold best")
    split_set: str | None = setting(None, description="[split_dataset.<split_set>]; unset: all of it is train")
    splits: tuple[str, ...] | None = setting(None, min_length=1, description="splits to hand over; unset: all")
    classes: tuple[str, ...] | None = setting(
        None, min_length=1, description="classes to hand over, in the order of their ids; unset: all that there are"
    )
    min_score: float = setting(0.0, ge=0, le=1, description="least score of what models found")
    where: str | None = setting(None, description="SQL predicate over columns of frames, as in brightness > 20")
    unlabelled: bool = setting(False, description="whether frames without labels of anyone are handed over, as empty")
    shard_frames: int = setting(1000, gt=0, le=100_000, description="frames that are written together")
    max_pixels: int = setting(100_000_000, affects_output=False, gt=0, description="limit of pixels of a frame")

    @field_validator("format")
    @classmethod
    def _is_known(cls, value: str) -> str:
        find_format(value)
        return value

    @field_validator("to")
    @classmethod
    def _is_open(cls, value: str) -> str:
        if has_secret(to_uri(value)):
            raise ValueError("holds a secret, which would get into tables; credentials come from the environment")
        return value

    @field_validator("where")
    @classmethod
    def _is_predicate(cls, value: str | None) -> str | None:
        if value is not None:
            check_predicate(value)
            if others := tables_named(value):
                raise ValueError(f"asks {', '.join(others)}; allowed are columns of frames")
        return value

    def resolved_task(self) -> Task:
        """What is handed over. Raises ConfigError where the format cannot hold it."""
        tasks = find_format(self.format).TASKS
        if self.task is not None and self.task not in tasks:
            raise ConfigError(f"task = {self.task!r}: {self.format} holds {' or '.join(tasks)}")
        return self.task or tasks[-1]


def pin(config: Config) -> Config:
    """The settings for one run: checked, and with the task that the format holds. Raises ConfigError."""
    folder = local_path(to_uri(config.to))
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
        raise ConfigError(f"to = {config.to!r} is a file; allowed is a folder, which need not be there yet")
    return config.model_copy(update={"task": config.resolved_task()})


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Writes the files, and gives rows of `exports` and `export_files`, or errors of frames that are left out.

    The set is not whole before `deliver`: its folder says so by the file that it lacks.
    """
    from pyspark.sql import functions as F

    from visionlake.udfs.export_target import remove
    from visionlake.udfs.write_export import FILE_DDL, ExportJob, write_set, write_shards, write_splits

    due = inputs["due"]
    pins = {**due.collect()[0]["pins"]}
    folder = folder_of(config, pins)
    remove(join(folder, SUCCESS))  # until it is whole again
    # Looked at several times, and small: without pictures.
    samples = _in_shards(_samples(inputs, config).localCheckpoint(), config).localCheckpoint()
    _check_tracks(samples, config)
    plan = _plan(samples, config)
    job = ExportJob(format=config.format, plan=plan, folder=folder, limits=_limits(config))
    whole = _join_pictures(samples, inputs["frames"]).repartition("split", "shard")
    shards = whole.sortWithinPartitions("split", "shard", *KEY).mapInArrow(partial(write_shards, job=job), FILE_DDL)
    # What tells of the set has to know which pictures could be had, so they are written first; what is kept is small.
    shards = shards.localCheckpoint()
    samples = _written(samples, shards)
    plan = replace(plan, splits=_splits(samples))
    job = replace(job, plan=plan)
    by_split = samples.repartition("split").sortWithinPartitions("split", *KEY)
    told = by_split.mapInArrow(partial(write_splits, job=job), FILE_DDL)
    files = shards.unionByName(told).unionByName(due.mapInArrow(partial(write_set, job=job), FILE_DDL))
    name = F.lit(config.name).alias("export")
    error = F.when(F.col("reason").isNotNull(), F.struct("reason", "message", F.lit(None).cast("string")))
    file = F.struct(name, "path", "size_bytes", "sha256", F.lit(None).cast("string").alias("run_id"))
    rows = files.select(
        name,
        F.when(F.col("reason").isNull(), file).alias("export_files"),
        "output_key",
        error.cast(ERROR_TYPE).alias("error"),
    )
    summary = _summary(samples, plan, config, folder=folder, pins=pins)
    return rows.unionByName(summary, allowMissingColumns=True)


def folder_of(config: Config, pins: Mapping[str, int]) -> str:
    """The URI of the folder for a data set of these settings and versions."""
    shaping = {"settings": settings_of(config), "pins": {**pins}}
    digest = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:12]
    return join(to_uri(config.to), digest)


def settings_of(config: Config) -> dict[str, Any]:
    """The settings that shape a data set."""
    left_out = {*WholeConfig.model_fields, "to", "max_pixels"}
    return {name: value for name, value in config.model_dump(mode="json").items() if name not in left_out}


def _limits(config: Config) -> Any:
    from visionlake.udfs.frame_types import Limits

    return Limits(max_pixels=config.max_pixels)


def _samples(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """The frames that are handed over, with split, labels, and where their media lie; without pictures."""
    from pyspark.sql import functions as F

    rows = inputs["frames"].drop("image", "input_version", "run_id")
    if config.where is not None:
        rows = rows.where(F.expr(config.where))
    rows = rows.select(*_SAMPLE)
    labels = _labels(inputs, config)
    rows = rows.join(labels, list(KEY), "left" if config.unlabelled else "inner")
    if config.split_set is None:
        rows = rows.withColumn("split", F.lit(_UNSPLIT))
    else:
        given = inputs["splits"].where(F.col("split_set") == config.split_set).select("media_id", "split")
        rows = rows.join(given if config.splits is None else given.where(F.col("split").isin(*config.splits)),
                         "media_id")  # fmt: skip
    rows = rows.withColumns(
        {
            "instances": F.coalesce("instances", F.array().cast(_INSTANCES)),
            "labelled_by": F.coalesce("labelled_by", F.lit("nobody")),
            "from_width_px": F.coalesce("from_width_px", "width_px"),
            "from_height_px": F.coalesce("from_height_px", "height_px"),
        }
    )
    if not {"media", "sources"} <= {*inputs}:
        return rows.withColumns({name: F.lit(None).cast(kind) for name, kind in _PLACES.items()})
    facts = with_places(inputs["media"].select("media_id", "kind"), inputs["sources"])
    return rows.join(facts, "media_id", "left")


def _labels(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Per frame the labels of the first in the list that has looked at it."""
    from pyspark.sql import functions as F

    parts = []
    names = config.labels or ()
    for place, name in enumerate(names):
        part = (
            _of_model(inputs.get("detections"), name, min_score=config.min_score)
            if is_model(name)
            else _of_people(inputs.get("annotations"), name)
        )
        if part is not None:
            parts.append(part.withColumns({"labelled_by": F.lit(name), "_rank": F.lit(place)}))
    if not parts:
        raise ConfigError(
            f"labels: there are none of {', '.join(names)} in the lake yet"
            if names
            else "labels is not set, and no section of this file labels; name a model_id, or add a section"
        )
    rows = parts[0]
    for part in parts[1:]:
        rows = rows.unionByName(part)
    values = [name for name in rows.columns if name not in (*KEY, "_rank", "_who")]
    first = rows.groupBy(*KEY).agg(F.min_by(F.struct(*values), F.struct("_rank", "_who")).alias("first"))
    found = first.select(*KEY, "first.*")
    if config.classes is None:
        return found
    classes = config.classes
    return found.withColumn("instances", F.filter("instances", lambda each: each["label"].isin(*classes)))


def _of_people(rows: DataFrame | None, source: str) -> DataFrame | None:
    from pyspark.sql import functions as F

    if rows is None:
        return None
    return rows.where(F.col("source") == source).select(
        *KEY, _instances(rows), "attributes", "image_name", F.col("full_width_px").alias("from_width_px"),
        F.col("full_height_px").alias("from_height_px"), F.coalesce("annotator", F.lit("")).alias("_who"),
    )  # fmt: skip


def _of_model(rows: DataFrame | None, model: str, *, min_score: float) -> DataFrame | None:
    from pyspark.sql import functions as F

    if rows is None:
        return None
    # A score that is not known is not too low.
    kept = F.filter(_instances(rows), lambda each: F.coalesce(each["score"] >= F.lit(min_score), F.lit(True)))
    return rows.where(F.col("model_id") == model).select(
        *KEY, kept.alias("instances"), F.lit(None).cast("map<string, string>").alias("attributes"),
        F.lit(None).cast("string").alias("image_name"), F.col("frame_width_px").alias("from_width_px"),
        F.col("frame_height_px").alias("from_height_px"), F.lit("").alias("_who"),
    )  # fmt: skip


def _instances(rows: DataFrame) -> Any:
    from pyspark.sql import functions as F

    wanted = struct_type(f"instances {_INSTANCES}")["instances"].dataType
    return fitted(F.col("instances"), rows.schema["instances"].dataType, wanted).alias("instances")


def _in_shards(samples: DataFrame, config: Config) -> DataFrame:
    """The samples with the number of their shard in the split: some frames after each other, or a sequence."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    split = Window.partitionBy("split")
    if find_format(config.format).UNIT == "sequence":
        number = F.dense_rank().over(split.orderBy("media_id", "stream_index")) - 1
    else:
        number = F.floor((F.row_number().over(split.orderBy(*KEY)) - 1) / config.shard_frames)
    keys = samples.select(*KEY, "split").withColumn("shard", number.cast("int")).drop("split")
    return samples.join(keys, list(KEY))


def _join_pictures(samples: DataFrame, stored: DataFrame) -> DataFrame:
    """The samples, each with its picture of the frames `stored`, or null.

    Pictures that are alike are small in files and large in memory: Spark would take them for what it can broadcast.
    """
    return samples.hint("merge").join(stored.select(*KEY, "image"), list(KEY))


def _written(samples: DataFrame, shards: DataFrame) -> DataFrame:
    """The samples without those whose pictures could not be had, as the rows of the shards say."""
    from pyspark.sql import functions as F

    lacking = shards.where("reason IS NOT NULL").select("output_key")
    if lacking.isEmpty():
        return samples
    key = F.concat_ws("/", *(F.col(name).cast("string") for name in KEY))
    return samples.withColumn("output_key", key).join(lacking, "output_key", "left_anti").drop("output_key")


def _check_tracks(samples: DataFrame, config: Config) -> None:
    """Raises ConfigError where a format of sequences is to hold objects that are on no track."""
    from pyspark.sql import functions as F

    alone = F.exists("instances", lambda each: each["track_id"].isNull())
    if find_format(config.format).UNIT == "sequence" and not samples.where(alone).isEmpty():
        raise ConfigError(f"format = {config.format!r} is for tracks, and there are objects without a track_id")


def _plan(samples: DataFrame, config: Config) -> ExportPlan:
    """Classes with ids, and splits. Ids are those of the labels where each class has one of its own, else from 1."""
    from pyspark.sql import functions as F

    each = samples.select(F.explode("instances").alias("i")).select("i.label", "i.label_id", "i.keypoints")
    points = F.transform("keypoints", lambda point: point["name"])
    names = F.array_distinct(F.flatten(F.array_sort(F.collect_set(points))))
    rows = each.groupBy("label").agg(
        F.min("label_id").alias("least"), F.max("label_id").alias("most"), names.alias("keypoints")
    )
    found = {row["label"]: row for row in rows.collect()}
    labels = list(config.classes) if config.classes is not None else sorted(found)
    ids: Sequence[Any] = [found[label]["least"] if label in found else None for label in labels]
    is_clear = (
        None not in ids and len({*ids}) == len(ids) and all(row["least"] == row["most"] for row in found.values())
    )
    if config.classes is not None or not is_clear:
        ids = range(1, len(labels) + 1)
    points = {label: tuple(found[label]["keypoints"] or ()) if label in found else () for label in labels}
    categories = sorted(
        (Category(id=i, name=label, keypoints=points[label]) for i, label in zip(ids, labels, strict=True)),
        key=lambda category: category.id,
    )
    return ExportPlan(
        name=config.name, task=config.resolved_task(), categories=tuple(categories), splits=_splits(samples)
    )


def _splits(samples: DataFrame) -> tuple[str, ...]:
    return tuple(sorted(row["split"] for row in samples.select("split").distinct().collect()))


def _summary(
    samples: DataFrame, plan: ExportPlan, config: Config, *, folder: str, pins: Mapping[str, int]
) -> DataFrame:
    """The row of `exports`."""
    from pyspark.sql import functions as F

    from visionlake.jobs._schemas import to_spark

    count = F.sum(F.size("instances")).alias("objects")
    by_split = samples.groupBy("split").agg(F.count("*").alias("frames"), count).orderBy("split").collect()
    by_label = samples.select(F.explode("instances.label").alias("label")).groupBy("label").count().collect()
    by_source = samples.groupBy("labelled_by").count().orderBy("labelled_by").collect()
    objects = {row["label"]: row["count"] for row in by_label}
    row = {
        "export": config.name,
        "exports": {
            "export": config.name,
            "uri": folder,
            "format": config.format,
            "task": plan.task,
            "splits": [row.asDict() for row in by_split],
            "classes": [{"id": c.id, "label": c.name, "objects": objects.get(c.name, 0)} for c in plan.categories],
            "frames": sum(row["frames"] for row in by_split),
            "objects": sum(row["objects"] for row in by_split),
            "labelled_by": [{"labels": row["labelled_by"], "frames": row["count"]} for row in by_source],
            "settings": json.dumps(settings_of(config), sort_keys=True),
            "pins": [*pins.items()],
        },
    }
    import pyarrow as pa

    schema = pa.schema([("export", pa.string()), ("exports", pa.struct(list(exports.TABLE.arrow_schema())))])
    return to_spark(samples.sparkSession, [row], schema)


def deliver(rows: Mapping[str, DataFrame], config: Config) -> str | None:
    """Complete the data set: its manifest, and last the file which says that it is whole. Returns its folder."""
    from visionlake.udfs.export_target import FolderTarget, tidy

    folder = None
    for export in rows["exports"].collect():
        folder = display(export["uri"])
        tidy(export["uri"])
        target = FolderTarget(export["uri"])
        with target.open(MANIFEST) as file:
            file.write(_head(export).encode())
            files = (
                rows["export_files"].where("path IS NOT NULL").orderBy("path").select("path", "size_bytes", "sha256")
            )
            for place, each in enumerate(files.toLocalIterator()):
                file.write(f"{',' if place else ''}\n{json.dumps(each.asDict())}".encode())
            file.write(b"\n]}\n")
        target.write(SUCCESS, b"")
    return folder


def _head(export: Any) -> str:
    """The manifest up to its list of files."""
    values = {
        name: export[name]
        for name in ("export", "format", "task", "frames", "objects", "splits", "classes", "labelled_by")
    }
    plain = {name: [each.asDict() for each in v] if isinstance(v, list) else v for name, v in values.items()}
    told = {**plain, "settings": json.loads(export["settings"]), "pins": dict(sorted(export["pins"].items()))}
    told["visionlake"] = __version__
    return json.dumps(told, indent=1, sort_keys=True).removesuffix("\n}") + ',\n "files": ['


def measure(rows: DataFrame, parents: DataFrame, config: Config) -> DataFrame:
    """How many of the classes have no object, and which these are."""
    from pyspark.sql import functions as F

    empty = rows.select(F.explode("classes").alias("each")).where("each.objects = 0").select("each.label")
    return empty.agg(F.count("*").alias("empty_classes"), F.collect_list("label").alias("empty_classes_keys"))


def figures(rows: DataFrame) -> dict[str, int]:
    """What is told of an export."""
    return {
        name: value
        for row in rows.select("frames", "objects").collect()
        for name, value in (("frames", row["frames"]), ("objects", row["objects"]))
    }


def find_due(discovery: Discovery) -> DataFrame:
    """The export, where what it is made of has changed, or the data set is not there."""
    from visionlake.udfs.export_target import exists

    lake, name = discovery.lake, discovery.config.name
    found = find_due_whole("export", reads=READS, stage="export_dataset")(discovery)
    if not found.isEmpty() or not lake.exists("exports"):
        return found
    made = [row["uri"] for row in lake.table("exports").where(f"export = '{name}'").collect()]
    is_lost = any(not exists(join(uri, SUCCESS)) for uri in made)
    return discovery.spark.createDataFrame([(name,)] if is_lost else [], "export string")


STAGE = Stage(
    name="export_dataset",
    summary="data sets in the formats that people train with",
    config=Config,
    inputs=(
        Input(table=frames.TABLE), Input(table=media.TABLE), Input(table=sources.TABLE), Input(table=ANNOTATIONS),
        Input(table=detections.TABLE), Input(table=splits.TABLE),
    ),
    outputs=(exports.TABLE, export_files.TABLE),
    transform=transform,
    deliver=deliver,
    measure=measure,
    checks=(
        Check(
            name="empty_classes", metric="empty_classes", maximum=0, severity="warn", expected="every class has objects"
        ),
    ),
    figures=figures,
    discover=find_due,
    pin=pin,
    unit="export",
    parent_key=("export",),
    names_labels={"labels": "any"},
    is_named=True,
    is_whole=True,
)  # fmt: skip


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("export_dataset")
