"""Runs one stage: find what is due, stage it in bounded waves, audit each, publish it, record it.

Write - audit - publish. A wave is computed once and staged durably; publishing is three steps, each idempotent by key:
the tables, the quarantine, then the wave's row, which alone is progress. A kill anywhere is mended by running again.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionlake.expectations import quarantine
from visionlake.expectations._gate import prepare

from . import _staging
from ._audit import Audit, audit
from ._feed import DELETED, MICROSECONDS, Due, find_due, find_replays, joined_key
from ._lake import Lake
from ._progress import watch
from ._publish import Scope, near, publish
from ._record import DONE, History, Progress, Wave, producer_of, read_history, resolved, settings_digest, write_row
from ._report import Reporter, StageResult
from ._stage import Discovery, Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

    from ._tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Somebody's word on a stopped wave: publish it despite the gate (released) or not (dropped)."""

    status: str
    who: str
    why: str


@dataclass(kw_only=True)
class StageRun:
    """One stage in one run; `execute` does the work. `limit` bounds the units (media, files) of this run."""

    stage: Stage
    config: StageConfig
    lake: Lake
    run_id: str
    reporter: Reporter
    tracker: Tracker
    limit: int | None = None
    rebuild: bool = False
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.producer = producer_of(self.stage, self.config)
        self.digest = settings_digest(self.config)
        self.result = StageResult(stage=self.stage.name, status="nothing_new")
        self.total_parents = self.units_done = 0
        self.seen_lookups: Mapping[str, int] = {}
        self.wave: Wave | None = None
        self._staged: tuple[DataFrame, DataFrame] | None = None

    def execute(self) -> StageResult:
        """Finish staged waves, then make and publish new ones until nothing is due or a gate stops."""
        started = time.monotonic()
        self.history = read_history(self.lake, stage=self.stage.name, producer=self.producer)
        self.seen_lookups = self.history.lookups
        self._ensure_tables()
        self._resume_rebuild()
        if self._finish_staged():
            self._feed()
        if self.result.status != "stopped":
            self._replay()
        self.result = replace(self.result, seconds=time.monotonic() - started)
        return self.result

    def finish(self, wave: Wave, *, decision: Decision | None = None) -> bool:
        """Judge a staged wave and publish it; False where its gate stopped it."""
        self.wave = wave
        parents, rows = self._staged or _staging.read_parts(self.lake, wave)
        self._staged = None
        audited = audit(self.stage, self.config, wave, staged=rows, parents=parents)
        self._step(wave, "judged")
        if audited.is_stopped and decision is None:
            self._record(wave, audited, status="stopped", outputs=[])
            self._count(wave, audited, status="stopped")
            return False
        if decision and decision.status == "dropped":
            audited = _all_bad(self.stage, wave, audited)
        outputs = (
            [] if decision and decision.status == "dropped" else self._publish_tables(wave, audited, rows, parents)
        )
        self._step(wave, "table")
        self._publish_quarantine(wave, audited, parents)
        self._step(wave, "quarantine")
        self._record(
            wave, audited, status=decision.status if decision else "published", outputs=outputs, decision=decision
        )
        self._step(wave, "progress")
        _staging.discard(self.lake, wave)
        self._count(wave, audited, status="done")
        return True

    def _resume_rebuild(self) -> None:
        """A wave staged under today's settings, where others were published, is a rebuild's: it goes on."""
        if self.history.settings_digest in (None, self.digest):
            return
        staged = _staging.staged_waves(self.lake, stage=self.stage.name)
        if any(w.producer == self.producer and w.settings_digest == self.digest for w in staged):
            self.rebuild = False

    def _ensure_tables(self) -> None:
        for table in (*self.stage.outputs, quarantine.TABLE):
            self.lake.ensure(table)

    def _finish_staged(self) -> bool:
        """Finish what an earlier run staged; False where a gate stopped one of those waves."""
        for wave in _staging.staged_waves(self.lake, stage=self.stage.name):
            if wave.producer != self.producer:
                continue
            superseded = self.rebuild or wave.settings_digest != self.digest
            if self.history.statuses.get(wave.wave_id) in DONE or superseded:
                _staging.discard(self.lake, wave)
                continue
            self.reporter.stage_started(self.stage.name, wave.rows_in, None)
            self.reporter.note(f"{self.stage.name}: finishing wave {wave.wave_id}, staged by an earlier run")
            if not self.finish(wave):
                return False
        return True

    def _feed(self) -> None:
        """Waves over what the change feed, or the stage itself, finds due."""
        if self.stage.discover:
            self._discovered()
            return
        rebuild = self.rebuild
        while due := find_due(self.stage, self.lake, self.history, producer=self.producer, rebuild=rebuild):
            rebuild = False
            if not self._next_wave(due, lookups=self.stage.inputs[1:]):
                return

    def _discovered(self) -> None:
        """Waves over what the stage finds by itself, looked up once. An unfinished rebuild goes on where it was."""
        assert self.stage.discover is not None
        done = self.history.progress
        resumes = self.history.mode == "rebuild" and done is not None and not done.is_complete
        is_rebuild = self.rebuild or resumes
        discovery = Discovery(
            spark=self.lake.spark, lake=self.lake, config=self.config, now=datetime.now(UTC), run_id=self.run_id,
            is_rebuild=is_rebuild,
        )  # fmt: skip
        from pyspark.sql import functions as F

        parents = self.stage.discover(discovery).withColumn(DELETED, F.lit(False)).persist()
        progress = done if resumes and not self.rebuild and done else Progress(table="files")
        try:
            while True:
                after = F.lit(True) if progress.last_key is None else F.col(self.stage.unit) > progress.last_key
                mode = "rebuild" if is_rebuild else "discovered"
                due = Due(parents=parents.where(after), mode=mode, progress=progress)
                if not self._next_wave(due, lookups=()):
                    return
                progress = self.history.progress or progress
        finally:
            parents.unpersist()

    def _replay(self) -> None:
        # Judged by what the last run had seen, before waves of this one say that they saw more.
        history = replace(self.history, lookups=self.seen_lookups)
        while due := find_replays(self.stage, self.lake, history, producer=self.producer):
            history = self.history
            if not self._next_wave(due, lookups=self.stage.inputs[1:]):
                return

    def _next_wave(self, due: Due, *, lookups: Sequence[Any]) -> bool:
        """Stage and finish the next wave of `due`. False where nothing is left to do, or the gate stopped."""
        from pyspark.errors import PySparkException
        from pyspark.sql import functions as F

        if self._is_at_limit():  # by what an earlier run had staged
            return False
        try:
            units, is_complete = self._cut(due)
        except PySparkException:
            if due.instead is None:
                raise
            due = due.instead()
            units, is_complete = self._cut(due)
        if not units:
            if not due.progress.is_complete or due.progress.version != (self.history.progress or due.progress).version:
                self._record_nothing(due)
            return False
        wave = self._header(due, units=units, is_complete=is_complete, lookups=lookups)
        # Literal values let Delta skip the files of other parents.
        parents = due.parents.where(near(self.stage.unit, wave.units))
        parents = parents.where(F.col(self.stage.unit) <= F.lit(wave.units[-1]))
        self._stage_wave(wave, parents)
        return self.finish(wave) and not is_complete and not self._is_at_limit()

    def _cut(self, due: Due) -> tuple[list[Row], bool]:
        """The units of the next wave, at least one, bounded by parents and estimated rows; whether it is the last."""
        from pyspark.sql import functions as F

        config, unit = self.config, F.col(self.stage.unit)
        weight = F.expr(self.stage.weight(config)) if self.stage.weight else F.lit(1.0)
        size = F.expr(self.stage.row_bytes(config)) if self.stage.row_bytes else F.lit(0.0)
        most = min(config.max_wave_parents, self._left()) if self.limit else config.max_wave_parents
        sums = due.parents.groupBy(unit.alias("unit")).agg(
            F.count("*").alias("parents"),
            F.count_if(F.col(DELETED)).alias("deleted"),
            F.sum(F.when(F.col(DELETED), 0.0).otherwise(weight)).alias("weight"),
            F.sum(F.when(F.col(DELETED), 0.0).otherwise(weight * size)).alias("bytes"),
        )
        found = sums.orderBy("unit").limit(most + 1).collect()
        if not self.result.waves:
            self.total_parents = len(found) if len(found) <= most else (sums.count() if not self.limit else most)
            estimate = (
                int(sum(row["weight"] or 0 for row in found)) if len(found) <= most and self.stage.weight else None
            )
            if found:
                self.reporter.stage_started(self.stage.name, self.total_parents, estimate)
        units: list[Row] = []
        rows = parents = mib = 0.0
        for row in found[:most]:
            rows, parents = rows + (row["weight"] or 0.0), parents + row["parents"]
            mib += (row["bytes"] or 0.0) / 2**20
            too_much = rows > config.max_wave_rows or mib > config.max_wave_mib
            if units and (too_much or parents > max(most, config.max_wave_rows)):
                break
            units.append(row)
        return units, len(units) == len(found)

    def _left(self) -> int:
        return max(0, (self.limit or 0) - self.units_done)

    def _is_at_limit(self) -> bool:
        return bool(self.limit) and not self._left()

    def _header(self, due: Due, *, units: Sequence[Row], is_complete: bool, lookups: Sequence[Any]) -> Wave:
        sequence = self.history.sequence + 1
        moved = replace(due.progress, last_key=units[-1]["unit"] if units else None, is_complete=is_complete)
        return Wave(
            wave_id=f"{self.run_id}-{self.stage.name}-{sequence}",
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
            units=[row["unit"] for row in units],
            rows_in=sum(row["parents"] for row in units),
            rows_deleted=sum(row["deleted"] for row in units),
            lookups={i.table.name: self.lake.version(i.table.name) for i in lookups if self.lake.exists(i.table.name)},
        )

    def _stage_wave(self, wave: Wave, parents: DataFrame) -> None:
        """Compute the wave's rows once and stage them; the header, written last, commits them."""
        from pyspark.sql import functions as F

        self.wave = wave
        plain = [f.name for f in parents.schema.fields if f.dataType.typeName() != "binary"]
        staged = _staging.write_part(self.lake, wave, "parents", parents.select(*plain))
        alive = (staged if len(plain) == len(parents.columns) else parents).where(~F.col(DELETED)).drop(DELETED)
        _get_ready(self.tracker)
        name = self.stage.inputs[0].table.name if self.stage.inputs else "due"
        lookups = {t: self.lake.table(t, version=v) for t, v in wave.lookups.items()}
        rows = self.stage.transform({name: alive, **lookups}, self.config)
        with watch(self.lake.spark, self._on_progress(wave)):
            written = _staging.write_part(self.lake, wave, "rows", rows)
        self._staged = (staged, written)
        _staging.write_header(self.lake, wave)
        self._step(wave, "staged")

    def _on_progress(self, wave: Wave) -> Any:
        before_parents, before_rows, total = self.result.parents, self.result.published, self.total_parents

        def progressed(tasks_done: int, tasks_total: int, rows: int) -> None:
            share = tasks_done / tasks_total if tasks_total else 0.0
            self.reporter.progressed(self.stage.name, before_parents + share * wave.rows_in, total, before_rows + rows)

        return progressed

    def _publish_tables(self, wave: Wave, audited: Audit, rows: DataFrame, parents: DataFrame) -> list[dict[str, Any]]:
        written = []
        for output in audited.outputs:
            extra = [c for c in output.table.columns if c.name not in self._declared(output.table.name)]
            if extra:
                self.lake.ensure(self._table(output.table.name), extra=extra)
            scope = self._scope(wave, output.table.name, output.rows, rows, parents)
            version = (
                publish(self.lake, output.table, output.rows, count=output.count, scope=scope) if scope.values else None
            )
            if version is None and output.count:  # an earlier attempt has written them, or they were there
                version = self.lake.version(output.table.name)
            if version is not None:
                written.append({"table": output.table.name, "version": version})
        return written

    def _scope(self, wave: Wave, name: str, good: DataFrame, rows: DataFrame, parents: DataFrame) -> Scope:
        from pyspark.sql import functions as F

        pruning, keys, values = self.stage.unit, None, wave.units
        if self.stage.keeps_children:
            pruning = self._table(name).key[0]
            values = [r[0] for r in good.select(pruning).distinct().collect()] if pruning != self.stage.unit else values
        else:
            keys = self._replaced(rows, parents)
        where: Column | None = F.col("model_id") == wave.producer if self.stage.producer else None
        version = wave.progress.version
        head = -1 if version is None else self.lake.version(wave.progress.table)
        return Scope(pruning=pruning, values=values, parents=keys, version=version, head=head, where=where)

    def _replaced(self, rows: DataFrame, parents: DataFrame) -> DataFrame:
        """Parents whose children are replaced: all but those that could not be read just now."""
        from pyspark.sql import functions as F

        keys = parents.select(*self.stage.key_of_parent)
        if not self.stage.unreadable or "error" not in rows.columns:
            return keys
        away = rows.where(F.col("error.reason").isin(*self.stage.unreadable)).select(*self.stage.key_of_parent)
        return keys.join(F.broadcast(away.distinct()), list(self.stage.key_of_parent), "left_anti")

    def _publish_quarantine(self, wave: Wave, audited: Audit, parents: DataFrame) -> None:
        from pyspark.sql import functions as F

        keys = parents.select(joined_key(self.stage.key_of_parent).alias("input_key")).distinct()
        is_unit = tuple(wave.parent_key) == (self.stage.unit,)
        scope = Scope(
            pruning="input_key",
            values=wave.units if is_unit else [row[0] for row in keys.collect()],
            parents=keys,
            where=(F.col("stage") == wave.stage) & (F.col("producer") == wave.producer),
        )
        publish(self.lake, quarantine.TABLE, audited.bad, count=audited.quarantined, scope=scope)

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
        self.tracker.wave({**record, "config": wave.config})
        if status == "stopped":
            self._step(wave, "stopped")

    def _record_nothing(self, due: Due) -> None:
        """Nothing of what changed matters to this stage: move its progress, so that it is not looked at again."""
        wave = self._header(due, units=(), is_complete=True, lookups=())
        write_row(
            self.lake,
            wave,
            known=False,
            status="published",
            outputs=[],
            rows_published=0,
            rows_quarantined=0,
            checks=[],
        )
        self.history = self.history.after(wave, status="published")

    def _count(self, wave: Wave, audited: Audit, *, status: Any) -> None:
        before = self.result
        self.units_done += len(wave.units)
        published = audited.published if status == "done" else 0
        reasons = {k: before.reasons.get(k, 0) + audited.reasons.get(k, 0) for k in {*before.reasons, *audited.reasons}}
        self.result = replace(
            before,
            status=status,
            parents=before.parents + wave.rows_in,
            published=before.published + published,
            quarantined=before.quarantined + (audited.quarantined if status == "done" else 0),
            waves=before.waves + 1,
            wave_id=wave.wave_id,
            checks=_worst(before.checks, audited.checks),
            reasons=reasons,
        )

    def record_failure(self, message: str) -> None:
        """Say in `waves` what ended the wave at work. It is no progress: the next run finishes what is staged."""
        if self.wave is None or self.history.statuses.get(self.wave.wave_id) in DONE:
            return
        values = {"outputs": [], "rows_published": 0, "rows_quarantined": 0, "checks": [], "error": message}
        known = self.wave.wave_id in self.history.statuses
        record = write_row(self.lake, self.wave, known=known, status="failed", **values)
        self.tracker.wave({**record, "config": self.wave.config})

    def _step(self, wave: Wave, step: str) -> None:
        self.reporter.step(self.stage.name, wave.wave_id, step)

    def _table(self, name: str) -> Any:
        return next(table for table in self.stage.outputs if table.name == name)

    def _declared(self, name: str) -> Sequence[str]:
        return self._table(name).column_names


def _get_ready(tracker: Tracker) -> None:
    """Import what judging and tracking need, seconds of work, while Spark computes the wave."""
    tracker.prepare()
    if "great_expectations" not in sys.modules:
        threading.Thread(target=prepare, daemon=True, name="prepare-gate").start()


def _worst(before: Sequence[Any], new: Sequence[Any]) -> tuple[Any, ...]:
    """Per check, the worst result of all waves so far, the newest among equals."""
    rank = {"passed": 0, "warned": 1, "errored": 2, "stopped": 3}
    merged: dict[str, Any] = {check.name: check for check in before}
    for check in new:
        old = merged.get(check.name)
        if old is None or rank.get(check.status, 0) >= rank.get(old.status, 0):
            merged[check.name] = check
    return tuple(merged.values())


def _all_bad(stage: Stage, wave: Wave, audited: Audit) -> Audit:
    """A dropped wave: every row that would have been published goes to quarantine instead."""
    from pyspark.sql import functions as F

    parts = []
    for output in audited.outputs:
        held = output.rows
        if not {*stage.key_of_parent} <= {*held.columns}:  # facts of content; the place that led to it is kept
            continue
        shown = [c.name for c in output.table.columns if c.type != "binary" and not c.volatile]
        parts.append(
            held.select(
                F.lit(wave.stage).alias("stage"),
                F.lit(wave.producer).alias("producer"),
                joined_key(stage.key_of_parent).alias("input_key"),
                joined_key(output.table.key).alias("output_key"),
                F.lit("wave_dropped").alias("reason"),
                F.lit(f"wave {wave.wave_id} was dropped").alias("message"),
                F.to_json(F.struct(*shown), {"timestampFormat": MICROSECONDS}).alias("payload"),
                F.lit(wave.run_id).alias("run_id"),
                F.lit(wave.wave_id).alias("wave_id"),
                F.current_timestamp().alias("at"),
                F.lit(None).cast("timestamp").alias("replay_requested_at"),
            )
        )
    bad = audited.bad
    for part in parts:
        bad = bad.unionByName(part)
    reasons: Mapping[str, int] = {**audited.reasons, "wave_dropped": audited.published}
    return replace(audited, bad=bad, published=0, quarantined=audited.quarantined + audited.published, reasons=reasons)
