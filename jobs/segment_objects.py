"""Segment objects: a model's masks for every frame, of objects, of classes, or of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from visionlake.expectations import detections, semantic_masks
from visionlake.expectations._table import Table
from visionlake.jobs._again import STILL_AWAY
from visionlake.jobs._labelling import INPUTS, KEY, LabelConfig, about, imports, label_frames, model_id, pin
from visionlake.jobs._stage import Stage, setting
from visionlake.udfs.detector_types import DetectOptions

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

LABELLED = ("model_id", "frame_width_px", "frame_height_px")


class Config(LabelConfig):
    """Settings of one model, `[segment_objects.<name>]`."""

    task: Literal["instance", "semantic", "panoptic"] | None = setting(
        None, affects_output=False, description="objects, classes or both; unset: what the model does best"
    )

    def options(self) -> DetectOptions:
        """The settings as backends take them."""
        return replace(super().options(), task=self.task or "segmentation")


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """For every frame a row of `detections` with masks, one of `semantic_masks`, both, or an error."""
    columns = [
        *detections.TABLE.pick(*LABELLED, "instances"),
        *semantic_masks.TABLE.pick("regions"),
    ]
    found = label_frames(inputs, config, found=columns)
    tables = (_row(detections.TABLE, "instances"), _row(semantic_masks.TABLE, "regions"))
    return found.select(*KEY, *tables, "error")


def _row(table: Table, what: str) -> Column:
    """The row for a table; null where the model gives no such thing."""
    from pyspark.sql import functions as F

    return F.when(F.col(what).isNotNull(), F.struct(*KEY, *LABELLED, what)).alias(table.name)


STAGE = Stage(
    name="segment_objects",
    summary="a model's masks for every frame, of objects and of classes",
    config=Config,
    inputs=INPUTS,
    outputs=(detections.TABLE, semantic_masks.TABLE),
    transform=transform,
    producer=model_id,
    pin=pin,
    about=about,
    unreadable=STILL_AWAY,
    narrow="select",
    is_named=True,
    imports=imports,
    tally="transform(instances, i -> i.label)",
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("segment_objects")
