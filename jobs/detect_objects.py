"""Detect objects: a model's boxes for every frame, one row per frame and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from visionlake.expectations import detections, semantic_masks
from visionlake.expectations._table import Column
from visionlake.jobs._again import STILL_AWAY
from visionlake.jobs._fields import Allowed
from visionlake.jobs._labelling import INPUTS, LabelConfig, about, evaluate, imports, label_frames, model_id, pin
from visionlake.jobs._stage import Stage, setting
from visionlake.udfs.detector_types import DetectOptions
from visionlake.udfs.view_options import (
    LEAST_TILE_PX,
    MOST_OVERLAP,
    SCALES,
    BesideTiles,
    Flips,
    TileMerge,
    ViewMerge,
    ViewOptions,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FOUND = detections.TABLE.pick("model_id", "frame_width_px", "frame_height_px", "instances")
Scale = Annotated[float, Field(ge=SCALES[0], le=SCALES[1]), Allowed(f"a number from {SCALES[0]} to {SCALES[1]}")]


class Config(LabelConfig):
    """Settings of one detector, `[detect_objects.<name>]`."""

    tile_width_px: int | None = setting(
        None, affects_output=False, ge=LEAST_TILE_PX, description="cut pictures into tiles of this width; unset: do not"
    )
    tile_height_px: int | None = setting(
        None, affects_output=False, ge=LEAST_TILE_PX, description="and of this height, in pixels of the stored picture"
    )
    tile_overlap: float = setting(
        0.2, affects_output=False, ge=0, le=MOST_OVERLAP, description="share of a tile that the next one has too"
    )
    beside_tiles: BesideTiles = setting(
        "picture", affects_output=False, description="what else is looked at: things larger than tiles want the picture"
    )
    tile_merge: TileMerge = setting(
        "nmm", affects_output=False, description="parts of a thing become one box, or the best of them stays"
    )
    tile_merge_overlap: float = setting(
        0.5, affects_output=False, gt=0, le=1, description="boxes of two tiles that overlap more are one"
    )
    flips: Flips = setting("none", affects_output=False, description="look at mirrored pictures too")
    scales: tuple[Scale, ...] = setting((1.0,), affects_output=False, description="sizes of the picture to look at")
    view_merge: ViewMerge = setting(
        "wbf", affects_output=False, description="weighted fusion of what flips and scales show, or the best box"
    )
    view_merge_iou: float = setting(
        0.65, affects_output=False, gt=0, le=1, description="boxes of flips and scales that overlap more are one"
    )

    def options(self) -> DetectOptions:
        """The settings as backends take them."""
        views = ViewOptions(**{each.name: getattr(self, each.name) for each in fields(ViewOptions)})
        return replace(super().options(), views=views)


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """A row with the model's boxes for every frame, or an error."""
    return label_frames(inputs, config, found=FOUND)


def detect(pictures: DataFrame, config: Config, *, passed: Sequence[Column]) -> DataFrame:
    """Boxes for the pictures in the column `image`, beside the columns `passed`."""
    return evaluate(pictures, config, columns=[*passed, *FOUND])


STAGE = Stage(
    name="detect_objects",
    summary="a model's boxes for every frame",
    config=Config,
    inputs=INPUTS,
    outputs=(detections.TABLE,),
    outdates=(semantic_masks.TABLE,),
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

    main("detect_objects")
