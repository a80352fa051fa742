"""Table `detections`: what a model found in a frame, one row per frame and model."""

from __future__ import annotations

from . import _masks, frames
from ._table import Check, Column, Rule, Table

_BOX = "struct<x_min double, y_min double, x_max double, y_max double>"
_PARENTS = "array<struct<model_id string, instance_index int>>"
INSTANCE = (
    f"struct<label_id int, label string, score double, box {_BOX}, area_px bigint, mask {_masks.TYPE}, "
    f"parents {_PARENTS}>"
)
"""One object; annotations have the same fields, and more."""


def _all(holds: str) -> str:
    """That something holds for every instance, in terms of `i`."""
    return f"forall(instances, i -> {holds})"


TABLE = Table(
    name="detections",
    comment="One row per frame and model. Nothing found is an empty array; a frame that was not looked at has no row.",
    columns=(
        *frames.TABLE.pick("media_id", "stream_index", "pts"),
        Column(name="model_id", type="string", comment="name@version:digest of all that shapes labels", nullable=False),
        Column(name="frame_width_px", type="int", comment="width of the frame that boxes are in"),
        Column(name="frame_height_px", type="int", comment="height of the frame that boxes are in"),
        Column(
            name="instances",
            type=f"array<{INSTANCE}>",
            comment="objects, best first; boxes in pixels of the upright stored frame, origin at its top left corner; "
            "area_px and mask (COCO RLE of the frame's size) where the model gives masks: the box holds them exactly; "
            "parents of what was fused: whose instances it stands for, and their places, the most trusted first",
        ),
        Column(name="run_id", type="string", comment="run that wrote the row", volatile=True),
        Column(name="input_version", type="bigint", comment="version of frames that this row saw", volatile=True),
    ),
    key=("media_id", "stream_index", "pts", "model_id"),
    rules=(
        Rule(name="instances_missing", holds="instances IS NOT NULL", message="an array, empty where nothing is seen"),
        Rule(name="score_out_of_range", holds=_all("i.score BETWEEN 0 AND 1"), message="scores from 0 to 1"),
        Rule(
            name="box_empty",
            holds=_all("i.box.x_max > i.box.x_min AND i.box.y_max > i.box.y_min"),
            message="boxes with an area",
        ),
        Rule(
            name="box_outside",
            holds=_all(
                "i.box.x_min >= 0 AND i.box.y_min >= 0 AND i.box.x_max <= frame_width_px "
                "AND i.box.y_max <= frame_height_px"
            ),
            message="boxes inside the frame",
        ),
        Rule(
            name="mask_misfit",
            holds=_all(
                f"i.mask IS NULL OR ({_masks.fits('i.mask')} AND i.area_px > 0 "
                "AND i.area_px <= (i.box.x_max - i.box.x_min) * (i.box.y_max - i.box.y_min))"
            ),
            message="masks of the frame's size, with at least one pixel and no more than the box has",
        ),
        Rule(name="label_unknown", holds=_all("i.label IS NOT NULL"), message="labels that the model's card lists"),
    ),
    checks=(
        Check(
            name="nothing_found_share",
            metric="avg(CASE WHEN size(instances) = 0 THEN 1.0 ELSE 0.0 END)",
            maximum=0.95,
            severity="warn",
            share=True,
            expected="something is found in at least 5 % of the frames",
            offending="size(instances) = 0",
        ),
        Check(
            name="instances_per_frame",
            metric="avg(size(instances))",
            factor=3.0,
            severity="warn",
            expected="as many objects in a frame as in earlier waves of this model, within a factor of 3",
        ),
    ),
    properties={"delta.dataSkippingStatsColumns": "media_id,stream_index,pts,model_id,input_version"},
    cluster_by=("media_id", "stream_index", "pts"),
)
