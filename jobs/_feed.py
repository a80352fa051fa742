"""Which parents are due: from the change feed since the producer's progress, or from a snapshot where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from ._record import History, Progress
from ._stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from ._lake import Lake

DELETED = "_deleted"


@dataclass(frozen=True, kw_only=True)
class Due:
    """Parents to process, with a boolean `_deleted`, the version they are read at and how they were found.

    `instead` gives the whole snapshot, for when the change data turn out to have been vacuumed away: rows that come out
    equal stay untouched.
    """

    parents: DataFrame
    mode: str
    progress: Progress
    instead: Callable[[], Due] | None = None


def find_due(stage: Stage, lake: Lake, history: History, *, rebuild: bool) -> Due | None:
    """The parents that are due by the change feed, or None where nothing changed."""
    parent = stage.inputs[0].table.name
    if not lake.exists(parent):
        return None
    done = history.progress
    head, table_id = lake.head(parent)
    if rebuild or done is None or done.version is None or done.table_id != table_id:
        return _snapshot(stage, lake, Progress(table=parent, table_id=table_id, version=head))
    if not done.is_complete:
        return _changes(stage, lake, done) if history.mode == "changes" else _snapshot(stage, lake, done)
    if head == done.version:
        return None
    return _changes(stage, lake, replace(done, from_version=done.version, version=head, last_key=None))


def find_replays(stage: Stage, lake: Lake, history: History, *, producer: str) -> Due | None:
    """Parents whose quarantined rows were marked for replay, or None. Progress with the feed stays as it is."""
    from pyspark.sql import functions as F

    if stage.discover or history.progress is None or not lake.exists("quarantine"):
        return None
    marked = (
        lake.table("quarantine")
        .where((F.col("stage") == stage.name) & (F.col("producer") == producer))
        .where(F.col("replay_requested_at").isNotNull())
        .select(F.col("input_key").alias("_input_key"))
        .distinct()
    )
    if marked.isEmpty():
        return None
    rows = lake.table(stage.inputs[0].table.name)
    parents = rows.join(F.broadcast(marked), joined_key(stage.key_of_parent) == F.col("_input_key"), "left_semi")
    return Due(parents=parents.withColumn(DELETED, F.lit(False)), mode="replay", progress=history.progress)


def joined_key(columns: Sequence[str], *, prefix: str = "") -> Column:
    """A key as one string: its columns joined by a slash; null where one of them is null."""
    from pyspark.sql import functions as F

    parts = [F.col(f"{prefix}{name}").cast("string") for name in columns]
    known = reduce(lambda a, b: a & b, (part.isNotNull() for part in parts))
    return F.when(known, F.concat_ws("/", *parts))


def _snapshot(stage: Stage, lake: Lake, progress: Progress) -> Due:
    from pyspark.sql import functions as F

    rows = lake.table(progress.table, version=progress.version)
    return Due(
        parents=_after(stage, rows.withColumn(DELETED, F.lit(False)), progress), mode="snapshot", progress=progress
    )


def _changes(stage: Stage, lake: Lake, progress: Progress) -> Due:
    """Keys with a change of a column that matters; their rows as of the version; just the key of those gone."""
    from pyspark.errors import PySparkException
    from pyspark.sql import functions as F

    assert progress.version is not None and progress.from_version is not None
    keys = list(stage.key_of_parent)
    watched = [c for c in (stage.inputs[0].depends_on or stage.inputs[0].table.column_names) if c not in keys]

    def everything() -> Due:
        return _snapshot(stage, lake, replace(progress, from_version=None))

    try:
        feed = lake.changes(progress.table, first=progress.from_version + 1, last=progress.version)
    except PySparkException:
        return everything()
    look = F.xxhash64(*(part for c in watched for part in (F.col(c), F.col(c).isNull()))) if watched else F.lit(0)
    marked = feed.select(*keys, "_change_type", look.alias("_look"))
    matters = (F.count_distinct("_look") > 1) | F.bool_or(F.col("_change_type").isin("insert", "delete"))
    changed = marked.groupBy(*keys).agg(matters.alias("_matters")).where("_matters").select(*keys)
    changed = _after(stage, changed, progress).persist()
    rows = lake.table(progress.table, version=progress.version)
    found = changed.join(rows.withColumn(DELETED, F.lit(False)), keys, "left")
    found = found.withColumn(DELETED, F.coalesce(DELETED, F.lit(True))).select(*rows.columns, DELETED)
    return Due(parents=found, mode="changes", progress=progress, instead=everything)


def _after(stage: Stage, rows: DataFrame, progress: Progress) -> DataFrame:
    from pyspark.sql import functions as F

    return rows if progress.last_key is None else rows.where(F.col(stage.unit) > F.lit(progress.last_key))
