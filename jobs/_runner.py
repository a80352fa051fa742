"""Runs one stage: find what is due, stage it in bounded waves, audit each, publish it, record it.

Write - audit - publish. A wave is computed once and staged durably; publishing is three steps, each idempotent by key:
the tables, the quarantine, then the wave's row, which alone is progress. A kill anywhere is mended by running again.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from visionlake.errors import StageError
from visionlake.expectations._gate import prepare
from visionlake.expectations._table import Metric

from . import _staging
from ._audit import Audit, audit, dropped
from ._cut import Cut, cut
from ._due import find_due
from ._feed import CHANGED_AT, DELETED, Due, find_replays, past_itself
from ._histories import Histories
from ._judge import all_checks
from ._lake import Lake, read_errors
from ._outputs import publish_quarantine, publish_tables, written_by
from ._predicate import tables_named
from ._progress import watch
from ._publish import near
from ._quarantine import replay_unread
from ._record import (
    DONE,
    History,
    Progress,
    Wave,
    producer_of,
    read_observed,
    resolved,
    settings_digest,
    write_row,
)
from ._results import Reporter, StageResult
from ._sections import why_nothing
from ._select import predicate_of
from ._side import side_by_side
from ._stage import Discovery, Input, Stage, StageConfig, Tables
from ._whole import as_map, changed_since, read_by, versions_to_read

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Somebody's word on a stopped wave: publish it despite the gate (released) or not (dropped)."""

    status: str
    who: str
    why: str


@dataclass(kw_only=True)
class StageRun:
    """One stage in one run; `execute` does the work. `limit` bounds the units (media, files) of this run.

    `histories` are those of the run, for `execute`. `producer` is that of the settings, unless it is given.
    """

    stage: Stage
    config: StageConfig
    lake: Lake
    run_id: str
    reporter: Reporter
    tracker: Tracker
    limit: int | None = None
    rebuild: bool = False
    history: History = field(default_factory=History)
    histories: Histories | None = None
    producer: str = ""

    def __post_init__(self) -> None:
        self.producer = self.producer or producer_of(self.stage, self.config)
        self.digest = settings_digest(self.config)
        self.result = StageResult(stage=self.stage.label, status="nothing_new")
        self.total_parents = self.units_done = 0
        self.wave: Wave | None = None
        self._newest: int | None = None
        self._read: dict[str, int] = {}
        self._staged: tuple[DataFrame, DataFrame] | None = None
        self._figures: Mapping[str, Metric] = {}

    def execute(self) -> StageResult:
        """Finish staged waves, then make and publish new ones until nothing is due or a gate stops."""
        started = time.monotonic()
        staged = [w for w in _staging.staged_waves(self.lake, stage=self.stage.name) if w.producer == self.producer]
        assert self.histories is not None
        self.history = self.histories.of(self.stage.name, self.producer, staged=[wave.wave_id for wave in staged])
        has_published = self.history.progress is not None
        self._retry_unread()
        with side_by_side(self.lake.spark, threads=1) as start:
            start(self._make_tables)  # meanwhile what is due is looked for
            if has_published or staged:
                self._make_tables()
            self._refill_lost()
            if self._finish_staged(staged):
                self._feed()
            if self.result.status != "stopped" and has_published:  # or there is nothing to replay
                self._replay()
        self._make_tables()
        if self.stage.gather and not self.result.waves and not self.history.outputs:
            self.reporter.note(f"{self.stage.label}: {why_nothing(self.stage, self.config, self.lake)}")
        self.result = replace(self.result, seconds=time.monotonic() - started)
        return self.result

    def finish(self, wave: Wave, *, decision: Decision | None = None) -> bool:
        """Judge a staged wave and publish it; False where its gate stopped it."""
        self.wave = wave
        parents, rows = self._staged or _staging.read_parts(self.lake, wave)
        self._staged = None
        audited = audit(self.stage, self.config, wave, staged=rows, parents=parents, earlier=self._earlier(wave))
        self._step(wave, "judged")
        if audited.is_stopped and decision is None:
            self._record(wave, audited, status="stopped", outputs=[])
            self._count(wave, audited, status="stopped")
            return False
        outputs: list[dict[str, Any]] = []
        if decision and decision.status == "dropped":
            audited = dropped(self.stage, wave, audited)
        else:
            outputs = publish_tables(self.lake, self.stage, wave, audited, rows=rows, parents=parents)
            if self.stage.deliver:
                rows_of = {output.table.name: output.rows for output in audited.outputs}
                self.result = replace(self.result, delivered=self.stage.deliver(rows_of, self.config))
        self._step(wave, "table")
        publish_quarantine(self.lake, self.stage, wave, audited, parents=parents)
        self._step(wave, "quarantine")
        if self.stage.gather and decision is None:  # whoever decides may not know today's sources
            wave = replace(wave, progress=past_itself(self.stage, self.config, self.lake, wave.progress))
        self._record(
            wave, audited, status=decision.status if decision else "published", outputs=outputs, decision=decision
        )
        self._step(wave, "progress")
        self._count(wave, audited, status="done")
        _staging.discard(self.lake, wave)
        return True

    def _make_tables(self) -> None:
        """Make what a wave is published into, if need be; of two threads the later one waits for the earlier."""
        for table in written_by(self.stage):
            self.lake.ensure(table)

    def _retry_unread(self) -> None:
        """What could not be read is due again once a table that says where it lies has changed.

        It is marked before any wave of this run says that it saw that change, and stays marked until it was tried.
        """
        if not self.stage.unreadable:
            return
        read = {table.table.name for table in self.stage.inputs[1:]}
        seen = [(name, version) for name, version in self.history.lookups.items() if name in read]
        if any(self.lake.exists(name) and self.lake.version(name) != version for name, version in seen):
            reasons = self.stage.unreadable
            replay_unread(self.lake, stage=self.stage.name, producer=self.producer, reasons=reasons)

    def _refill_lost(self) -> None:
        """A table that is younger than what this stage wrote was made anew: everything is due again."""
        lost = [name for name, version in self.history.outputs.items() if self.lake.version(name) < version]
        if lost:
            self.rebuild = True
            names = " and ".join(lost)
            self.reporter.note(f"{self.stage.label}: {names} was made anew, so everything is processed again")

    def _earlier(self, wave: Wave) -> Mapping[str, float]:
        """What checks that compare waves have seen before."""
        if self.history.progress is None:  # no wave of this producer was published yet
            return {}
        names = [check.name for check in all_checks(self.stage, self.config) if check.factor is not None]
        return read_observed(self.lake, wave, names) if names else {}

    def _finish_staged(self, staged: Sequence[Wave]) -> bool:
        """Finish what an earlier run staged; False where a gate stopped one of those waves."""
        current = [wave for wave in staged if wave.settings_digest == self.digest and not self._is_outdated(wave)]
        if current and self.history.settings_digest not in (None, self.digest):
            self.rebuild = False  # what is staged is a rebuild's that was killed: it goes on
        for wave in staged:
            status = self.history.statuses.get(wave.wave_id)
            if status in DONE or self.rebuild or wave not in current:
                if status and status not in DONE:
                    write_row(self.lake, wave, known=True, status="superseded")
                _staging.discard(self.lake, wave)
                continue
            self.reporter.stage_started(self.stage.label, wave.rows_in, None)
            self.reporter.note(f"{self.stage.label}: finishing wave {wave.wave_id}, staged by an earlier run")
            if not self.finish(wave):
                return False
        return True

    def _is_outdated(self, wave: Wave) -> bool:
        """Whether what is staged tells of tables or files as they no longer are, where it is to tell of them now."""
        if not (self.stage.is_whole or self.stage.redoes_staged):
            return False
        if changed_since(self.lake, self.stage, self.config, wave.lookups):
            return True
        found = self._discover(is_rebuild=True)
        parents = _staging.read_parts(self.lake, wave)[0].select(found.columns)
        return found.toArrow().to_pylist() != parents.toArrow().to_pylist()

    def _feed(self) -> None:
        """Waves over what the change feed, or the stage itself, finds due."""
        if self.stage.discover:
            self._discovered()
            return
        parent = self.stage.inputs[0].table.name
        self._newest = self.lake.version(parent) if self.lake.exists(parent) else None
        rebuild = self.rebuild
        while due := find_due(
            self.stage, self.config, self.lake, self.history, producer=self.producer, rebuild=rebuild
        ):
            rebuild = False
            if not self._next_wave(due, lookups=self.stage.inputs[1:]):
                return

    def _discovered(self) -> None:
        """Waves over what the stage finds by itself, looked up once. An unfinished rebuild goes on where it was."""
        done = self.history.progress
        resumes = self.history.mode == "rebuild" and done is not None and not done.is_complete
        is_rebuild = self.rebuild or resumes
        from pyspark.sql import functions as F

        parents = self._discover(is_rebuild=is_rebuild).withColumn(DELETED, F.lit(False)).persist()
        progress = done if resumes and not self.rebuild and done else Progress(table="files")
        try:
            while True:
                after = F.lit(True) if progress.last_key is None else F.col(self.stage.unit) > progress.last_key
                mode = "rebuild" if is_rebuild else "discovered"
                due = Due(parents=parents.where(after), mode=mode, progress=progress)
                if not self._next_wave(due, lookups=self.stage.inputs):
                    return
                progress = self.history.progress or progress
        finally:
            parents.unpersist()

    def _discover(self, *, is_rebuild: bool) -> DataFrame:
        assert self.stage.discover is not None
        seen = self.history.lookups if self.history.progress else None
        return self.stage.discover(
            Discovery(
                spark=self.lake.spark, lake=self.lake, config=self.config, now=datetime.now(UTC), run_id=self.run_id,
                is_rebuild=is_rebuild, seen=seen,
            )
        )  # fmt: skip

    def _replay(self) -> None:
        while due := find_replays(self.stage, self.config, self.lake, self.history, producer=self.producer):
            if not self._next_wave(due, lookups=self.stage.inputs[1:]):
                return

    def _next_wave(self, due: Due, *, lookups: Sequence[Input]) -> bool:
        """Stage and finish the next wave of `due`. False where nothing is left to do, or the gate stopped."""
        if self._is_at_limit():  # by what an earlier run had staged
            due.release()
            return False
        try:
            part = self._cut(due)
        except read_errors():
            due.release()
            if due.instead is None:
                raise
            due = due.instead()
            part = self._cut(due)
        try:
            return self._work_on(due, part, lookups=lookups)
        finally:
            due.release()

    def _work_on(self, due: Due, part: Cut, *, lookups: Sequence[Input]) -> bool:
        from pyspark.sql import functions as F

        self._make_tables()
        if not part.units:
            if not due.progress.is_complete or due.progress.version != (self.history.progress or due.progress).version:
                self._record_nothing(due)
            return self._is_behind(due)
        wave = self._header(due, part, lookups=lookups)
        # Literal values let Delta skip the files of other parents.
        parents = due.parents.where(near(self.stage.unit, wave.units))
        parents = parents.where(F.col(self.stage.unit) <= F.lit(wave.units[-1]))
        self._stage_wave(wave, parents)
        return self.finish(wave) and not self._is_at_limit() and (not part.is_last or self._is_behind(due))

    def _is_behind(self, due: Due) -> bool:
        """Whether this is the rest of what an interrupted run had begun, and its input has changed since."""
        version, newest = due.progress.version, self._newest
        return version is not None and newest is not None and version < newest

    def _cut(self, due: Due) -> Cut:
        left = self._left() if self.limit else None
        part = cut(due.parents, self.stage, self.config, left=left, is_first=not self.result.waves)
        if part.units and part.due_units is not None:
            self.total_parents = part.due_units
            self.reporter.stage_started(self.stage.label, part.due_units, part.due_rows)
        return part

    def _left(self) -> int:
        return max(0, (self.limit or 0) - self.units_done)

    def _is_at_limit(self) -> bool:
        return bool(self.limit) and not self._left()

    def _header(self, due: Due, part: Cut, *, lookups: Sequence[Input]) -> Wave:
        sequence = self.history.sequence + 1
        moved = replace(due.progress, last_key=part.keys[-1] if part.units else None, is_complete=part.is_last)
        return Wave(
            wave_id=f"{self.run_id}-{self.stage.label}-{sequence}",
            run_id=self.run_id,
            stage=self.stage.name,
            producer=self.producer,
            sequence=sequence,
            started_at=datetime.now(UTC).isoformat(),
            # A replay does not move progress: the feed goes on where it was.
            mode=self.history.mode or due.mode if due.mode == "replay" else due.mode,
            progress=due.progress if due.mode == "replay" else moved,
            config=resolved(self.config),
            settings_digest=self.digest,
            parent_key=list(self.stage.key_of_parent),
            units=part.keys,
            rows_in=part.parents,
            rows_deleted=part.deleted,
            lookups=self._lookups(due, lookups),
            model=self._model,
        )

    def _lookups(self, due: Due, inputs: Sequence[Input]) -> dict[str, int]:
        """Versions of what the stage reads beside its parents, and of what its predicate has asked, maybe long ago."""
        self._read = versions_to_read(self.lake, [table.table.name for table in inputs], self.config)
        select = predicate_of(self.stage, self.config)
        asked = tables_named(select) if select else ()
        return {**self._read, **{name: version for name, version in due.lookups.items() if name in asked}}

    @cached_property
    def _model(self) -> Mapping[str, Any] | None:
        return self.stage.about(self.config) if self.stage.about else None

    def _stage_wave(self, wave: Wave, parents: DataFrame) -> None:
        """Compute the wave's rows once and stage them; the header, written last, commits them."""
        from pyspark.sql import functions as F

        self.wave = wave
        plain = [f.name for f in parents.schema.fields if f.dataType.typeName() != "binary"]
        staged = _staging.write_part(self.lake, wave, "parents", parents.select(*plain))
        alive = (
            (staged if len(plain) == len(parents.columns) else parents).where(~F.col(DELETED)).drop(DELETED, CHANGED_AT)
        )
        if self.stage.is_whole:
            alive = alive.withColumn("pins", as_map(read_by(self.stage, self._read)))
        _get_ready(self.tracker)
        name = "due" if self.stage.discover else self.stage.inputs[0].table.name
        lookups = {t: self.lake.table(t, version=v) for t, v in self._read.items()}
        with watch(self.lake.spark, self._on_progress(wave)):
            rows = self.stage.transform(Tables({name: alive, **lookups}), self.config)
            written = _staging.write_part(self.lake, wave, "rows", rows)
        self._staged = (staged, written)
        if (now := producer_of(self.stage, self.config)) != self.producer:
            raise StageError(f"the model's files changed during the run: {self.producer} is {now} by now; run again")
        _staging.write_header(self.lake, wave)
        self._step(wave, "staged")

    def _on_progress(self, wave: Wave) -> Any:
        before_parents, before_rows, total = self.result.parents, self.result.published, self.total_parents

        def progressed(tasks_done: int, tasks_total: int, rows: int) -> None:
            share = tasks_done / tasks_total if tasks_total else 0.0
            self.reporter.progressed(self.stage.label, before_parents + share * wave.rows_in, total, before_rows + rows)

        return progressed

    def _record(
        self, wave: Wave, audited: Audit, *, status: str, outputs: Sequence[Any], decision: Decision | None = None
    ) -> None:
        values = {
            "status": status,
            "outputs": list(outputs),
            "rows_published": audited.published if status in ("published", "released") else 0,
            "rows_quarantined": audited.quarantined if status in DONE else 0,
            "checks": [check.as_dict() for check in audited.checks],
            "decided_by": decision.who if decision else None,
            "decided_why": decision.why if decision else None,
        }
        record = write_row(self.lake, wave, known=wave.wave_id in self.history.statuses, **values)
        self.history = self.history.after(wave, status=status)
        self._figures = self._figure_out(audited)
        self.tracker.wave({**record, "config": wave.config, "figures": self._figures})
        if status == "stopped":
            self._step(wave, "stopped")

    def _record_nothing(self, due: Due) -> None:
        """Nothing of what changed matters to this stage: move its progress, so that it is not looked at again."""
        wave = self._header(due, Cut(units=(), is_last=True, due_units=0, due_rows=0), lookups=self.stage.inputs[1:])
        write_row(self.lake, wave, known=False, status="published")
        self.history = self.history.after(wave, status="published")

    def _count(self, wave: Wave, audited: Audit, *, status: Any) -> None:
        self.units_done += len(wave.units)
        is_done = status == "done"
        published = audited.published if is_done else 0
        self.result = replace(self.result, status=status).after_wave(
            wave.wave_id,
            parents=wave.rows_in,
            published=published,
            quarantined=audited.quarantined if is_done else 0,
            checks=audited.checks,
            reasons=audited.reasons,
            tally=self._tally(audited) if published else {},
            figures=self._figures,
        )

    def _figure_out(self, audited: Audit) -> Mapping[str, Metric]:
        """What there is to tell in numbers of the good rows, whether or not the gate lets them pass."""
        return self.stage.figures(audited.outputs[0].rows) if self.stage.figures else {}

    def _tally(self, audited: Audit) -> Counter[str]:
        """The words of the rows just published, counted."""
        if self.stage.tally is None:
            return Counter()
        words = audited.outputs[0].rows.selectExpr(f"explode({self.stage.tally}) AS word").groupBy("word").count()
        return Counter({row["word"]: row["count"] for row in words.collect()})

    def record_failure(self, message: str) -> None:
        """Say in `waves` what ended the wave at work. It is no progress: the next run finishes what is staged."""
        if self.wave is None or self.history.statuses.get(self.wave.wave_id) in DONE:
            return
        known = self.wave.wave_id in self.history.statuses
        record = write_row(self.lake, self.wave, known=known, status="failed", error=message)
        self.tracker.wave({**record, "config": self.wave.config})

    def _step(self, wave: Wave, step: str) -> None:
        self.reporter.step(self.stage.label, wave.wave_id, step)


def _get_ready(tracker: Tracker) -> None:
    """Import what judging and tracking need, seconds of work, while Spark computes the wave."""
    tracker.prepare()
    if "great_expectations" not in sys.modules:
        threading.Thread(target=prepare, daemon=True, name="prepare-gate").start()
