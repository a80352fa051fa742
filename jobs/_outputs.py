"""Publishes what an audit let through, each part in the scope of its wave: the stage's tables, then the quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visionlake.expectations import quarantine, waves
from visionlake.expectations._table import Table

from ._audit import Audit, unread_parents
from ._feed import CHANGED_AT, joined_key, seen_versions
from ._lake import Lake
from ._publish import AWAY, Scope, publish
from ._record import Wave
from ._split import Output
from ._stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def written_by(stage: Stage) -> tuple[Table, ...]:
    """The tables that waves of a stage are published into."""
    return (*stage.outputs, quarantine.TABLE, waves.TABLE)


def publish_tables(
    lake: Lake, stage: Stage, wave: Wave, audited: Audit, *, rows: DataFrame, parents: DataFrame
) -> list[dict[str, Any]]:
    """Publish the good rows of a wave; returns the tables that hold them, with their Delta versions."""
    declared = {table.name: table for table in stage.outputs}
    replaced = _replaced(stage, audited, rows=rows, parents=parents)
    written = []
    for output in audited.outputs:
        table = declared[output.table.name]
        extra = [column for column in output.table.columns if column.name not in table.column_names]
        if extra:
            lake.ensure(table, extra=extra)
        scope = _scope(lake, stage, wave, output, replaced=replaced)
        version = publish(lake, output.table, output.rows, count=output.count, scope=scope) if scope.values else None
        if version is None and output.count:  # an earlier attempt has written them, or they were there
            version = lake.version(table.name)
        if version is not None:
            written.append({"table": table.name, "version": version})
    if CHANGED_AT in parents.columns:
        _outdate(lake, stage, wave, replaced=replaced)
    return written


def _outdate(lake: Lake, stage: Stage, wave: Wave, *, replaced: DataFrame | None) -> None:
    """Delete what models said of frames that have changed since, in the tables that this stage writes nothing to."""
    for table in stage.outdates:
        if lake.exists(table.name):
            nothing = Output(table=table, rows=lake.table(table.name).limit(0), count=0)
            scope = _scope(lake, stage, wave, nothing, replaced=replaced)
            publish(lake, table, nothing.rows, count=0, scope=scope)


def publish_quarantine(lake: Lake, stage: Stage, wave: Wave, audited: Audit, *, parents: DataFrame) -> None:
    """Publish the bad rows of a wave, in place of all that its parents had in quarantine."""
    from pyspark.sql import functions as F

    keys = parents.select(joined_key(stage.key_of_parent).alias("input_key")).distinct()
    is_unit = tuple(wave.parent_key) == (stage.unit,)
    scope = Scope(
        pruning="input_key",
        values=wave.units if is_unit else [row[0] for row in keys.collect()],
        parents=keys,
        own=(F.col("stage") == wave.stage) & (F.col("producer") == wave.producer),
    )
    publish(lake, quarantine.TABLE, audited.bad, count=audited.quarantined, scope=scope)


def _scope(lake: Lake, stage: Stage, wave: Wave, output: Output, *, replaced: DataFrame | None) -> Scope:
    from pyspark.sql import functions as F

    own: Column | None = F.col("model_id") == wave.producer if stage.producer else None
    # Rows of a stage that gathers say which version of its input's input they saw.
    version = None if stage.gather else wave.progress.version
    head = -1 if version is None else lake.version(wave.progress.table)
    pruning, values = _pruning(stage, wave, output.table, output.rows)
    return Scope(
        pruning=pruning, values=values, parents=replaced, version=version, head=head, own=own,
        seen=lambda: seen_versions(lake, wave.progress),
    )  # fmt: skip


def _pruning(stage: Stage, wave: Wave, table: Table, good: DataFrame) -> tuple[str, list[str]]:
    """The column that a table is clustered by, and its values in this wave."""
    column = table.key[0] if stage.keeps_children else stage.unit
    if column == stage.unit:
        return column, list(wave.units)
    return column, [row[0] for row in good.select(column).distinct().collect()]


def _replaced(stage: Stage, audited: Audit, *, rows: DataFrame, parents: DataFrame) -> DataFrame | None:
    """Parents whose children are replaced: all but those that could not be read just now.

    What a model said of a frame that has changed since is wrong, whether or not the new one can be read.
    """
    from pyspark.sql import functions as F

    if stage.keeps_children:
        return None
    changed_at = [CHANGED_AT] if stage.producer and CHANGED_AT in parents.columns else []
    keys, away = parents.select(*stage.key_of_parent, *changed_at), unread_parents(stage, rows)
    if away is None or not stage.unreadable & {*audited.reasons}:
        return keys
    key = list(stage.key_of_parent)
    if not changed_at:
        return keys.join(F.broadcast(away), key, "left_anti")
    marked = keys.join(F.broadcast(away.withColumn(AWAY, F.lit(True))), key, "left")
    return marked.where(F.col(AWAY).isNull() | F.col(CHANGED_AT).isNotNull())
