"""Waves as a person handles them: list, show, release despite the gate, drop."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionlake.errors import ConfigError, UsageError

from . import _staging
from ._record import DONE, Wave, producer_of, read_history
from ._results import Reporter
from ._runner import Decision, StageRun
from ._sections import with_producers
from ._tracking import make_tracker

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._config import Pipeline
    from ._lake import Lake
    from ._stage import Stage, StageConfig


def list_waves(lake: Lake, *, limit: int | None = None) -> list[dict[str, Any]]:
    """Rows of `waves`, newest first, and staged waves that have none yet (status `staged`)."""
    from pyspark.sql import functions as F

    staged = _all_staged(lake)
    rows: list[dict[str, Any]] = []
    if lake.exists("waves"):
        found = lake.table("waves").orderBy(F.desc("started_at"), F.desc("sequence"))
        rows = _as_dicts(found if limit is None else found.limit(limit))
    known = {row["wave_id"] for row in rows} | {row["wave_id"] for row in _recorded(lake, [w.wave_id for w in staged])}
    rows += [_as_row(wave) for wave in staged if wave.wave_id not in known]
    return sorted(rows, key=lambda row: (str(row["started_at"]), row["sequence"]), reverse=True)[:limit]


def show_wave(lake: Lake, wave_id: str) -> Mapping[str, Any]:
    """One wave's row. Raises UsageError for an unknown id."""
    staged = [wave for wave in _all_staged(lake) if wave.wave_id == wave_id]
    rows = [*_recorded(lake, [wave_id]), *map(_as_row, staged)]
    if not rows:
        raise UsageError(f"no wave {wave_id!r}; `visionlake waves list` shows those there are")
    return rows[0]


def release(lake: Lake, wave_id: str, *, who: str, why: str, pipeline: Pipeline) -> None:
    """Publish a stopped wave despite its gate; who and why are recorded."""
    _decide(lake, wave_id, Decision(status="released", who=who, why=why), pipeline)


def drop(lake: Lake, wave_id: str, *, who: str, why: str, pipeline: Pipeline) -> None:
    """Send a stopped wave's rows to quarantine and move on; who and why are recorded."""
    _decide(lake, wave_id, Decision(status="dropped", who=who, why=why), pipeline)


def _decide(lake: Lake, wave_id: str, decision: Decision, pipeline: Pipeline) -> None:
    wave = next((w for w in _all_staged(lake) if w.wave_id == wave_id), None)
    if wave is None:
        status = show_wave(lake, wave_id)["status"]
        raise UsageError(f"wave {wave_id} is {status}; only a wave that waits (stopped or staged) can be decided on")
    named = [(stage, config) for stage, config in pipeline.stages if stage.name == wave.stage]
    chosen = [pair for pair in named if _is_of(wave, *pair, pipeline)]
    if decision.status == "dropped":
        chosen = chosen or named  # to drop a wave, nothing has to be made again
    if not chosen:
        made = ", ".join(f"{name} = {json.dumps(value)}" for name, value in sorted(wave.config.items()) if value)
        raise UsageError(
            f"wave {wave_id} is of {wave.stage} as {wave.producer}, which {pipeline.path} does not have; put back what "
            f"made it ({made}), or drop the wave with a section of {wave.stage} in the file"
        )
    stage, config = chosen[0]
    reporter = Reporter()
    tracker = make_tracker(pipeline.tracking, lake_uri=lake.uri, note=reporter.note)
    job = StageRun(
        stage=stage, config=config, lake=lake, run_id=wave.run_id, reporter=reporter, tracker=tracker,
        producer=wave.producer,
    )  # fmt: skip
    job.history = read_history(lake, stage=stage.name, producer=wave.producer, staged=[wave_id])
    if job.history.statuses.get(wave_id) in DONE:
        raise UsageError(f"wave {wave_id} is {job.history.statuses[wave_id]} already")
    try:
        job.finish(wave, decision=decision)
    finally:
        tracker.close()


def _is_of(wave: Wave, stage: Stage, config: StageConfig, pipeline: Pipeline) -> bool:
    """Whether a section makes such waves; one whose model cannot be found does not."""
    try:
        return producer_of(stage, with_producers(stage, config, pipeline.stages)) == wave.producer
    except ConfigError:
        return False


def _all_staged(lake: Lake) -> list[Wave]:
    if lake.as_of is not None:
        return []  # what is staged is of today
    return _staging.staged_waves(lake, stage="*")


def _recorded(lake: Lake, wave_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that `waves` has of some waves."""
    from pyspark.sql import functions as F

    if not wave_ids or not lake.exists("waves"):
        return []
    return _as_dicts(lake.table("waves").where(F.col("wave_id").isin(*wave_ids)))


def _as_dicts(rows: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict(recursive=True) for row in rows.collect()]


def _as_row(wave: Wave) -> dict[str, Any]:
    return {
        "wave_id": wave.wave_id, "run_id": wave.run_id, "stage": wave.stage, "producer": wave.producer,
        "status": "staged", "sequence": wave.sequence, "started_at": wave.started_at, "mode": wave.mode,
        "rows_in": wave.rows_in, "rows_published": 0, "rows_quarantined": 0, "checks": [], "error": None,
    }  # fmt: skip
