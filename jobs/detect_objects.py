"""Detect objects: a model's boxes for every frame, one row per frame and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from visionlake.expectations import detections, semantic_masks
from visionlake.expectations._table import Column
from visionlake.jobs._labelling import PICTURES, LabelConfig, evaluate, label_frames, model_id, pin
from visionlake.jobs._stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FOUND = detections.TABLE.pick("model_id", "frame_width_px", "frame_height_px", "instances")


class Config(LabelConfig):
    """Settings of one detector, `[detect_objects.<name>]`."""


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """A row with the model's boxes for every frame, or an error."""
    return label_frames(inputs["frames"], config, found=FOUND)


def detect(pictures: DataFrame, config: Config, *, passed: Sequence[Column]) -> DataFrame:
    """Boxes for the pictures in the column `image`, beside the columns `passed`."""
    return evaluate(pictures, config, columns=[*passed, *FOUND])


STAGE = Stage(
    name="detect_objects",
    summary="a model's boxes for every frame",
    config=Config,
    inputs=(PICTURES,),
    outputs=(detections.TABLE,),
    outdates=(semantic_masks.TABLE,),
    transform=transform,
    producer=model_id,
    pin=pin,
    is_named=True,
    tally="transform(instances, i -> i.label)",
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("detect_objects")
