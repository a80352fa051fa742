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
from visionlake.jobs import _report_facts as facts
from visionlake.jobs._lake import Lake
from visionlake.jobs._report_diff import diff_section
from visionlake.jobs._report_pictures import pictures_by_label
from visionlake.jobs._side import side_by_side
from visionlake.jobs._stage import Observed, Observer, Settings, setting

PAGE = "report.html"
_TEMPLATE = "report.html.jinja"
_STATE = re.compile(r'<meta name="visionlake-state" content="([0-9a-f]{64})">')
_MAX_LABELS = 30
_ORDER = ("passed", "skipped", "warned", "errored", "failed", "stopped")
_ITEMS = ("media", "frames", "quarantine")
_QUESTIONS: Mapping[str, Callable[[Lake], Any]] = {
    "waves": facts.newest_waves,
    "quarantine": facts.quarantined,
    "quality": facts.quality_counts,
    "totals": lambda lake: facts.counts(lake, _ITEMS),
    "gone": facts.gone_files,
}
_THREADS = 2  # for these: few answers are large, and what takes time is to plan them


class Config(Settings):
    """Settings of `[report]`."""

    title: str = setting("visionlake report", min_length=1, max_length=200, description="heading of the page")
    max_pictures: int = setting(48, ge=0, le=500, description="frames that the page shows")
    diff_labels: tuple[str, str] | None = setting(
        None, description="two models, sections or model ids: a section of the page compares what they found"
    )
    max_worst: int = setting(12, ge=0, le=200, description="frames shown on which these agree least")
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
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True)
    return environment.from_string(_template()).render(_values(lake, config, models), state=state)


def _template() -> str:
    return files("visionlake.jobs").joinpath(_TEMPLATE).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """What goes into the page: control characters and direction marks written out; markup of our own as it is."""
    return clean(value, keep_lines=True) if type(value) is str else value


def _state(lake: Lake, config: Config, models: Sequence[str]) -> str:
    """Digest of all that the page is a function of."""
    heads = {name: lake.head(name) for name in _tables(lake)}
    parts = [heads, config.model_dump(mode="json"), __version__, _template(), sorted(models)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _tables(lake: Lake) -> list[str]:
    """The declared tables that there are, without views."""
    return [name for name in declared_names() if isinstance(declaration(name), Table) and lake.exists(name)]


def _values(lake: Lake, config: Config, models: Sequence[str]) -> dict[str, Any]:
    found = _ask(lake, config, models)
    waves, totals, shown = found["waves"], found["totals"], found["shown"]
    newest = max(waves, key=lambda wave: wave["finished_at"], default=None)
    ended = f"{newest['finished_at'].astimezone(UTC):%Y-%m-%d %H:%M:%S}" if newest else ""
    is_past = [bool(models) and wave["producer"] not in (wave["stage"], *models) for wave in waves]
    return {
        "title": config.title,
        "lake": lake.uri,
        "version": __version__,
        "run": newest and {"run_id": newest["run_id"], "finished_at": ended},
        "totals": [(name, f"{n:,}") for name, n in totals.items()]
        + [("objects", f"{sum(model.instances for model in shown):,}")] * bool(shown),
        "gone": found["gone"],
        "sections": _sections(
            has_labels=bool(shown),
            has_diff=found["diff"] is not None,
            has_frames=bool(found["pictures"]),
            has_quality=bool(found["quality"]),
        ),
        "stages": [_stage(wave) for wave, past in zip(waves, is_past, strict=True) if not past],
        "past_stages": [_stage(wave) for wave, past in zip(waves, is_past, strict=True) if past],
        "quarantine": found["quarantine"],
        "labels": found["labels"],
        "past_labels": [
            {"model_id": m.model_id, "frames": f"{m.frames:,}", "instances": f"{m.instances:,}"}
            for m in found["models"]
            if m not in shown
        ],
        "diff": found["diff"],
        "pictures": pictures_by_label(found["pictures"]),
        "frame_count": f"{totals.get('frames', 0):,}",
        "quality": _quality(found["quality"]),
        "tables": [(name, lake.version(name)) for name in _tables(lake)],
    }


def _ask(lake: Lake, config: Config, models: Sequence[str]) -> dict[str, Any]:
    """All that the page tells of the tables, asked side by side."""
    with side_by_side(lake.spark, threads=_THREADS) as start:
        asked = {name: start(ask, lake) for name, ask in _QUESTIONS.items()}
        asked["diff"] = start(_diff, lake, config)
        keys = start(facts.sheet_keys, lake, most=config.max_pictures)
        found = facts.model_facts(lake)
        shown = [model for model in found if model.model_id in models] or found
        ids = [model.model_id for model in shown]
        pictures = facts.frames_of_keys(lake, keys.result(), side_px=config.picture_side_px, models=ids)
        labels = [_model(model, place) for place, model in enumerate(shown)]
    answers = {name: answer.result() for name, answer in asked.items()}
    return {**answers, "models": found, "shown": shown, "labels": labels, "pictures": pictures}


def _diff(lake: Lake, config: Config) -> dict[str, Any] | None:
    if not config.diff_labels:
        return None
    return diff_section(lake, config.diff_labels, most=config.max_worst, side_px=config.picture_side_px)


def _sections(*, has_labels: bool, has_diff: bool, has_frames: bool, has_quality: bool) -> list[tuple[str, str]]:
    found = [("stages", "Stages and gates"), ("quarantine", "Quarantine")]
    found += (
        [("labels", "Labels")] * has_labels
        + [("agreement", "Agreement")] * has_diff
        + [("frames", "Frames")] * has_frames
    )
    return [*found, *[("quality", "Quality")] * has_quality, ("versions", "Versions and models")]


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


def _model(model: facts.ModelFacts, place: int) -> dict[str, Any]:
    from markupsafe import Markup

    from visionlake.udfs.plots import bar_plot, histogram

    shown = list(model.labels.items())[:_MAX_LABELS]
    more = f", the {_MAX_LABELS} most frequent of {len(model.labels)}" if len(model.labels) > _MAX_LABELS else ""
    octaves = range(min(model.octaves, default=0), max(model.octaves, default=-1) + 1)
    plots = [
        (
            "objects by label" + more,
            bar_plot([clean(n) for n, _ in shown], [c for _, c in shown], name=f"label{place}"),
        ),
        ("scores", histogram(model.scores, low=0, high=1, unit="score", name=f"score{place}")),
        (
            "sizes (square root of the area)",
            bar_plot(
                [f"{2**o:,} to {2 ** (o + 1):,} px" for o in octaves],
                [model.octaves.get(o, 0) for o in octaves],
                name=f"size{place}",
            ),
        ),
    ]
    return {
        "model_id": model.model_id,
        "frames": f"{model.frames:,}",
        "instances": f"{model.instances:,}",
        "plots": [{"title": title, "svg": Markup(svg)} for title, svg in plots] if model.instances else [],
    }


def _quality(measures: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    from markupsafe import Markup

    from visionlake.udfs.plots import histogram

    units = {"brightness": "mean luma, 0 to 255", "contrast": "standard deviation of luma", "sharpness": "log10 of the "
             "variance of the Laplacian"}  # fmt: skip
    return [
        {
            "title": name,
            "svg": Markup(
                histogram(bins, low=facts.QUALITY[name][0], high=facts.QUALITY[name][1], unit=units[name], name=name)
            ),
        }
        for name, bins in measures.items()
    ]


STAGE = Observer(
    name="report", summary="one page about the lake", config=Config, observe=observe, names_models=("diff_labels",)
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("report")
