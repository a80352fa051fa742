"""Table `semantic_masks`: which pixels of a frame belong to which class, one row per frame and model."""

from __future__ import annotations

from . import _masks, detections
from ._table import Check, Column, Rule, Table

_REGIONS = f"array<struct<label_id int, label string, area_px bigint, mask {_masks.TYPE}>>"
_AREA = "aggregate(regions, 0L, (sum, r) -> sum + r.area_px)"


def _all(holds: str) -> str:
    """That something holds for every region, in terms of `r`."""
    return f"forall(regions, r -> {holds})"


TABLE = Table(
    name="semantic_masks",
    comment="One row per frame and model. No class seen is an empty array; a frame not looked at has no row.",
    columns=(
        *detections.TABLE.pick("media_id", "stream_index", "pts", "model_id", "frame_width_px", "frame_height_px"),
        Column(
            name="regions",
            type=_REGIONS,
            comment="a mask for each class that is seen (COCO RLE of the frame's size), and how many pixels it has",
        ),
        *detections.TABLE.pick("run_id", "input_version"),
    ),
    key=detections.TABLE.key,
    rules=(
        Rule(name="regions_missing", holds="regions IS NOT NULL", message="an array, empty where nothing is seen"),
        Rule(
            name="mask_misfit",
            holds=_all(f"r.area_px > 0 AND {_masks.fits('r.mask')}"),
            message="masks of the frame's size with at least one pixel",
        ),
        Rule(
            name="pixels_shared",
            holds=f"{_AREA} <= frame_width_px * frame_height_px "
            "AND size(array_distinct(transform(regions, r -> r.label_id))) = size(regions)",
            message="each pixel in one class, and each class once",
        ),
        Rule(name="label_unknown", holds=_all("r.label IS NOT NULL"), message="labels that the model's card lists"),
    ),
    checks=(
        Check(
            name="no_class_share",
            metric="avg(CASE WHEN size(regions) = 0 THEN 1.0 ELSE 0.0 END)",
            maximum=0.95,
            severity="warn",
            share=True,
            expected="a class is seen in at least 5 % of the frames",
            offending="size(regions) = 0",
        ),
    ),
    properties=detections.TABLE.properties,
    cluster_by=detections.TABLE.cluster_by,
)
