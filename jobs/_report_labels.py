"""What the report tells of labels, of models and of people alike: classes, scores, sizes and density."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._lake import Lake
from ._report_plots import bars, spread

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

BINS = 20
_MOST_DENSE = 20
_MAX_LABELS, _MAX_ANNOTATORS, _MAX_COLUMNS = 30, 10, 6


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """What one model found, or one source says.

    Objects by label (the most frequent ones of `classes`), by score (parts of 0 to 1) and by octaves of size (log2 of
    px), and frames by the number of objects in them, of which the last entry may mean so many and more. `annotators`
    are the busiest of a source, with how many frames each has annotated.
    """

    name: str
    frames: int
    instances: int
    classes: int
    labels: Mapping[str, int]
    scores: Sequence[int]
    octaves: Mapping[int, int]
    densities: Sequence[int]
    annotators: Sequence[tuple[str, int]] = ()


def model_facts(lake: Lake) -> list[LabelFacts]:
    """What each model found."""
    return _facts(lake.table("detections"), "model_id") if lake.exists("detections") else []


def source_facts(lake: Lake) -> list[LabelFacts]:
    """What each source of annotations says."""
    return _facts(lake.table("annotations"), "source", by="annotator") if lake.exists("annotations") else []


def _facts(rows: DataFrame, who: str, *, by: str | None = None) -> list[LabelFacts]:
    counted: dict[str, dict[str, list[Row]]] = {}
    for row in _counted(rows, who, by).orderBy("who", "place").collect():
        counted.setdefault(row["who"], {}).setdefault(row["kind"], []).append(row)
    found = []
    for name, kinds in counted.items():
        labels, dense = kinds.get("label", []), _by_number(kinds.get("n", []))
        scores = _by_number(kinds.get("score", []))
        found.append(
            LabelFacts(
                name=name,
                frames=sum(dense.values()),
                instances=labels[0]["total"] if labels else 0,
                classes=labels[0]["groups"] if labels else 0,
                labels={row["value"]: row["count"] for row in labels},
                scores=[] if by else [scores.get(place, 0) for place in range(BINS)],  # people are sure
                octaves=dict(sorted(_by_number(kinds.get("octave", [])).items())),
                densities=[dense.get(n, 0) for n in range(max(dense, default=-1) + 1)],
                annotators=[(row["value"], row["count"]) for row in kinds.get("annotator", [])],
            )
        )
    return found


def _by_number(rows: Sequence[Row]) -> dict[int, int]:
    return {int(row["value"]): row["count"] for row in rows}


def _counted(rows: DataFrame, who: str, by: str | None) -> DataFrame:
    """How often each `value` of each `kind` is there, counted in one pass; of each kind the most frequent values.

    Kinds are label, score and octave of objects, n of frames (the number of objects), and annotator of frames.
    `groups` is how many values a kind has, `total` what all of them add up to.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    def fact(kind: str, value: Column) -> Column:
        return F.struct(F.lit(kind).alias("kind"), value.cast("string").alias("value"))

    def facts(one: Column) -> Column:
        box, score = one["box"], one["score"]
        size = F.sqrt((box["x_max"] - box["x_min"]) * (box["y_max"] - box["y_min"]))
        score_bin = F.when(score == 1, BINS - 1).otherwise(F.floor(score * BINS))
        octave = F.floor(F.log2(F.greatest(size, F.lit(1.0))))
        return F.array(fact("label", one["label"]), fact("score", score_bin), fact("octave", octave))

    of_frame = [fact("n", F.least(F.size("instances"), F.lit(_MOST_DENSE)))]
    of_frame += [fact("annotator", F.col(by))] if by else []
    told = F.concat(F.flatten(F.transform("instances", facts)), F.array(*of_frame))
    each = rows.select(F.col(who).alias("who"), F.inline(told)).where("value IS NOT NULL")
    alike = Window.partitionBy("who", "kind")
    counted = each.groupBy("who", "kind", "value").count()
    place = F.row_number().over(alike.orderBy(F.desc("count"), "value"))
    counted = counted.withColumns(
        {"place": place, "groups": F.count("*").over(alike), "total": F.sum("count").over(alike)}
    )
    most = F.when(F.col("kind") == "annotator", _MAX_ANNOTATORS).otherwise(_MAX_LABELS)
    return counted.where(F.col("place") <= most)


def label_section(facts: LabelFacts, name: str) -> dict[str, Any]:
    """What the page says of a model or a source; `name` tells sections and plots of a page apart."""
    return {
        "id": name,
        "name": facts.name,
        "frames": f"{facts.frames:,}",
        "instances": f"{facts.instances:,}",
        "annotators": [(who, f"{count:,}") for who, count in facts.annotators],
        "plots": _plots(facts, name) if facts.instances else [],
    }


def _plots(facts: LabelFacts, name: str) -> list[dict[str, Any]]:
    more = f", the {len(facts.labels)} most frequent of {facts.classes:,}" if facts.classes > len(facts.labels) else ""
    octaves = range(min(facts.octaves, default=0), max(facts.octaves, default=-1) + 1)
    sizes = [(f"{2**o:,} to {2 ** (o + 1):,} px", facts.octaves.get(o, 0)) for o in octaves]
    dense = [(f"{n} or more" if n == _MOST_DENSE else str(n), count) for n, count in enumerate(facts.densities)]
    found = [
        bars("objects by label" + more, list(facts.labels.items()), name=f"label{name}"),
        bars("sizes (square root of the area)", sizes, name=f"size{name}"),
        bars("frames by objects in them", dense, name=f"density{name}"),
    ]
    if facts.scores:
        found.insert(1, spread("scores", facts.scores, low=0, high=1, unit="score", name=f"score{name}"))
    return found


def class_rows(said: Sequence[LabelFacts], found: Sequence[LabelFacts]) -> dict[str, Any]:
    """The classes with the most objects, and how many of them each source and model has; those of few are left out."""
    who = [*said, *found][:_MAX_COLUMNS]
    totals = Counter[str]()
    for facts in who:
        totals.update(facts.labels)
    order = sorted(totals, key=lambda label: (-totals[label], label))[:_MAX_LABELS]
    return {
        "names": [facts.name for facts in who],
        "rows": [(label, [_cell(facts, label) for facts in who]) for label in order],
        "left_out": max([facts.classes for facts in who], default=0) > len(order),
    }


def _cell(facts: LabelFacts, label: str) -> tuple[str, int]:
    """The objects of a class, nothing where they are too few to be known here; and as hundredths of the most."""
    if facts.classes > len(facts.labels) and label not in facts.labels:
        return "", 0
    count = facts.labels.get(label, 0)
    return f"{count:,}", round(100 * count / max(facts.labels.values(), default=1))
