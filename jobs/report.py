"""Report: one page about the lake, with what ran, what gates found, frames with their labels, and figures."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from importlib.resources import files
from typing import Any

from visionlake import __version__
from visionlake._text import clean
from visionlake.expectations import declaration, declared_names
from visionlake.expectations._table import Table
from visionlake.jobs import _report_card as card
from visionlake.jobs import _report_facts as facts
from visionlake.jobs._label_names import is_model
from visionlake.jobs._lake import Lake
from visionlake.jobs._report_diff import diff_section
from visionlake.jobs._report_evaluations import evaluations
from visionlake.jobs._report_galleries import gallery_keys
from visionlake.jobs._report_labels import class_rows, label_section, model_facts, source_facts
from visionlake.jobs._report_plots import spread
from visionlake.jobs._report_sheets import choose_frames, keys_of, pictured
from visionlake.jobs._report_splits import exports, splits
from visionlake.jobs._side import side_by_side
from visionlake.jobs._stage import Observed, Observer, Settings, setting

PAGE = "report.html"
_TEMPLATE = "report.html.jinja"
_STATE = re.compile(r'<meta name="visionlake-state" content="([0-9a-f]{64})">')
_TEMPLATES = (_TEMPLATE, "report_labels.html.jinja", "report_macros.html.jinja")
_ORDER = ("passed", "skipped", "warned", "errored", "failed", "stopped")
_QUESTIONS: Mapping[str, Callable[[Lake], Any]] = {
    "sources": source_facts,  # first, as that of the galleries waits for it
    "waves": facts.newest_waves,
    "quarantine": facts.quarantined,
    "totals": lambda lake: facts.counts(lake, ("media",)),
    "counts": facts.frame_counts,
    "files": card.files,
    "splits": splits,
    "exports": exports,
    "evaluations": evaluations,
}
_SECTIONS = (
    ("card", "Data set", "card"),
    ("stages", "Stages and gates", None),
    ("quarantine", "Quarantine", None),
    ("annotations", "Annotations", "said"),
    ("labels", "Labels", "labels"),
    ("evaluations", "Evaluation", "evaluations"),
    ("splits", "Splits", "splits"),
    ("exports", "Data sets handed over", "exports"),
    ("agreement", "Agreement", "diff"),
    ("classes", "Classes", "galleries"),
    ("frames", "Frames", "pictures"),
    ("quality", "Quality", "quality"),
    ("versions", "Versions and models", None),
)
"""Ids, titles, and the value without which there is no such section."""
_THREADS = 2  # for these: few answers are large, and what takes time is to plan them


class Config(Settings):
    """Settings of `[report]`."""

    title: str = setting("visionlake report", min_length=1, max_length=200, description="heading of the page")
    max_pictures: int = setting(
        48, ge=0, le=500, description="frames that the page shows, besides those of classes and problems; 0: no picture"
    )
    diff_labels: tuple[str, str] | None = setting(
        None, description="two models, sections or model ids: a section of the page compares what they found"
    )
    max_per_class: int = setting(4, ge=0, le=50, description="frames that the gallery of a class shows")
    max_worst: int = setting(
        12, ge=0, le=200, description="frames shown on which these agree least, or a model with the truth"
    )
    max_in_all: int = setting(
        200, ge=0, le=2000, description="pictures on the whole page: problems come first, then classes, then others"
    )
    picture_side_px: int = setting(480, ge=64, le=2048, description="longer side of a shown frame")


def observe(lake: Lake, config: Config, models: Sequence[str] = ()) -> Observed:
    """Write the page, unless the one that is there was made of the same."""
    uri = lake.path(PAGE)
    state = _state(lake, config, models)
    earlier = _STATE.search(lake.read_file(PAGE) or "")
    if earlier and earlier[1] == state:
        return Observed(uri=uri, is_new=False)
    lake.write_file(PAGE, page(lake, config, models, state=state))
    return Observed(uri=uri, is_new=True)


def page(lake: Lake, config: Config, models: Sequence[str], *, state: str) -> str:
    """The page as HTML: self-contained, without scripts, every value escaped.

    Labels of other producers than `models` are told of as earlier ones; if none of `models` has any, all are shown.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    environment = Environment(
        loader=DictLoader(templates()), autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True
    )
    return environment.get_template(_TEMPLATE).render(_values(lake, config, models), state=state)


def templates() -> dict[str, str]:
    """The templates of the page by name."""
    folder = files("visionlake.jobs")
    return {name: folder.joinpath(name).read_text(encoding="utf-8") for name in _TEMPLATES}


def _shown(value: Any) -> Any:
    """What goes into the page: control characters and direction marks written out; markup of our own as it is."""
    return clean(value, keep_lines=True) if type(value) is str else value


def _state(lake: Lake, config: Config, models: Sequence[str]) -> str:
    """Digest of all that the page is a function of."""
    heads = {name: lake.head(name) for name in _tables(lake)}
    parts = [heads, config.model_dump(mode="json"), __version__, templates(), sorted(models)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _tables(lake: Lake) -> list[str]:
    """The declared tables that there are, without views."""
    return [name for name in declared_names() if isinstance(declaration(name), Table) and lake.exists(name)]


def _values(lake: Lake, config: Config, models: Sequence[str]) -> dict[str, Any]:
    found = _ask(lake, config, models)
    waves, shown = found["waves"], found["shown"]
    newest = max(waves, key=lambda wave: wave["finished_at"], default=None)
    ended = f"{newest['finished_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S}" if newest else ""
    is_past = [bool(models) and is_model(wave["producer"]) and wave["producer"] not in models for wave in waves]
    stages = [{**_stage(wave), "id": f"gate-{place}"} for place, wave in enumerate(waves)]
    reasons = {row["stage"]: f"reason-{place}" for place, row in reversed([*enumerate(found["quarantine"])])}
    values = {
        "title": config.title,
        "lake": lake.uri,
        "version": __version__,
        "run": newest and {"run_id": newest["run_id"], "finished_at": ended},
        "totals": [(name, f"{n:,}") for name, n in _totals(lake, found).items()],
        "card": _card(found),
        "said": found["said"],
        "stages": [stage for stage, past in zip(stages, is_past, strict=True) if not past],
        "past_stages": [stage for stage, past in zip(stages, is_past, strict=True) if past],
        "gates": {stage["name"]: stage["id"] for stage in reversed(stages)},
        "reasons": reasons,
        "quarantine": found["quarantine"],
        "labels": found["labels"],
        "past_labels": [
            {"model_id": m.name, "frames": f"{m.frames:,}", "instances": f"{m.instances:,}"}
            for m in found["models"]
            if m not in shown
        ],
        "diff": found["diff"],
        "splits": found["splits"],
        "exports": found["exports"],
        "frame_count": f"{found['counts'].get('total', 0):,}",
        "quality": _quality(found["counts"].get("quality", {})),
        "tables": [(name, lake.version(name)) for name in _tables(lake)],
    } | pictured(found, who=[each.name for each in (*found["sources"], *shown)])
    # What tells of a source or a model in one section links to the section that is about it.
    values["people"] = {each["name"]: each["id"] for each in (*values["said"], *values["labels"])}
    return values | {"sections": [(name, title) for name, title, key in _SECTIONS if key is None or values[key]]}


def _totals(lake: Lake, found: Mapping[str, Any]) -> dict[str, int]:
    """Rows of the tables that there are, as the other answers have them."""
    totals = dict(found["totals"])
    if found["counts"]:
        totals["frames"] = found["counts"]["total"]
    if lake.exists("quarantine"):
        totals["quarantine"] = sum(row["count"] for row in found["quarantine"])
    if found["shown"]:
        totals["objects"] = sum(model.instances for model in found["shown"])
    return totals


def _card(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The data set in short: files, licences, sizes of frames, classes."""
    counts = found["counts"]
    if not (found["files"] or counts):
        return None
    none = {"kinds": [], "licences": [], "has_more_licences": False, "has_licences": False, "gone": 0}
    return {
        **(found["files"] or none),
        "sizes": [(f"{size} px" if size else "unknown", f"{count:,}") for size, count in counts.get("sizes", ())],
        "is_cut": counts.get("has_more_sizes", False),
        "classes": class_rows(found["sources"], found["shown"]),
    }


def _ask(lake: Lake, config: Config, models: Sequence[str]) -> dict[str, Any]:
    """All that the page tells of the tables, asked side by side."""
    with side_by_side(lake.spark, threads=_THREADS) as start:
        asked = {name: start(ask, lake) for name, ask in _QUESTIONS.items()}
        asked["diff"] = start(_diff, lake, config)
        asked["sheet"] = start(facts.sheet_keys, lake, most=config.max_pictures)
        found = model_facts(lake)
        shown = [model for model in found if model.name in models] or found
        ids, sources = [model.name for model in shown], [source.name for source in asked["sources"].result()]
        asked["galleries"] = start(gallery_keys, lake, models=ids, sources=sources, most=config.max_per_class)
        # Plots are drawn while the others are still asked.
        said = [label_section(source, f"said-{place}") for place, source in enumerate(asked["sources"].result())]
        labels = [label_section(model, f"found-{place}") for place, model in enumerate(shown)]
        answers = {name: answer.result() for name, answer in asked.items()}
        most = config.max_in_all if config.max_pictures else 0
        answers = choose_frames(answers, most_worst=config.max_worst, most=most)
        who = sorted({*ids, *(each["model_id"] for each in answers["evaluations"])})
        keys, side_px = keys_of(answers), config.picture_side_px
        frames = facts.frames_of_keys(lake, keys, side_px=side_px, models=who, sources=sources)
    return {**answers, "models": found, "shown": shown, "said": said, "labels": labels, "frames": frames}


def _diff(lake: Lake, config: Config) -> dict[str, Any] | None:
    if not config.diff_labels:
        return None
    most = min(config.max_worst, config.max_in_all)
    return diff_section(lake, config.diff_labels, most=most, side_px=config.picture_side_px)


def _stage(wave: Mapping[str, Any]) -> dict[str, Any]:
    checks = [{**check, "example_keys": (check["keys"] or ())[: facts.EXAMPLES]} for check in wave["checks"] or ()]
    told = Counter(check["status"] for check in checks if check["status"] not in ("passed", "skipped"))
    worst = max([wave["status"] if wave["status"] in _ORDER else "passed", *told], key=_ORDER.index)
    decided = f"{wave['status']} by {wave['decided_by']}: {wave['decided_why']}" if wave["decided_by"] else ""
    return {
        "name": wave["stage"],
        "producer": wave["producer"] if wave["producer"] != wave["stage"] else "",
        "status": wave["status"],
        "worst": worst,
        "told": ", ".join(f"{count} {status}" for status, count in told.items()),
        "sequence": wave["sequence"],
        **{name: f"{wave[name] or 0:,}" for name in ("rows_in", "rows_published", "rows_quarantined")},
        "error": wave["error"],
        "decided": decided,
        "checks": checks,
        "settings": [(name, json.dumps(value)) for name, value in json.loads(wave["config"] or "{}").items()],
    }


def _quality(measures: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    units = {"brightness": "mean luma, 0 to 255", "contrast": "standard deviation of luma", "sharpness": "log10 of the "
             "variance of the Laplacian"}  # fmt: skip
    return [
        spread(name, bins, low=facts.QUALITY[name][0], high=facts.QUALITY[name][1], unit=units[name], name=name)
        for name, bins in measures.items()
    ]


STAGE = Observer(
    name="report", summary="one page about the lake", config=Config, observe=observe, names_models=("diff_labels",)
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("report")
