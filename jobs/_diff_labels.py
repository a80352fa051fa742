"""How far the labels of two models agree: per class, and the frames where they agree least."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from visionlake.errors import UsageError
from visionlake.expectations import frames
from visionlake.udfs.agreement import Agreement, compare_frames
from visionlake.udfs.uris import display

from ._places import places_of
from ._select import ids_in_lake, model_ids
from ._stage import Stage, StageConfig
from ._stages import sections_by_name

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._lake import Lake

KEY = frames.TABLE.key
_COUNTS = ("boxes_a", "boxes_b", "matched", "moved")


@dataclass(frozen=True, kw_only=True)
class ClassDiff:
    """One class: in how many of the frames that both looked at it was found at all, and what became of its boxes."""

    label: str
    frames: int
    agreed: Agreement

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for tables and JSON."""
        return {"label": self.label, "frames": self.frames, **_values(self.agreed)}


@dataclass(frozen=True, kw_only=True)
class FrameDiff:
    """One frame, with the boxes of all classes; `place` is a URI where its media lies, if that is known."""

    media_id: str
    stream_index: int
    pts: int
    pts_s: float | None
    place: str | None
    agreed: Agreement

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for tables and JSON."""
        values = {name: value for name, value in asdict(self).items() if name != "agreed"}
        return {**values, **_values(self.agreed)}


@dataclass(frozen=True, kw_only=True)
class LabelDiff:
    """What two models, A and B, found in the frames that both looked at.

    `classes` are in the order of how many boxes they have; `worst` frames have the most boxes without a partner, then
    the most that moved. Frames that only one of the two looked at are counted, and compared with nothing.
    """

    model_a: str
    model_b: str
    iou: float
    moved: float
    frames: int
    frames_only_a: int
    frames_only_b: int
    classes: tuple[ClassDiff, ...]
    worst: tuple[FrameDiff, ...]

    @property
    def total(self) -> Agreement:
        """All classes together."""
        return sum((each.agreed for each in self.classes), Agreement())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        names = ("model_a", "model_b", "iou", "moved", "frames", "frames_only_a", "frames_only_b")
        return {
            **{name: getattr(self, name) for name in names},
            "total": _values(self.total),
            "classes": [each.as_dict() for each in self.classes],
            "worst": [each.as_dict() for each in self.worst],
        }


def find_model(lake: Lake, name: str, stages: Sequence[tuple[Stage, StageConfig]] = ()) -> str:
    """The `model_id` that a name means: a section of the pipeline, a model id, or how just one id begins.

    Raises UsageError for a name that means none, or several, and ConfigError for a section whose model is not there.
    """
    if name in (sections := model_ids(stages, [name])):
        return sections[name]
    there = ids_in_lake(lake)
    found = [name] if name in there else [one for one in there if one.startswith(name)]
    if len(found) == 1:
        return found[0]
    allowed = ", ".join([*sections_by_name(stage for stage, _ in stages), *there]) or "none yet"
    what = f"means several models: {', '.join(found)}" if found else f"is no model here; there are: {allowed}"
    raise UsageError(f"{name!r} {what}")


def diff_labels(
    lake: Lake, model_a: str, model_b: str, *, iou: float = 0.5, moved: float = 0.9, worst: int = 20
) -> LabelDiff:
    """Compare the boxes of two models, by model id, frame by frame; `worst` bounds the frames that are named.

    Boxes of one label are put together in pairs that overlap by `iou` or more (see `pair_boxes`); those that overlap by
    less than `moved` have moved. Raises UsageError for the same model twice, and where one has no boxes in the lake.
    """
    from pyspark.sql import functions as F

    if not 0 < iou <= moved <= 1:
        raise UsageError(f"iou {iou:g}, moved {moved:g}: allowed is 0 < iou <= moved <= 1")
    if model_a == model_b:
        raise UsageError(f"{model_a} twice: compare two models, or two versions of one, each by its whole model_id")
    _check_labels(lake, (model_a, model_b))
    a, b = _instances(lake, model_a, "a"), _instances(lake, model_b, "b")
    both = a.join(b, list(KEY), "full_outer")
    has_a, has_b = F.col("a").isNotNull(), F.col("b").isNotNull()
    looked = both.agg(
        F.count_if(has_a & has_b).alias("both"), F.count_if(~has_b).alias("a"), F.count_if(~has_a).alias("b")
    ).collect()[0]
    work = partial(compare_frames, keys=KEY, iou=iou, moved=moved)
    ddl = ", ".join(f"{c.name} {c.type}" for c in frames.TABLE.pick(*KEY))
    pairs = a.join(b, list(KEY)).mapInPandas(
        work, f"{ddl}, label string, {', '.join(f'{name} bigint' for name in _COUNTS)}"
    )
    pairs = pairs.persist()
    try:
        classes, frames_found = _classes(pairs), _worst(lake, pairs, worst)
    finally:
        pairs.unpersist()
    return LabelDiff(
        model_a=model_a, model_b=model_b, iou=iou, moved=moved, frames=looked["both"], frames_only_a=looked["a"],
        frames_only_b=looked["b"], classes=classes, worst=frames_found,
    )  # fmt: skip


def _check_labels(lake: Lake, models: Collection[str]) -> None:
    there = ids_in_lake(lake)
    for model in models:
        if model not in there:
            known = ", ".join(there) or "none yet"
            raise UsageError(f"no boxes of model {model} in lake {lake.uri}; there are those of: {known}")


def _instances(lake: Lake, model: str, name: str) -> DataFrame:
    """Labels and boxes of one model: no masks, which are large."""
    from pyspark.sql import functions as F

    rows = lake.table("detections").where(F.col("model_id") == model)
    slim = F.transform("instances", lambda i: F.struct(i["label"].alias("label"), i["box"].alias("box")))
    return rows.select(*KEY, slim.alias(name))


def _sums() -> list[Any]:
    from pyspark.sql import functions as F

    return [F.sum(name).alias(name) for name in _COUNTS]


def _classes(pairs: DataFrame) -> tuple[ClassDiff, ...]:
    from pyspark.sql import functions as F

    rows = pairs.groupBy("label").agg(F.count("*").alias("frames"), *_sums()).collect()
    found = [ClassDiff(label=row["label"], frames=row["frames"], agreed=_agreed(row)) for row in rows]
    return tuple(sorted(found, key=lambda each: (-each.agreed.boxes_a - each.agreed.boxes_b, each.label)))


def _worst(lake: Lake, pairs: DataFrame, most: int) -> tuple[FrameDiff, ...]:
    """The frames with the most boxes without a partner, then the most that moved, then by key; none that agree."""
    from pyspark.sql import functions as F

    alone = F.expr("boxes_a + boxes_b - 2 * (matched + moved)")
    sums = pairs.groupBy(*KEY).agg(*_sums()).withColumn("alone", alone).where("alone > 0 OR moved > 0")
    rows = sums.orderBy(F.desc("alone"), F.desc("moved"), *KEY).limit(most).collect() if most else []
    places = places_of(lake, sorted({row["media_id"] for row in rows}))
    seconds = _seconds(lake, rows)
    return tuple(
        FrameDiff(
            media_id=row["media_id"],
            stream_index=row["stream_index"],
            pts=row["pts"],
            pts_s=seconds.get(tuple(row[name] for name in KEY)),
            place=display(places[row["media_id"]]) if row["media_id"] in places else None,
            agreed=_agreed(row),
        )
        for row in rows
    )


def _seconds(lake: Lake, rows: Collection[Any]) -> dict[tuple[Any, ...], float | None]:
    """When these frames are shown, in seconds."""
    from pyspark.sql import functions as F

    if not rows or not lake.exists("frames"):
        return {}
    near = lake.table("frames").where(F.col("media_id").isin(sorted({row["media_id"] for row in rows})))
    near = near.where(F.col("pts").isin(sorted({row["pts"] for row in rows})))
    return {tuple(row[name] for name in KEY): row["pts_s"] for row in near.select(*KEY, "pts_s").collect()}


def _agreed(row: Any) -> Agreement:
    return Agreement(**{name: row[name] for name in _COUNTS})


def _values(agreed: Agreement) -> dict[str, Any]:
    names = (*_COUNTS, "missed", "extra", "agreement")
    return {name: getattr(agreed, name) for name in names}
