"""What a run shows at its end: stages, quarantine, what gates found, and what to do next. And the plan of a dry run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from visionlake.jobs._config import Pipeline, resolved

from ._terminal import cell, clean, make_table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from visionlake.jobs._results import RunResult, StagePlan, StageResult

_STYLES = {"passed": "green", "stopped": "bold red", "failed": "bold red", "errored": "bold red", "warned": "yellow"}
_SECRET = re.compile(r"secret|password|token|credential|account\.key|access\.key", re.IGNORECASE)
_SHOWN_KEYS = 5
_SHOWN_WORDS = 12


def print_result(console: Console, result: RunResult, *, pipeline: str) -> None:
    """The end of a run. `pipeline` is the file as the user typed it, for commands to paste."""
    console.print()
    _print_stages(console, result)
    _print_reasons(console, result)
    _print_tallies(console, result)
    _print_figures(console, result)
    for stage in result.stages:
        _print_failed_checks(console, stage, result)
        if stage.error and stage.status == "failed":
            _print_lines(console, f"{stage.stage} failed: {stage.error}", style="bold red")
    _print_next(console, result, pipeline)


def print_plan(console: Console, plans: Sequence[StagePlan], pipeline: Pipeline) -> None:
    """What a run would do, and the configuration that it would do it with."""
    numbers = ("due", "rows, about", "to replay", "staged waves")
    table = make_table("stage", *numbers, right=numbers, whole=("stage",))
    for plan in plans:
        table.add_row(
            clean(plan.stage), cell(plan.parents), cell(plan.estimated_rows), cell(plan.replays or None),
            cell(plan.staged_waves or None),
        )  # fmt: skip
    console.print(table)
    if len(plans) > 1:
        console.print(Text("Later stages see only what earlier ones have published already.", style="dim"))
    settings = [f"lake = {json.dumps(pipeline.lake)}"]
    planned = {plan.stage for plan in plans}
    for stage, config in pipeline.stages:
        if stage.label in planned:
            settings += ["", f"[{stage.label}]", *_settings(config)]
    settings += ["", "[mlflow]", *_settings(pipeline.tracking)]
    if pipeline.spark:
        shown = {name: "***" if _SECRET.search(name) else value for name, value in pipeline.spark.items()}
        settings += ["", "[spark]", *(_assignment(name, value) for name, value in shown.items())]
    _print_lines(console, "\n".join(["", *settings]))


def _print_stages(console: Console, result: RunResult) -> None:
    numbers = ("new", "published", "quarantined", "seconds", "rows/s")
    table = make_table("stage", *numbers, "gate", right=numbers, whole=("stage",))
    for stage in result.stages:
        rate = stage.published / stage.seconds if stage.published and stage.seconds else 0.0
        shown = "-" if not rate else f"{rate:,.1f}" if rate >= 1 else f"{rate:.2g}"
        counts = (stage.parents, stage.published, stage.quarantined)
        looks_only = stage.wrote is not None
        table.add_row(
            clean(stage.stage), *(cell(None if looks_only else count) for count in counts),
            Text(f"{stage.seconds:,.1f}"), Text(shown), _gate(stage),
        )  # fmt: skip
    console.print(table)


def _gate(stage: StageResult) -> Text:
    if stage.status in ("failed", "stopped"):
        return Text(stage.status, style=_STYLES[stage.status])
    if stage.status == "skipped":
        return Text(clean(stage.error or "skipped"), style="dim")
    if stage.status == "nothing_new":
        return Text("nothing new", style="dim")
    if stage.wrote is not None:
        return Text("-", style="dim")
    told = sum(check.failed for check in stage.checks)
    if told:
        return Text("1 warning" if told == 1 else f"{told} warnings", style=_STYLES["warned"])
    return Text("passed", style=_STYLES["passed"])


def _print_reasons(console: Console, result: RunResult) -> None:
    rows = [
        (f"{s.stage} (held back)" if s.status == "stopped" else s.stage, reason, count)
        for s in result.stages
        for reason, count in s.reasons.items()
        if count
    ]
    if not rows:
        return
    console.print()
    table = make_table("quarantine", "reason", "rows", right=("rows",))
    for stage, reason, count in sorted(rows, key=lambda row: (row[0], -row[2], row[1])):
        table.add_row(clean(stage), Text(clean(reason)), cell(count))
    console.print(table)


def _print_tallies(console: Console, result: RunResult) -> None:
    """The most frequent words (labels) of what was published."""
    for stage in result.stages:
        if not stage.tally:
            continue
        console.print()
        table = make_table(stage.stage, "found", right=("found",))
        ordered = sorted(stage.tally.items(), key=lambda item: (-item[1], item[0]))
        for word, count in ordered[:_SHOWN_WORDS]:
            table.add_row(Text(clean(word)), cell(count))
        if rest := ordered[_SHOWN_WORDS:]:
            table.add_row(Text(f"{len(rest)} others", style="dim"), cell(sum(count for _, count in rest)))
        console.print(table)


def _print_figures(console: Console, result: RunResult) -> None:
    """Numbers about what was made, also where the gate holds it back."""
    for stage in result.stages:
        if not stage.figures:
            continue
        console.print()
        table = make_table(stage.stage, "", right=("",))
        for name, value in stage.figures.items():
            shown = f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
            table.add_row(Text(clean(name)), Text(shown))
        console.print(table)


def _print_failed_checks(console: Console, stage: StageResult, result: RunResult) -> None:
    for check in stage.checks:
        if not check.failed:
            continue
        heading = Text.assemble(
            "\n", (clean(stage.stage), "bold"), ": check ", (clean(check.name), "bold"), " ",
            (check.status, _STYLES.get(check.status, "")),
        )  # fmt: skip
        console.print(heading)
        rows = {"expected": check.expected, "observed": check.observed, "message": check.message}
        grid = make_table("", "")
        grid.show_header, grid.box = False, None
        for name, value in rows.items():
            if value:
                grid.add_row(Text(f"  {name}"), Text(clean(value, keep_lines=True)))
        for place, key in enumerate(check.keys[:_SHOWN_KEYS]):
            example = Text(clean(key))
            if where := result.place_of(key):
                example.append(f"  {clean(where)}", "dim")
            grid.add_row(Text("  for example" if place == 0 else ""), example)
        console.print(grid)


def _print_next(console: Console, result: RunResult, pipeline: str) -> None:
    file, program = shlex.quote(pipeline), _program()
    steps: list[tuple[str, str]] = []
    for stage in result.stages:
        if stage.status == "stopped" and stage.wave_id:
            wave = f"{file} {shlex.quote(stage.wave_id)}"
            steps += [
                (f"look at the wave that {stage.stage} stopped", f"{program} waves show {wave}"),
                ("publish it despite the gate", f"{program} waves release {wave} --why '...'"),
                ("send it to quarantine and go on", f"{program} waves drop {wave} --why '...'"),
            ]
    if result.exit_code:
        steps.append(("when the cause is mended, go on where it stopped", f"{program} run {file}"))
    if any(stage.quarantined for stage in result.stages):
        steps.append(("see what is in quarantine", f"{program} quarantine list {file}"))
    steps += [(f"look at the {stage.stage}", stage.wrote) for stage in result.stages if stage.wrote]
    steps += [(f"use what {stage.stage} made", stage.delivered) for stage in result.stages if stage.delivered]
    if not result.exit_code:
        steps.append(("see the tables", f"{program} tables {file}"))
    console.print(Text("\nWhat next", style="bold"))
    for words, command in steps:
        _print_lines(console, f"  # {words}", style="dim")
        _print_lines(console, f"  {command}")


def _program() -> str:
    """How the shell of whoever reads it finds this command line: by name, or else by its path."""
    own = Path(sys.executable).with_name("visionlake")
    return "visionlake" if shutil.which("visionlake") or not own.exists() else shlex.quote(os.path.relpath(own))


def _print_lines(console: Console, text: str, *, style: str = "") -> None:
    """Text that may be copied: the terminal folds it, we do not."""
    console.print(Text(clean(text, keep_lines=True), style=style), soft_wrap=True)


def _settings(config: BaseModel) -> list[str]:
    """A section's lines; TOML has no word for what is unset, so a remark says what that means."""
    fields = type(config).model_fields
    return [
        _assignment(name, value) if value is not None else f"# {name} unset: {fields[name].description or 'none'}"
        for name, value in resolved(config).items()
    ]


def _assignment(name: str, value: object) -> str:
    return f"{name} = {json.dumps(value, ensure_ascii=False)}"
