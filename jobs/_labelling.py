"""What all stages have in common that let a model label frames: settings, who the model is, running it on executors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import field_serializer, field_validator

from visionlake.errors import ConfigError
from visionlake.expectations import frames, media, sources
from visionlake.expectations._table import ERROR_TYPE, Column, arrow_schema
from visionlake.udfs._errors import ModelError, first_line
from visionlake.udfs._mlflow import address_without_secrets
from visionlake.udfs.detector_types import Backend, DetectOptions, Precision
from visionlake.udfs.uris import ADDRESS, to_uri

from ._again import parts_of
from ._decoding import DecodingConfig
from ._gpu import on_own_gpu
from ._ontology import OntologySection
from ._predicate import check_predicate
from ._stage import Input, setting

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = frames.TABLE.key
INPUTS = (
    Input(table=frames.TABLE, depends_on=("image", "width_px", "height_px")),
    Input(table=media.TABLE),  # of frames by reference, as the next
    Input(table=sources.TABLE),
)
_FRAMES_PER_TASK = 16


class LabelConfig(DecodingConfig):
    """Settings of one model; the decoder's are for frames by reference."""

    backend: str = setting(
        "exported", affects_output=False, description="a name of `udfs/backends`, or a module of your own"
    )
    model: str | None = setting(None, affects_output=False, description="the model's name, where a backend has several")
    weights: str | None = setting(None, affects_output=False, is_path=True, description="the model's file")
    labels: tuple[str, ...] | None = setting(
        None, affects_output=False, min_length=1, description="labels in the order of the outputs, for bare weights"
    )
    registry_uri: str | None = setting(
        None, affects_output=False, min_length=1, repr=False, description="address of MLflow's registry, for its models"
    )
    prompts: tuple[str, ...] | None = setting(
        None, affects_output=False, min_length=1, description="what to look for, for models that are told in words"
    )
    device: str = setting(
        "auto", affects_output=False, pattern=r"^(auto|cpu|cuda(:\d+)?)$", description='"auto", "cpu", "cuda", "cuda:1"'
    )
    precision: Precision | None = setting(
        None, affects_output=False, description="16 bits are faster where the device has them, and boxes differ a bit"
    )
    batch_size: int | None = setting(
        None,
        affects_output=False,
        ge=1,
        le=1024,
        description="pictures evaluated together; unset: 4 on a processor, 32 on a GPU",
    )
    score_threshold: float | None = setting(
        None, affects_output=False, ge=0, lt=1, description="lowest score kept; unset: the model's own"
    )
    nms_iou: float | None = setting(
        None, affects_output=False, gt=0, le=1, description="boxes that overlap more are one; unset: the model's own"
    )
    max_instances: int | None = setting(
        None, affects_output=False, ge=1, description="most boxes per frame; unset: the model's own"
    )
    classes: tuple[str, ...] | None = setting(
        None, affects_output=False, min_length=1, description="labels to keep; unset: all"
    )
    ontology: OntologySection | None = setting(
        None, affects_output=False, description="classes, aliases and what to drop; unset: [ontology], or as the model"
    )
    max_pixels: int = setting(89_478_485, affects_output=False, gt=0, description="pixels of a stored picture")
    batch_limit_s: float = setting(
        120.0, affects_output=False, gt=0, description="a model that takes longer for a batch hangs"
    )

    select: str | None = setting(
        None,
        affects_output=False,
        min_length=1,
        max_length=4000,
        description="SQL predicate over a frame, its media and what other models found; only such frames are looked at",
    )

    severity: dict[str, Literal["stop", "warn"]] = setting(
        {"row_rules": "stop"}, affects_output=False, description="check name -> severity, over the declared one"
    )

    @field_validator("severity")
    @classmethod
    def _bad_rows_stop(cls, value: dict[str, Any]) -> dict[str, Any]:
        """A row that breaks a rule is a broken model's, not a bad frame's: the wave stops unless told otherwise."""
        return {"row_rules": "stop", **value}

    @field_validator("select")
    @classmethod
    def _is_a_predicate(cls, value: str | None) -> str | None:
        if value is not None:
            check_predicate(value)
        return value

    @field_serializer("registry_uri")
    def _without_secrets(self, value: str | None) -> str | None:
        """Records and what is printed hold no password."""
        return value and address_without_secrets(value)

    def options(self) -> DetectOptions:
        """The settings as backends take them."""
        names = {each.name for each in fields(DetectOptions)} & {*type(self).model_fields}
        values = {name: getattr(self, name) for name in names - {"ontology"}}
        return DetectOptions(**values, ontology=self.ontology.ontology() if self.ontology else None)


_Config = TypeVar("_Config", bound=LabelConfig)


def model_id(config: LabelConfig) -> str:
    """Whose labels these are. Raises ConfigError for a model that there is not."""
    from visionlake.udfs.backends import find_backend

    with _as_config_error(config):
        options = config.options()
        return find_backend(options.backend).describe(options).model_id(options)


def pin(config: _Config) -> _Config:
    """The settings, the model by a name that keeps its meaning. Raises ConfigError for a model that there is not."""
    from visionlake.udfs.backends import find_backend

    with _as_config_error(config):
        pinned = getattr(find_backend(config.backend), "pin", None)
        return config.model_copy(update={"model": pinned(config.options()).model}) if pinned else config


def about(config: LabelConfig) -> dict[str, Any]:
    """The model's facts as `waves` keeps them, without secrets. Raises ConfigError for a model that there is not."""
    from visionlake.udfs.backends import find_backend

    with _as_config_error(config):
        options = config.options()
        backend = find_backend(options.backend)
        info = backend.describe(options)
        card = {"card": dict(info.card)} if info.card else {}
        return {
            "backend": options.backend,
            "name": info.name,
            "version": info.version,
            "source": info.source or _source(options),
            "registry_version": info.registry_version,
            "digests": dict(info.digests),
            "card": json.dumps({"tasks": info.tasks, "declared": dict(info.declared), **card}, default=str),
            "labels": list(info.labels),
            "licence": info.licence or _licence(backend, options),
        }


def _source(options: DetectOptions) -> str | None:
    """What the options name: a file's URI, or a model of some registry or hub."""
    if options.weights is not None and not ADDRESS.match(options.weights):
        return to_uri(options.weights)
    named = options.weights or options.model
    return address_without_secrets(named) if named and ADDRESS.match(named) else named


def _licence(backend: Backend, options: DetectOptions) -> str | None:
    """What the backend asks elsewhere. Labels do not wait for it: what cannot be asked is not known."""
    ask = getattr(backend, "licence", None)
    with suppress(Exception):
        return ask(options) if ask else None
    return None


@contextmanager
def _as_config_error(config: LabelConfig) -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise ConfigError(str(error)) from error
    except Exception as error:  # a backend of somebody else's may raise anything
        raise ConfigError(f"backend {config.backend!r}: {type(error).__name__}: {first_line(error)}") from error


def label_frames(inputs: Mapping[str, DataFrame], config: LabelConfig, *, found: Sequence[Column]) -> DataFrame:
    """The key of each frame, the columns `found`, and `error`. Frames are dealt out to as many tasks as they need.

    Frames that are stored without a picture are decoded again from their media, where the lake knows these.
    """
    from pyspark.sql import functions as F

    columns = [*frames.TABLE.pick(*KEY), *found]
    rows, knows_media = inputs["frames"], {"media", "sources"} <= {*inputs}
    # By the format: the pictures need not be read for it.
    counted = rows.agg(F.count("*").alias("all"), F.count("image_format").alias("stored")).collect()[0]
    stored = counted["stored"] if knows_media else counted["all"]
    partitions = int(rows.sparkSession.conf.get("spark.sql.shuffle.partitions") or 200)

    def tasks(count: int) -> int:
        return max(1, min(4 * partitions, -(-count // _FRAMES_PER_TASK)))

    results = []
    if stored or not counted["all"]:
        pictures = rows.where("image_format IS NOT NULL") if stored < counted["all"] else rows
        # By key: round robin would sort all pictures first.
        dealt = pictures.select(*KEY, "image").repartition(tasks(stored), *KEY)
        results.append(evaluate(dealt, config, columns=columns))
    if stored < counted["all"]:
        parts = parts_of(
            rows.where("image_format IS NULL"),
            media=inputs["media"],
            sources=inputs["sources"],
            most_tasks=tasks(counted["all"] - stored),
        )
        results.append(evaluate_again(parts, config, columns=columns))
    return reduce(lambda one, other: one.unionByName(other), results)


def evaluate(pictures: DataFrame, config: LabelConfig, *, columns: Sequence[Column]) -> DataFrame:
    """Columns of `pictures` (all but `image`) and of what a model finds in them, and `error`."""
    from visionlake.jobs._workers import sharing
    from visionlake.udfs.detect_objects import detect_objects

    names = [*(column.name for column in columns), "error"]
    work = partial(detect_objects, columns=names, max_pixels=config.max_pixels, **_model(config))
    work = partial(on_own_gpu, work=work, options=config.options())
    with sharing(pictures.sparkSession, imports(config)):
        return pictures.mapInPandas(work, _ddl(columns))


def evaluate_again(parts: DataFrame, config: LabelConfig, *, columns: Sequence[Column]) -> DataFrame:
    """The same of frames by reference, in `parts` (see `parts_of`); the columns are the key and what is found."""
    from visionlake.jobs._workers import sharing
    from visionlake.udfs.detect_objects import detect_again

    schema = arrow_schema({column.name: column.type for column in columns} | {"error": ERROR_TYPE})
    work = partial(detect_again, schema=schema, limits=config.limits(), **_model(config))
    work = partial(on_own_gpu, work=work, options=config.options())
    with sharing(parts.sparkSession, imports(config)):
        return parts.mapInArrow(work, _ddl(columns))


def _model(config: LabelConfig) -> dict[str, Any]:
    """Which model it is, and how long it may take."""
    return {"model_id": model_id(config), "batch_limit_s": config.batch_limit_s}


def imports(config: LabelConfig) -> Sequence[str]:
    """The large modules that the backend's workers share."""
    from visionlake.udfs.backends import find_backend

    return getattr(find_backend(config.backend), "IMPORTS", ())


def _ddl(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in columns) + f", error {ERROR_TYPE}"
