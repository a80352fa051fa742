"""What the report tells of labels, of models and of people alike: classes, scores, sizes and density."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionlake._text import clean
from visionlake.expectations import frames

from ._lake import Lake

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

KEY = frames.TABLE.key
BINS = 20
_MOST_DENSE = 20
_MAX_LABELS = 30


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """What one model found, or one source says.

    Objects by label, by score (parts of 0 to 1) and by octaves of size (log2 of px), and frames by the number of
    objects in them, of which the last entry may mean so many and more.
    """

    name: str
    frames: int
    labels: Mapping[str, int]
    scores: Sequence[int]
    octaves: Mapping[int, int]
    densities: Sequence[int]

    @property
    def instances(self) -> int:
        """All objects."""
        return sum(self.labels.values())


def model_facts(lake: Lake) -> list[LabelFacts]:
    """What each model found."""
    return _facts(lake.table("detections"), "model_id") if lake.exists("detections") else []


def source_facts(lake: Lake) -> list[LabelFacts]:
    """What each source of annotations says."""
    return _facts(lake.table("annotations"), "source") if lake.exists("annotations") else []


def _facts(rows: DataFrame, who: str) -> list[LabelFacts]:
    from pyspark.sql import functions as F

    one = rows.select(who, F.explode("instances").alias("i")).select(who, "i.label", "i.score", "i.box.*")
    size = F.expr("sqrt((x_max - x_min) * (y_max - y_min))")
    score = F.when(F.col("score") == 1, BINS - 1).otherwise(F.floor(F.col("score") * BINS)).alias("score_bin")
    octave = F.floor(F.log2(F.greatest(size, F.lit(1.0)))).alias("octave")
    grouped = one.groupBy(who, "label", score, octave).count().collect()
    dense = rows.groupBy(who, F.least(F.size("instances"), F.lit(_MOST_DENSE)).alias("n")).count().collect()
    found = []
    for name in sorted({row[who] for row in dense}):
        labels, scores, octaves = Counter[str](), Counter[int](), Counter[int]()
        for group in grouped:
            if group[who] == name:
                labels[group["label"]] += group["count"]
                octaves[group["octave"]] += group["count"]
                scores[group["score_bin"]] += group["count"]
        counts = {row["n"]: row["count"] for row in dense if row[who] == name}
        found.append(
            LabelFacts(
                name=name,
                frames=sum(counts.values()),
                labels=dict(sorted(labels.items(), key=lambda item: (-item[1], item[0]))),
                scores=[scores[place] for place in range(BINS)],
                octaves=dict(sorted(octaves.items())),
                densities=[counts.get(n, 0) for n in range(max(counts) + 1)],
            )
        )
    return found


def label_section(facts: LabelFacts, name: str) -> dict[str, Any]:
    """What the page says of a model or a source; `name` tells plots of a page apart."""
    from markupsafe import Markup

    from visionlake.udfs.plots import bar_plot, histogram

    shown = list(facts.labels.items())[:_MAX_LABELS]
    more = f", the {_MAX_LABELS} most frequent of {len(facts.labels)}" if len(facts.labels) > _MAX_LABELS else ""
    octaves = range(min(facts.octaves, default=0), max(facts.octaves, default=-1) + 1)
    densities = [f"{n} or more" if n == _MOST_DENSE else str(n) for n in range(len(facts.densities))]
    plots = [
        (
            "objects by label" + more,
            bar_plot([clean(n) for n, _ in shown], [c for _, c in shown], name=f"label{name}"),
        ),
        (
            "sizes (square root of the area)",
            bar_plot(
                [f"{2**o:,} to {2 ** (o + 1):,} px" for o in octaves],
                [facts.octaves.get(o, 0) for o in octaves],
                name=f"size{name}",
            ),
        ),
        ("frames by objects in them", bar_plot(densities, facts.densities, name=f"density{name}")),
    ]
    if any(facts.scores):
        plots.insert(1, ("scores", histogram(facts.scores, low=0, high=1, unit="score", name=f"score{name}")))
    return {
        "name": facts.name,
        "frames": f"{facts.frames:,}",
        "instances": f"{facts.instances:,}",
        "plots": [{"title": title, "svg": Markup(svg)} for title, svg in plots] if facts.instances else [],
    }
