"""Table `annotations`: what people or other tools have said of frames, one row per frame, source and annotator."""

from __future__ import annotations

from . import detections, frames
from ._table import Check, Column, Rule, Table

_POINT = "struct<name string, x double, y double, visibility int>"
_SHARED = detections.INSTANCE.removeprefix("struct<").removesuffix(">")
_INSTANCES = (
    f"array<struct<{_SHARED}, annotation_id string, iscrowd boolean, area double, polygons array<array<double>>, "
    f"keypoints array<{_POINT}>, track_id string, attributes map<string, string>>>"
)
OUTSIDE_PX = 1.0
"""So far may a box or polygon reach beyond the frame: tools round, and nothing is clipped here."""


def _all(holds: str) -> str:
    """That something holds for every instance, in terms of `i`."""
    return f"forall(instances, i -> {holds})"


TABLE = Table(
    name="annotations",
    comment="One row per frame, source and annotator. Nothing there is an empty array; not looked at is no row.",
    columns=(
        *frames.TABLE.pick("media_id", "stream_index", "pts"),
        Column(
            name="source",
            type="string",
            comment="section that imported it: [import_annotations.<source>]",
            nullable=False,
        ),
        Column(name="annotator", type="string", comment="who it was, as the file says; null where it does not"),
        Column(name="uri", type="string", comment="the file that it comes from"),
        Column(name="image_name", type="string", comment="what the file calls the picture or video"),
        Column(name="full_width_px", type="int", comment="width of the upright full frame"),
        Column(name="full_height_px", type="int", comment="height of the upright full-size frame"),
        Column(
            name="instances",
            type=_INSTANCES,
            comment="objects in the file's order, in pixels of the upright full-size frame; as in detections, plus "
            "annotation_id, iscrowd, area (as the file states it), polygons, keypoints (visibility as in COCO: 0 not "
            "labelled, 1 hidden, 2 visible), track_id and attributes; mask is COCO RLE, drawn from polygons where "
            "those are what the file has",
        ),
        Column(name="attributes", type="map<string, string>", comment="what the file says of the picture besides"),
        Column(name="run_id", type="string", comment="run that wrote the row", volatile=True),
    ),
    key=("media_id", "stream_index", "pts", "source", "annotator"),
    may_be_unknown=("annotator",),
    rules=(
        Rule(name="instances_missing", holds="instances IS NOT NULL", message="an array, empty where nothing is there"),
        Rule(
            name="size_not_positive",
            holds="full_width_px > 0 AND full_height_px > 0",
            message="full_width_px and full_height_px > 0",
        ),
        Rule(
            name="box_empty",
            holds=_all("i.box.x_max > i.box.x_min AND i.box.y_max > i.box.y_min"),
            message="boxes with an area",
        ),
        Rule(
            name="box_outside",
            holds=_all(
                f"i.box.x_min >= -{OUTSIDE_PX} AND i.box.y_min >= -{OUTSIDE_PX} AND "
                f"i.box.x_max <= full_width_px + {OUTSIDE_PX} AND i.box.y_max <= full_height_px + {OUTSIDE_PX}"
            ),
            message=f"boxes inside the frame, but for {OUTSIDE_PX} px",
        ),
        Rule(
            name="mask_misfit",
            holds=_all(
                "i.mask IS NULL OR (i.mask.size[0] = full_height_px AND i.mask.size[1] = full_width_px "
                "AND i.area_px > 0)"
            ),
            message="masks of the frame's size, with at least one pixel",
        ),
        Rule(name="label_unknown", holds=_all("i.label IS NOT NULL"), message="labels with a name"),
    ),
    checks=(
        Check(
            name="nothing_there_share",
            metric="avg(CASE WHEN size(instances) = 0 THEN 1.0 ELSE 0.0 END)",
            maximum=0.95,
            severity="warn",
            share=True,
            expected="something is there in at least 5 % of the frames",
            offending="size(instances) = 0",
        ),
    ),
    properties={"delta.dataSkippingStatsColumns": "media_id,stream_index,pts,source"},
    cluster_by=("source", "media_id", "pts"),
)
