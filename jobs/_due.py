"""What is due for a stage: by the feed of changes, or, where a predicate narrows it, what is selected and not done yet.

A narrowed producer leaves parents out on purpose, so that its progress with the feed says nothing about them. It looks
at the whole table whenever that, the predicate, or a table that the predicate asks has changed; its progress only says
that its own rows are as fresh as that version. Once nothing narrows it any more, the parents that were left out come
first (mode "rest"), and then the feed again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from visionlake.errors import ConfigError, UsageError

from . import _feed
from ._feed import CHANGED_AT, DELETED, Due, after_last, changed_keys, joined_key, missed_by_others, quarantined
from ._lake import read_errors
from ._predicate import tables_named
from ._record import History, Progress
from ._select import in_words, predicate_of, selected
from ._stage import Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from ._lake import Lake

SELECTED, REST = "selected", "rest"


def find_due(
    stage: Stage, config: StageConfig, lake: Lake, history: History, *, producer: str, rebuild: bool
) -> Due | None:
    """The parents that are due, or None where nothing changed. Raises ConfigError where a predicate fails on a row."""
    select = predicate_of(stage, config)
    if select is None and (rebuild or not _was_narrowed(history)):
        return _feed.find_due(stage, config, lake, history, producer=producer, rebuild=rebuild)
    parent = stage.inputs[0].table.name
    if not lake.exists(parent):
        return None
    head, table_id = lake.head(parent)
    done = history.progress if history.progress and history.progress.table_id == table_id and not rebuild else None
    if select is None and done is None:  # the table was made anew: whatever was left out, all of it is due
        return _feed.find_due(stage, config, lake, history, producer=producer, rebuild=True)
    asked = tables_named(select) if select else ()
    lookups = {name: lake.version(name) for name in asked if lake.exists(name)}
    mode = REST if select is None else SELECTED
    goes_on = done is not None and history.mode == mode and history.config.get(stage.narrow or "") == select
    if goes_on and done and done.is_complete and done.version == head and _has_asked(history, lookups):
        return None
    search = _Search(stage=stage, config=config, lake=lake, producer=producer, select=select, mode=mode, done=done)
    start = Progress(table=parent, table_id=table_id, version=head, is_complete=False)
    return search.find(start, lookups, goes_on=history if goes_on and done and not done.is_complete else None)


def _has_asked(history: History, lookups: Mapping[str, int]) -> bool:
    """Whether the last look asked these very tables. Those that the stage itself reads are among its lookups, too."""
    return all(history.lookups.get(name) == version for name, version in lookups.items())


def _was_narrowed(history: History) -> bool:
    is_through = history.progress is None or history.progress.is_complete
    return history.mode == SELECTED or (history.mode == REST and not is_through)


@dataclass(frozen=True, kw_only=True)
class _Begin:
    """Where a look begins.

    Own rows are as fresh as `progress.from_version`; where that is null, those are that an unfinished look has made,
    which saw the version `floor`.
    """

    progress: Progress
    lookups: Mapping[str, int]
    floor: int | None = None

    @property
    def base(self) -> int | None:
        """The version from which on changes matter to own rows."""
        return self.floor if self.progress.from_version is None else self.progress.from_version


@dataclass(frozen=True, kw_only=True)
class _Search:
    """One look for what is due; `done` is how far earlier ones got, in this very table."""

    stage: Stage
    config: StageConfig
    lake: Lake
    producer: str
    select: str | None
    mode: str
    done: Progress | None

    @property
    def keys(self) -> list[str]:
        return list(self.stage.key_of_parent)

    @property
    def floor(self) -> int | None:
        """The version that those rows saw which an unfinished look has made that knew nothing of the others."""
        done = self.done
        return None if done is None or done.is_complete or done.from_version is not None else done.version

    def find(self, start: Progress, lookups: Mapping[str, int], *, goes_on: History | None) -> Due:
        """What is due, by the first of the ways that works: old versions and changes may be vacuumed away."""
        from pyspark.errors import PySparkException

        problem: Exception = UsageError(f"no version of {start.table} can be read")
        for begin in self._beginnings(start, lookups, goes_on=goes_on):
            try:
                return self._look(begin)
            except read_errors() as error:
                problem = error
        if self.select is not None and isinstance(problem, PySparkException) and _is_of_values(problem):
            words = f"{in_words(problem)}. Say what is meant for such frames, as with try_cast or try_divide"
            raise ConfigError(f"[{self.stage.label}] {self.stage.narrow} fails on a frame: {words}") from None
        raise problem

    def _beginnings(self, start: Progress, lookups: Mapping[str, int], *, goes_on: History | None) -> Iterator[_Begin]:
        """An unfinished look goes on; else, what has changed since; else, everything that is selected or labelled."""
        if goes_on is not None and self.done is not None:
            # What it has asked is what it asked at its beginning: whatever came since is news to the next look.
            yield _Begin(progress=self.done, lookups=goes_on.lookups)
        fresh = self._fresh_version(start)
        if fresh is not None:
            yield _Begin(progress=replace(start, from_version=fresh), lookups=lookups)
        elif self.floor is not None:
            yield _Begin(progress=start, lookups=lookups, floor=self.floor)
        yield _Begin(progress=start, lookups=lookups)

    def _fresh_version(self, start: Progress) -> int | None:
        """The version that all own rows have seen; None where there are some of which that is not known."""
        if self.done is not None and self.done.is_complete:
            return self.done.version
        if self.done is not None and self.done.from_version is not None:
            return self.done.from_version
        bad = self._quarantined() if self.done is None else None
        if bad is not None and not bad.isEmpty():
            return None
        labels = self._labels()
        if labels is None or labels.where(self._is_unknown(self.floor)).isEmpty():
            return start.version if self.floor is None else self.floor
        return None

    def _look(self, begin: _Begin) -> Due:
        progress = begin.progress
        rows = after_last(self.stage, self.lake.table(progress.table, version=progress.version), progress)
        changed = self._changed(begin)
        due = after_last(self.stage, self._due_keys(rows, changed, begin), progress).persist()
        try:
            due.count()  # here it shows whether changes and versions are still there
        except BaseException:
            due.unpersist()
            raise
        finally:
            if changed is not None:
                changed.unpersist()
        found = due.join(rows, self.keys, "left").select(*rows.columns, DELETED, CHANGED_AT)
        return Due(parents=found, mode=self.mode, progress=progress, kept=due, lookups=begin.lookups)

    def _due_keys(self, rows: DataFrame, changed: DataFrame | None, begin: _Begin) -> DataFrame:
        """Keys of what is due, with `_deleted` (gone, or there while its labels go) and `_changed_at`."""
        from pyspark.sql import functions as F

        every = selected(rows, self.select, self.lake).withColumn("_there", F.lit(True))
        for others in (self._labels(), changed):
            if others is not None:
                every = every.join(after_last(self.stage, others, begin.progress), self.keys, "full_outer")
        bad = self._quarantined()
        every = every if bad is None else every.join(bad, joined_key(self.keys) == F.col("_input_key"), "left")
        for name in ("_there", "_selected", "_labelled", "_own", "_bad"):
            known = F.col(name) if name in every.columns else F.lit(None).cast("boolean")
            every = every.withColumn(name, F.coalesce(known, F.lit(False)))
        for name in ("_seen", "_oldest", CHANGED_AT):
            every = every if name in every.columns else every.withColumn(name, F.lit(None).cast("bigint"))
        base = F.lit(begin.base).cast("bigint")
        has_rows = F.expr("_own OR _bad")
        is_stale = _holds((F.col(CHANGED_AT) > base) & F.expr(f"_bad OR _seen IS NULL OR {CHANGED_AT} > _seen"))
        is_known = begin.progress.from_version is not None
        is_unknown = F.lit(False) if is_known else F.col("_bad") | self._is_unknown(begin.floor)
        is_done = has_rows & ~is_stale & ~is_unknown
        # Whether labels of which nothing is known are still right only shows when they are made again.
        is_labelled = F.col("_there") & ~is_done & (F.col("_selected") | (F.col("_own") & is_unknown & ~is_stale))
        has_outlived = _holds(F.col("_oldest") < F.col(CHANGED_AT))
        is_cleared = F.when(F.col("_there"), ~is_done & ~is_labelled & (has_rows | has_outlived))
        is_cleared = is_cleared.otherwise(F.expr("_labelled OR _bad"))
        gone_at = F.lit(begin.progress.version).cast("bigint")
        found = every.where(is_labelled | is_cleared)
        changed_at = F.when(F.col("_there"), F.col(CHANGED_AT)).otherwise(gone_at)
        return found.select(*self.keys, (~is_labelled).alias(DELETED), changed_at.alias(CHANGED_AT))

    def _labels(self) -> DataFrame | None:
        """Per parent: whether it has rows, own ones, which version those saw, and the oldest that another's saw."""
        from pyspark.sql import DataFrame
        from pyspark.sql import functions as F

        tables = [t.name for t in (*self.stage.outputs, *self.stage.outdates) if self.lake.exists(t.name)]
        if not tables:
            return None
        columns = (*self.keys, "model_id", "input_version")
        rows = reduce(DataFrame.unionByName, (self.lake.table(name).select(*columns) for name in tables))
        own = F.col("model_id") == self.producer
        return rows.groupBy(*self.keys).agg(
            F.lit(True).alias("_labelled"),
            F.bool_or(own).alias("_own"),
            F.min(F.when(own, F.col("input_version"))).alias("_seen"),
            F.min(F.when(~own, F.col("input_version"))).alias("_oldest"),
        )

    def _changed(self, begin: _Begin) -> DataFrame | None:
        """Keys with `_changed_at`: changes since, or, the first time, those that other producers have missed."""
        done, progress = self.done, begin.progress
        if begin.base is not None and begin.base < (progress.version or 0):
            return changed_keys(
                self.stage, self.config, self.lake, progress.table, first=begin.base + 1, last=progress.version or 0
            )
        if done is None or (not done.is_complete and done.from_version in (None, done.version)):
            return missed_by_others(self.stage, self.config, self.lake, progress, producer=self.producer)
        return None

    def _quarantined(self) -> DataFrame | None:
        from pyspark.sql import functions as F

        if not self.lake.exists("quarantine"):
            return None
        own = quarantined(self.stage, self.lake, self.producer)
        return own.select("_input_key", F.lit(True).alias("_bad")).distinct()

    def _is_unknown(self, floor: int | None) -> Column:
        """Whether nothing is known of an own row but that it is there.

        Of those that saw the version `floor` it is known where the unfinished look got so far: others may be older.
        """
        from pyspark.sql import functions as F

        own = _holds(F.col("_own"))
        if floor is None or self.done is None:
            return own
        is_reached = F.col(self.stage.unit) <= F.lit(self.done.last_key)
        return own & ~_holds(F.col("_seen").eqNullSafe(floor) & is_reached)


def _holds(condition: Column) -> Column:
    from pyspark.sql import functions as F

    return F.coalesce(condition, F.lit(False))


def _is_of_values(error: Exception) -> bool:
    """Whether an expression failed on what it was given, such as a division by zero."""
    from pyspark.errors import (
        ArithmeticException,
        ArrayIndexOutOfBoundsException,
        DateTimeException,
        NumberFormatException,
        SparkRuntimeException,
    )

    of_values = (ArithmeticException, ArrayIndexOutOfBoundsException, DateTimeException, NumberFormatException)
    return isinstance(error, (*of_values, SparkRuntimeException))
