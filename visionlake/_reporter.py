"""What a run shows while it works: a bar per stage on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from visionlake.jobs._results import Reporter, StageResult

from ._terminal import clean
from ._traces import keep_trace
from .errors import summarise

_NEXT_STEP = {"staged": "judging", "judged": "publishing", "table": "publishing", "quarantine": "publishing"}


@dataclass(kw_only=True)
class _Stage:
    """Numbers of the stage at work."""

    name: str
    parents: int
    parent_noun: str
    row_noun: str
    estimated_rows: int | None = None
    done: float = 0.0
    rows: int = 0
    doing: str = "working"
    started: float = field(default_factory=time.monotonic)
    took_s: float | None = None

    @property
    def share(self) -> float:
        """How much of the stage is done, 0-1: by inputs, or by rows where they are further."""
        by_parents = self.done / self.parents if self.parents else 0.0
        by_rows = self.rows / self.estimated_rows if self.estimated_rows else 0.0
        return min(max(by_parents, min(by_rows, 0.99)), 1.0)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started if self.took_s is None else self.took_s

    def inputs(self) -> str:
        return f"{_compact(int(self.done))}/{_compact(self.parents)} {self.parent_noun}"

    def outputs(self) -> str:
        return f"{_compact(self.rows)} {self.row_noun}"

    def rate(self) -> str:
        return f"{_number(self.rows / self.seconds)}/s" if self.rows and self.seconds > 0 else ""

    def left(self) -> str:
        """Time left, or what is going on where that cannot be known."""
        if self.doing != "working" or not 0 < self.share < 1:
            return self.doing
        return f"{_clock(self.seconds * (1 - self.share) / self.share)} left"


class TerminalReporter(Reporter):
    """Shows a run; a context manager, since a live bar must be taken down. `nouns`: stage -> (inputs, rows)."""

    def __init__(
        self,
        console: Console,
        *,
        nouns: Mapping[str, tuple[str, str]] | None = None,
        verbose: bool = False,
        every_s: float = 5.0,
    ) -> None:
        self._console = console
        self._nouns = nouns or {}
        self._verbose = verbose
        self._every_s = every_s
        self._last_line = 0.0
        self._stage: _Stage | None = None
        self._bar: TaskID | None = None
        self._progress = _bars(console) if console.is_terminal else None

    def __enter__(self) -> TerminalReporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def stage_started(self, stage: str, parents: int, estimated_rows: int | None) -> None:
        if self._stage is not None and self._stage.name == stage:  # more was found
            self._stage.parents = max(parents, self._stage.parents)
            self._stage.estimated_rows = estimated_rows or self._stage.estimated_rows
            self._stage.doing = "working"
            self._refresh()
            return
        parent_noun, row_noun = self._nouns.get(stage, ("inputs", "rows"))
        self._stage = _Stage(
            name=stage, parents=parents, parent_noun=parent_noun, row_noun=row_noun, estimated_rows=estimated_rows
        )
        if self._progress is not None:
            self._progress.start()
            self._bar = self._progress.add_task(clean(stage), total=None, stage=self._stage, state="")
        else:
            rows = "" if estimated_rows is None else f", about {estimated_rows:,} {row_noun}"
            self._line(f"{self._stage.name}: {parents:,} {parent_noun} to do{rows}")

    def progressed(self, stage: str, parents_done: float, parents_total: int, rows: int) -> None:
        if self._stage is None or self._stage.name != stage:
            self.stage_started(stage, parents_total, None)
        assert self._stage is not None
        self._stage.done, self._stage.rows = parents_done, max(rows, self._stage.rows)
        self._stage.parents = max(parents_total, self._stage.parents)
        self._stage.doing = "working"
        self._refresh()
        if self._progress is None and time.monotonic() - self._last_line >= self._every_s:
            parts = [self._stage.inputs(), self._stage.outputs(), self._stage.rate(), self._stage.left()]
            self._line(f"{self._stage.name}: {', '.join(part for part in parts if part)}")

    def step(self, stage: str, wave_id: str, step: str) -> None:
        if self._stage is not None:
            self._stage.doing = _NEXT_STEP.get(step, "working")
            self._refresh()

    def stage_finished(self, result: StageResult) -> None:
        if self._stage is not None and self._stage.name == result.stage:
            self._stage.rows, self._stage.took_s = result.published or self._stage.rows, result.seconds
            if self._progress is not None and self._bar is not None:
                if result.status == "done":
                    self._stage.done = self._stage.parents = max(result.parents, 1)
                state = f"{result.status} {_clock(result.seconds)}"
                self._progress.update(self._bar, total=1.0, completed=self._stage.share, state=state)
                self._progress.stop_task(self._bar)
            else:
                self._line(f"{self._stage.name}: {result.status} after {_clock(result.seconds)}")
        self._stage = self._bar = None

    def failed(self, stage: str, error: Exception) -> None:
        """A stage broke down; the trace is kept in a file, or shown with `verbose`."""
        if self._verbose:
            self._line(f"{stage}: {keep_trace(error, shown=True)}")
        else:
            self._line(f"{stage}: {summarise(error)}")
            self._line(f"{stage}: the full trace is in {keep_trace(error)}")

    def note(self, text: str) -> None:
        self._line(text)

    def _refresh(self) -> None:
        if self._progress is not None and self._bar is not None and self._stage is not None:
            share = self._stage.share
            self._progress.update(self._bar, total=1.0 if share else None, completed=share)

    def _line(self, text: str) -> None:
        console = self._console if self._progress is None else self._progress.console
        console.print(Text(clean(text, keep_lines=True)), soft_wrap=True)
        self._last_line = time.monotonic()


class _Field(ProgressColumn):
    """A column with one of the stage's own texts, made anew at every refresh since time goes on."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__()

    def render(self, task: Task) -> Text:
        if self._name == "left" and task.fields["state"]:
            return Text(task.fields["state"], no_wrap=True)
        return Text(getattr(task.fields["stage"], self._name)(), justify="right", no_wrap=True)


def _bars(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=max(8, min(40, console.width - 72))),  # the numbers come first
        *(_Field(name) for name in ("inputs", "outputs", "rate", "left")),
    )
    return Progress(*columns, console=console, refresh_per_second=4)


def _compact(number: int) -> str:
    return f"{number / 1e6:,.1f}M" if number >= 1_000_000 else f"{number:,}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _clock(seconds: float) -> str:
    """Seconds as 0:07, 12:30 or 1:02:03."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
