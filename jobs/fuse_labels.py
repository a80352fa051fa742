"""Fuse labels: one row per frame of what several models found, by weighted boxes fusion, NMS or soft-NMS."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from visionlake.errors import ConfigError
from visionlake.expectations import detections
from visionlake.expectations._table import ERROR_TYPE, Check, Table
from visionlake.jobs._fields import Allowed
from visionlake.jobs._labelling import KEY
from visionlake.jobs._sql import quoted
from visionlake.jobs._stage import GatherConfig, Input, Stage, setting
from visionlake.udfs.fuse_labels import Decay, FuseOptions, Labels, Method

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Weight = Annotated[float, Field(gt=0, le=1000), Allowed("a number above 0 and at most 1000")]
_MODEL_ID = re.compile(r"[^@]+@[^@]+:\w+")
_FUSION = "fusion@"
_SEEN = ("model_id", "frame_width_px", "frame_height_px", "instances", "input_version")
FUSED = Table(name="fused", comment="What the fusion returns.", columns=detections.TABLE.pick(*KEY, *_SEEN), key=KEY)
# Which ids a label has, of all frames of a wave.
_IDS = "transform(instances, i -> struct(i.label, {}))"
_DISTINCT = "size(array_distinct(flatten(collect_set(array_distinct({})))))"


class Config(GatherConfig):
    """Settings of one fusion, `[fuse_labels.<name>]`."""

    weights: tuple[Weight, ...] | None = setting(
        None, affects_output=False, min_length=1, description="how far each source is trusted; unset: all alike"
    )
    method: Method = setting(
        "wbf", affects_output=False, description="boxes that match are averaged, or the best stays, or others sink"
    )
    decay: Decay | None = setting(
        None, affects_output=False, description='how scores sink in soft_nms; unset: "gaussian"'
    )
    iou: float | None = setting(
        None, affects_output=False, gt=0, le=1, description="boxes that overlap more match; unset: 0.55, nms 0.5"
    )
    sigma: float | None = setting(
        None, affects_output=False, gt=0, le=100, description="the smaller, the faster scores sink; unset: 0.5"
    )
    score_threshold: float | None = setting(
        None, affects_output=False, ge=0, lt=1, description="lowest score kept; unset: 0, soft_nms 0.001"
    )
    max_instances: int | None = setting(
        None, affects_output=False, ge=1, description="most boxes per frame, the best; unset: all"
    )
    labels: Labels = setting("apart", affects_output=False, description="whether boxes of different labels may match")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if twice := sorted({name for name in self.sources if self.sources.count(name) > 1}):
            raise ValueError(f"sources: {', '.join(twice)} is there twice")
        if bad := [name for name in self.sources if "@" in name and not _MODEL_ID.fullmatch(name)]:
            raise ValueError(f"sources: {bad[0]} is no model_id; one looks like yolox_nano@coco-1:0123456789abcdef")
        if made := [name for name in self.sources if name.startswith(_FUSION)]:
            raise ValueError(f"sources: {made[0]} is a fusion itself; name what it is made of")
        if self.weights and len(self.weights) != len(self.sources):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.sources)} sources; give one for each")
        self.options().resolved()
        return self

    def options(self) -> FuseOptions:
        """The settings as the fusion takes them."""
        return FuseOptions(**{each.name: getattr(self, each.name) for each in fields(FuseOptions)})


def model_id(config: Config) -> str:
    """Whose rows these are. Raises ConfigError where sources are not known, or two of them are the same."""
    if names := [name for name in config.sources if "@" not in name]:
        raise ConfigError(f"sources: {', '.join(names)} is no model_id, and there is no pipeline file with its section")
    if twice := sorted({source for source in config.sources if config.sources.count(source) > 1}):
        raise ConfigError(f"sources: two of them are {', '.join(twice)}, model and settings alike; take one out")
    return config.options().model_id()


def about(config: Config) -> dict[str, Any]:
    """What the fusion is, as `waves` keeps it: a model without files, made of its sources."""
    name, _, version = model_id(config).partition(":")[0].partition("@")
    card = {"sources": config.sources, "weights": config.weights, "settings": config.options().resolved()}
    return {"backend": STAGE.name, "name": name, "version": version, "digests": {}, "card": json.dumps(card)}


def of_sources(config: Config) -> str:
    """The rows of the sources, as SQL."""
    return f"model_id IN ({', '.join(map(quoted, config.sources))})"


def gather(rows: DataFrame, config: Config) -> DataFrame:
    """The frames that every source has looked at, with the row of each."""
    from pyspark.sql import functions as F

    looks, labels = F.count_distinct("model_id").alias("_looks"), F.collect_list(F.struct(*_SEEN)).alias("labels")
    return rows.groupBy(*KEY).agg(labels, looks).where(F.col("_looks") == len(config.sources)).drop("_looks")


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """A row for every frame that the sources have looked at, or an error."""
    from visionlake.udfs.fuse_labels import fuse_labels

    work = partial(fuse_labels, schema=FUSED.arrow_schema(with_error=True), options=config.options())
    return inputs["detections"].mapInArrow(work, f"{FUSED.ddl}, error {ERROR_TYPE}")


STAGE = Stage(
    name="fuse_labels",
    summary="what several models found in a frame, as one row",
    config=Config,
    inputs=(
        Input(
            table=detections.TABLE,
            # Rows that came out equal for a changed frame count as well: their fused row has gone with that change.
            depends_on=("frame_width_px", "frame_height_px", "instances", "input_version"),
            refuses={"task": ("semantic",)},
            where=of_sources,
        ),
    ),
    outputs=(detections.TABLE,),
    transform=transform,
    checks=(
        Check(
            name="label_ids",
            metric=f"{_DISTINCT.format(_IDS.format('i.label_id'))} - {_DISTINCT.format(_IDS.format('0'))}",
            maximum=0,
            severity="warn",
            expected="one id for each label; [ontology] gives all models the same",
        ),
    ),
    gather=gather,
    parent_key=KEY,
    producer=model_id,
    about=about,
    is_named=True,
    tally="transform(instances, i -> i.label)",
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("fuse_labels")
