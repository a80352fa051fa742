"""Table `evaluations`: how good labels are against annotations, one row per evaluation, model, kind and class."""

from __future__ import annotations

from . import detections
from ._table import Column, Rule, Table

_AREAS = {"small": "below 32 x 32 px", "medium": "from 32 x 32 to 96 x 96 px", "large": "above 96 x 96 px"}


def _number(name: str, comment: str) -> Column:
    return Column(name=name, type="double", comment=comment)


def _count(name: str, comment: str) -> Column:
    return Column(name=name, type="bigint", comment=comment)


TABLE = Table(
    name="evaluations",
    comment="The newest accepted result of each evaluation. Rows with a class are of it alone, those without of all. "
    "Averages are COCO's, null where there is nothing to find.",
    columns=(
        Column(name="evaluation", type="string", comment="section: [evaluate_labels.<evaluation>]", nullable=False),
        *detections.TABLE.pick("model_id"),
        Column(name="kind", type="string", comment="what was compared: bbox, segm or semantic", nullable=False),
        Column(name="label", type="string", comment="the class; null: all of them together"),
        Column(name="truth", type="string", comment="source of the annotations that labels are compared with"),
        Column(name="splits", type="array<string>", comment="splits whose frames count; null: of all media"),
        _count("frames", "frames that were annotated and labelled; of a class: those where it is or was found"),
        _count("frames_not_labelled", "annotated frames that the model has not looked at: they do not count"),
        _count("truths", "objects that are there, without crowds"),
        _count("crowds", "crowds"),
        _count("found", "objects found, at most 100 of a class in a frame"),
        _number("ap", "average precision, mean of overlaps from 0.50 to 0.95"),
        _number("ap50", "average precision at an overlap of 0.50"),
        _number("ap75", "average precision at an overlap of 0.75"),
        *(_number(f"ap_{name}", f"ap of objects with an area {limits}") for name, limits in _AREAS.items()),
        *(_number(f"ar_{most}", f"average recall with at most {most} of a class in a frame") for most in (1, 10, 100)),
        *(_number(f"ar_{name}", f"ar_100 of objects with an area {limits}") for name, limits in _AREAS.items()),
        _number("iou", "pixels that both say are of the class, among those that either does; of all: the mean"),
        _number("ap_before", "ap of the last accepted result of this evaluation, of the same class"),
        _number("best_score", "the score from which on labels have the best F1, at an overlap of 0.50"),
        _number("best_f1", "F1 from that score on"),
        _number("best_precision", "precision from that score on"),
        _number("best_recall", "recall from that score on"),
        _number("calibration_error", "how far scores are from precision on average, at an overlap of 0.50"),
        Column(
            name="calibration",
            type="array<struct<score: double, precision: double, count: bigint>>",
            comment="mean score and precision of those with scores in each tenth from 0 to 1 that has any",
        ),
        Column(
            name="curve",
            type="array<struct<recall: double, precision: double, score: double>>",
            comment="precision at 101 recalls, at an overlap of 0.50, and the score it takes; null: not reached",
        ),
        Column(
            name="errors",
            type="array<struct<error: string, count: bigint, ap50_lost: double>>",
            comment="kinds of errors (TIDE's) at an overlap of 0.50, and by how much ap50 would grow without each",
        ),
        Column(
            name="confusion",
            type="array<struct<truth: string, found: string, count: bigint>>",
            comment="of all classes: what was taken for what above the score threshold; null is the background",
        ),
        Column(
            name="worst",
            type="array<struct<media_id: string, stream_index: int, pts: bigint, missed: bigint, extra: bigint, "
            "swapped: bigint>>",
            comment="of all classes: up to 100 frames with the most objects missed, extra, or of another class",
        ),
        Column(name="score_threshold", type="double", comment="the score from which on confusion and worst count"),
        Column(name="pins", type="map<string, bigint>", comment="Delta versions of the tables that were compared"),
        *detections.TABLE.pick("run_id"),
    ),
    key=("evaluation", "model_id", "kind", "label"),
    may_be_unknown=("label",),
    rules=(
        Rule(
            name="average_out_of_range",
            holds="coalesce(ap, 0) BETWEEN 0 AND 1 AND coalesce(iou, 0) BETWEEN 0 AND 1",
            message="averages from 0 to 1",
        ),
    ),
    cluster_by=("evaluation",),
)
