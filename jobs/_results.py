"""What a run tells: live to a `Reporter`, and at its end as results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from visionlake.expectations._checks import CheckResult
from visionlake.expectations._table import Metric

Status = Literal["done", "nothing_new", "stopped", "failed", "skipped"]


class Reporter:
    """Hears what happens during a run; this one keeps silent. Override what you want to hear."""

    def stage_started(self, stage: str, parents: int, estimated_rows: int | None) -> None:
        """A stage has `parents` inputs (files, media) to process."""

    def progressed(self, stage: str, parents_done: float, parents_total: int, rows: int) -> None:
        """Work goes on: so many inputs and output rows of the stage so far."""

    def step(self, stage: str, wave_id: str, step: str) -> None:
        """A wave passed a step: staged, judged, stopped, table, quarantine or progress."""

    def stage_finished(self, result: StageResult) -> None:
        """A stage is through, one way or another."""

    def failed(self, stage: str, error: Exception) -> None:
        """A stage failed for a reason that is not the user's; `error` bears the trace."""

    def note(self, text: str) -> None:
        """Something the user should know."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What one stage did in a run. `parents` counts inputs, `published` and `quarantined` rows.

    `exit_code` is that of a failed one. `tally` counts words of published rows (labels), `figures` are numbers about
    the good rows, by name; `wrote` is where an observer's work lies, `delivered` where that of a stage that `deliver`s.
    """

    stage: str
    status: Status
    parents: int = 0
    published: int = 0
    quarantined: int = 0
    seconds: float = 0.0
    waves: int = 0
    wave_id: str | None = None
    checks: tuple[CheckResult, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    exit_code: int = 1
    tally: Mapping[str, int] = field(default_factory=dict)
    figures: Mapping[str, Metric] = field(default_factory=dict)
    wrote: str | None = None
    delivered: str | None = None

    def after_wave(
        self,
        wave_id: str,
        *,
        parents: int,
        published: int,
        quarantined: int,
        checks: Sequence[CheckResult],
        reasons: Mapping[str, int],
        tally: Mapping[str, int],
        figures: Mapping[str, Metric],
    ) -> StageResult:
        """The same with one more wave, and of each check the worst result so far."""
        return replace(
            self,
            parents=self.parents + parents,
            published=self.published + published,
            quarantined=self.quarantined + quarantined,
            waves=self.waves + 1,
            wave_id=wave_id,
            checks=_worst(self.checks, checks),
            reasons=Counter(self.reasons) + Counter(reasons),
            tally=Counter(self.tally) + Counter(tally),
            figures={**self.figures, **figures},
        )


def _worst(before: Sequence[CheckResult], new: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """Per check, the worst result of all waves so far, the newest among equals."""
    rank = {"passed": 0, "warned": 1, "errored": 2, "stopped": 3}
    merged = {check.name: check for check in before}
    for check in new:
        old = merged.get(check.name)
        if old is None or rank.get(check.status, 0) >= rank.get(old.status, 0):
            merged[check.name] = check
    return tuple(merged.values())


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run did, stage by stage. `places` are those of media that failed checks name, by media id."""

    run_id: str
    lake: str
    stages: tuple[StageResult, ...]
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 done, 1 a stage failed, 2 it did because of usage or configuration, 3 a gate stopped one."""
        failed = [stage.exit_code for stage in self.stages if stage.status == "failed"]
        return min(failed) if failed else 3 if any(stage.status == "stopped" for stage in self.stages) else 0

    def place_of(self, key: str) -> str | None:
        """Where the media lie that a check's example is of, if that is known."""
        return next((self.places[media] for media in media_in(key) if media in self.places), None)


def media_in(key: str) -> list[str]:
    """The media ids in a check's example."""
    return re.findall(r"\b[0-9a-f]{64}\b", key)


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a stage would do now.

    `parents` are the inputs that are due, `estimated_rows` what they may yield, `replays` the inputs that were marked
    for replay, `staged_waves` those that wait to be finished.
    """

    stage: str
    parents: int
    estimated_rows: int | None
    replays: int
    staged_waves: int
