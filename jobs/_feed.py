"""Which parents are due: from the change feed since the producer's progress, or from a snapshot where there is none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

from ._lake import read_errors
from ._record import History, Progress, read_histories
from ._sections import seen_with_sources
from ._stage import Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from ._lake import Lake

DELETED = "_deleted"
CHANGED_AT = "_changed_at"
MICROSECONDS = "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"


@dataclass(frozen=True, kw_only=True)
class Due:
    """Parents to process, with a boolean `_deleted`, the version they are read at and how they were found.

    `_changed_at`, where they have it, is the version at which a parent last changed in a way that matters.
    `instead` gives the whole snapshot, for when the change data turn out to have been vacuumed away: rows that come out
    equal stay untouched. `kept` is what was persisted for it, until `release`. `lookups` has other tables that were
    asked what is due, at their versions.
    """

    parents: DataFrame
    mode: str
    progress: Progress
    instead: Callable[[], Due] | None = None
    kept: DataFrame | None = None
    lookups: Mapping[str, int] = field(default_factory=dict)

    def release(self) -> None:
        """Let go of what was persisted."""
        if self.kept is not None:
            self.kept.unpersist()


def find_due(
    stage: Stage, config: StageConfig, lake: Lake, history: History, *, producer: str, rebuild: bool
) -> Due | None:
    """The parents that are due by the change feed, or None where nothing changed."""
    parent = stage.inputs[0].table.name
    if not lake.exists(parent):
        return None
    done = history.progress
    head, table_id = lake.head(parent)

    def everything() -> Due:
        start = Progress(table=parent, table_id=table_id, version=head)
        return _snapshot(stage, config, lake, start, known=done is not None, producer=producer)

    if rebuild or done is None or done.version is None or done.table_id != table_id:
        return everything()
    if done.is_complete and head == done.version:
        return None
    try:
        if done.is_complete:
            since = replace(done, from_version=done.version, version=head, last_key=None)
            return replace(_changes(stage, config, lake, since, producer=producer), instead=everything)
        if history.mode == "changes":
            return replace(_changes(stage, config, lake, done, producer=producer), instead=everything)
        return replace(_snapshot(stage, config, lake, done, known=True, producer=producer), instead=everything)
    except read_errors():
        return everything()


def find_replays(stage: Stage, config: StageConfig, lake: Lake, history: History, *, producer: str) -> Due | None:
    """Parents whose quarantined rows were marked for replay, or None. Progress with the feed stays as it is."""
    from pyspark.sql import functions as F

    if stage.discover or history.progress is None or not lake.exists("quarantine"):
        return None
    marked = quarantined(stage, lake, producer).where(F.col("replay_requested_at").isNotNull())
    marked = marked.select("_input_key").distinct()
    if marked.isEmpty():
        return None
    rows = lake.table(stage.inputs[0].table.name)
    rows = rows.join(F.broadcast(marked), joined_key(stage.key_of_parent) == F.col("_input_key"), "left_semi")
    parents = stage.gather(_looked_at(stage, config, rows), config) if stage.gather else rows
    parents = parents.withColumn(DELETED, F.lit(False))
    return Due(parents=parents, mode="replay", progress=history.progress, lookups=history.lookups)


def quarantined(stage: Stage, lake: Lake, producer: str) -> DataFrame:
    """The rows of a producer in quarantine, the key of their parent as `_input_key`."""
    from pyspark.sql import functions as F

    is_own = (F.col("stage") == stage.name) & (F.col("producer") == producer)
    return lake.table("quarantine").where(is_own).withColumnRenamed("input_key", "_input_key")


def past_itself(stage: Stage, config: StageConfig, lake: Lake, progress: Progress) -> Progress:
    """The progress of a stage that adds rows to the table which it reads, moved past these where nothing else changed.

    Else the next run would find its own rows new, and say in `waves` that there was nothing to do.
    """
    version = progress.version
    head, table_id = lake.head(progress.table)
    if not progress.is_complete or version is None or version == head or progress.table_id != table_id:
        return progress
    try:
        changed = changed_keys(stage, config, lake, progress.table, first=version + 1, last=head)
        return replace(progress, version=head) if changed.isEmpty() else progress
    except read_errors():  # the feed may be gone
        return progress


def joined_key(columns: Sequence[str]) -> Column:
    """A key as one string: its columns joined by a slash; null where one of them is null."""
    from pyspark.sql import functions as F

    parts = [F.col(name).cast("string") for name in columns]
    known = reduce(lambda a, b: a & b, (part.isNotNull() for part in parts))
    return F.when(known, F.concat_ws("/", *parts))


def look_of(columns: Sequence[str], *, binary: Collection[str]) -> Column:
    """Hash of what makes rows equal. JSON keeps nulls in their places, which a plain hash of structs skips."""
    from pyspark.sql import functions as F

    plain = [c for c in columns if c not in binary]
    exact = {"ignoreNullFields": "false", "timestampFormat": MICROSECONDS}
    text = [F.to_json(F.struct(*plain), exact)] if plain else [F.lit("")]
    return F.xxhash64(*text, *(part for c in columns if c in binary for part in (F.col(c), F.col(c).isNull())))


def _snapshot(stage: Stage, config: StageConfig, lake: Lake, progress: Progress, *, known: bool, producer: str) -> Due:
    """All parents, and as deleted those that only rows of the outputs still know: our own rows, or of any producer."""
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    if stage.gather:
        parents = _gathered(stage, config, lake, progress, producer=producer)
        return Due(parents=after_last(stage, parents, progress), mode="snapshot", progress=progress)
    rows = lake.table(progress.table, version=progress.version)
    parents, keys = rows.withColumn(DELETED, F.lit(False)), list(stage.key_of_parent)
    tables = [table for table in stage.outputs if {*keys} <= {*table.column_names}]
    tables = [table for table in tables if lake.exists(table.name) and not lake.is_untouched(table.name)]
    if tables and (known or stage.producer):
        labelled = reduce(DataFrame.unionByName, (lake.table(table.name).select(*keys) for table in tables))
        gone = labelled.distinct().join(rows, keys, "left_anti")
        parents = parents.unionByName(gone.withColumn(DELETED, F.lit(True)), allowMissingColumns=True)
    missed = missed_by_others(stage, config, lake, progress, producer=producer) if stage.producer else None
    if missed is not None:
        parents = parents.join(missed, keys, "left")
    if stage.producer:
        changed_at = F.lit(None).cast("bigint") if missed is None else F.col(CHANGED_AT)
        gone_at = F.when(F.col(DELETED), F.lit(progress.version).cast("bigint"))
        parents = parents.withColumn(CHANGED_AT, F.coalesce(gone_at, changed_at))
    return Due(parents=after_last(stage, parents, progress), mode="snapshot", progress=progress, kept=missed)


def missed_by_others(
    stage: Stage, config: StageConfig, lake: Lake, progress: Progress, *, producer: str
) -> DataFrame | None:
    """Keys with `_changed_at` for what changed since the other producers looked; None where that is nothing or lost."""
    version = progress.version or 0
    seen = [seen for other, seen in seen_versions(lake, progress).items() if other != producer]
    if not seen or min(seen) >= version:
        return None
    try:
        missed = changed_keys(stage, config, lake, progress.table, first=min(seen) + 1, last=version).persist()
    except read_errors():  # the feed may be gone
        return None
    with suppress(*read_errors()):  # or files of it
        if not missed.isEmpty():
            return missed
    missed.unpersist()
    return None


def seen_versions(lake: Lake, progress: Progress) -> dict[str, int]:
    """Up to which version of an input each model has done its work, in whatever stage.

    A fusion of models has seen what all of them have.
    """
    from pyspark.sql import functions as F

    found = read_histories(lake, where=F.col("stage") != F.col("producer"))
    seen: dict[str, int] = {}
    for (_, producer), history in found.items():
        done = history.progress
        if done is not None and done.table_id == progress.table_id:
            seen[producer] = (done.version if done.is_complete else done.from_version) or 0
    return seen_with_sources(seen, {producer: history.config for (_, producer), history in found.items()})


def _gathered(
    stage: Stage,
    config: StageConfig,
    lake: Lake,
    progress: Progress,
    *,
    producer: str,
    among: DataFrame | None = None,
) -> DataFrame:
    """Parents that are made of several rows each, and as deleted those that only rows of our own still know.

    `among` has the keys of those that are asked for, where not all are; of these, rows in quarantine are known as well.
    """
    from pyspark.sql import functions as F

    assert stage.gather is not None
    keys = list(stage.key_of_parent)
    rows = _looked_at(stage, config, lake.table(progress.table, version=progress.version))
    own = lake.table(progress.table).where(F.col("model_id") == producer).select(*keys)
    if among is None:
        parents = stage.gather(rows, config)
    else:
        asked = among.select(*keys)
        parents = stage.gather(rows.join(asked, keys, "left_semi"), config)
        own = own.select(joined_key(keys).alias("_input_key"))
        if lake.exists("quarantine"):
            own = own.unionByName(quarantined(stage, lake, producer).select("_input_key"))
        own = asked.join(own, joined_key(keys) == F.col("_input_key"), "left_semi")
    gone = own.join(parents.select(*keys), keys, "left_anti").withColumn(DELETED, F.lit(True))
    return parents.withColumn(DELETED, F.lit(False)).unionByName(gone, allowMissingColumns=True)


def _changes(stage: Stage, config: StageConfig, lake: Lake, progress: Progress, *, producer: str) -> Due:
    """Keys with a change of a column that matters; their rows as of the version; just the key of those gone."""
    from pyspark.sql import functions as F

    assert progress.version is not None and progress.from_version is not None
    keys = list(stage.key_of_parent)
    first = progress.from_version + 1
    changed = changed_keys(stage, config, lake, progress.table, first=first, last=progress.version)
    changed = after_last(stage, changed, progress).persist()
    if stage.gather:
        found = _gathered(stage, config, lake, progress, producer=producer, among=changed)
        return Due(parents=found, mode="changes", progress=progress, kept=changed)
    rows = lake.table(progress.table, version=progress.version)
    found = changed.join(rows.withColumn(DELETED, F.lit(False)), keys, "left")
    found = found.withColumn(DELETED, F.coalesce(DELETED, F.lit(True))).select(*rows.columns, DELETED, CHANGED_AT)
    return Due(parents=found, mode="changes", progress=progress, kept=changed)


def _looked_at(stage: Stage, config: StageConfig, rows: DataFrame) -> DataFrame:
    """Those rows of the parent's table that the stage is about."""
    where = stage.inputs[0].where
    return rows.where(where(config)) if where else rows


def changed_keys(stage: Stage, config: StageConfig, lake: Lake, table: str, *, first: int, last: int) -> DataFrame:
    """Keys of parents of which a row changed in a column that matters, and the version at which one did so last."""
    from pyspark.sql import functions as F

    keys = list(stage.inputs[0].table.key)
    watched = [c for c in (stage.inputs[0].depends_on or stage.inputs[0].table.column_names) if c not in keys]
    feed = _looked_at(stage, config, lake.changes(table, first=first, last=last))
    look = look_of(watched, binary={c.name for c in stage.inputs[0].table.columns if c.type == "binary"})
    marked = feed.select(*keys, "_change_type", look.alias("_look"), F.col("_commit_version").alias(CHANGED_AT))
    matters = (F.count_distinct("_look") > 1) | F.bool_or(F.col("_change_type").isin("insert", "delete"))
    commits = marked.groupBy(*keys, CHANGED_AT).agg(matters.alias("_matters")).where("_matters")
    return commits.groupBy(*stage.key_of_parent).agg(F.max(CHANGED_AT).alias(CHANGED_AT))


def after_last(stage: Stage, rows: DataFrame, progress: Progress) -> DataFrame:
    from pyspark.sql import functions as F

    return rows if progress.last_key is None else rows.where(F.col(stage.unit) > F.lit(progress.last_key))
