"""Publishing rows by key: what is equal stays untouched, what is new is added, what no longer comes out is deleted.

Idempotent: a second publication of the same rows finds nothing to do. Only files that hold a changed row are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from visionlake.expectations._table import Table

from ._feed import CHANGED_AT, look_of
from ._lake import Lake
from ._sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

IN_LIST = 200
AWAY = "_away"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which existing rows the published ones replace: those for which `own` holds, with a parent in `parents`.

    Where `parents` has `_changed_at`, rows that are not our own go, too, if they saw an older version of their parent
    and `seen` does not say of their producer that it has looked since: what came out equal was left as it was. Where
    they also have `_away`, not null for a parent that could not be read, that holds for our own rows, too.
    `pruning` is the column along which the table is clustered, with the values of this wave; `parents` is a frame of
    the parents' key columns as the table has them, or None where nothing is ever deleted. `version` is the input's
    version that the rows saw: what a newer one wrote is left alone, up to `head`, the input's newest (a larger
    one is of an earlier table of that name).
    """

    pruning: str
    values: Sequence[str]
    parents: DataFrame | None
    version: int | None = None
    head: int = -1
    own: Column | None = None
    seen: Callable[[], Mapping[str, int]] = dict

    @property
    def replaces_others(self) -> bool:
        """Whether rows of others may be stale."""
        return self.parents is not None and CHANGED_AT in self.parents.columns


def publish(lake: Lake, table: Table, rows: DataFrame, *, count: int, scope: Scope) -> int | None:
    """Publish `count` rows into the table; returns the new Delta version, or None where there was nothing to change."""
    existing = lake.table(table.name).where(near(scope.pruning, scope.values))
    if scope.own is not None and not scope.replaces_others:
        existing = existing.where(scope.own)
    if lake.is_untouched(table.name) or existing.isEmpty():
        if not count:
            return None
        lake.insert(table.name, rows, on=_on(table, scope.pruning, scope.values))
        return lake.version(table.name)
    changes = _changes(table, rows, existing, scope).persist()
    try:
        touched = [r[scope.pruning] for r in changes.select(scope.pruning).distinct().limit(IN_LIST + 1).collect()]
        if not touched:
            return None
        source = _source(table, rows, changes, version=scope.version)
        values = touched if len(touched) <= IN_LIST else scope.values
        has_version = "input_version" in table.column_names
        lake.merge(
            table.name,
            source,
            on=_on(table, scope.pruning, values),
            unless=f"t.input_version > s.input_version AND t.input_version <= {scope.head}" if has_version else None,
        )
    finally:
        changes.unpersist()
    return lake.version(table.name)


def _changes(table: Table, rows: DataFrame, existing: DataFrame, scope: Scope) -> DataFrame:
    """Keys with `_op`: insert, update or delete. Pictures are compared by hash, so only keys are shuffled."""
    from pyspark.sql import functions as F

    keys = list(table.key)
    outdated = F.lit(False)
    if scope.parents is not None:
        shared = [c for c in scope.parents.columns if c in existing.columns]
        existing = existing.join(F.broadcast(scope.parents), shared, "inner" if scope.replaces_others else "left_semi")
        if scope.own is not None and scope.replaces_others:
            outdated = F.coalesce(F.col("input_version") < F.col(CHANGED_AT), F.lit(False))
            for producer, version in scope.seen().items():
                outdated &= (F.col("model_id") != producer) | (F.col(CHANGED_AT) > version)
            own = scope.own & F.col(AWAY).isNull() if AWAY in existing.columns else scope.own
            existing = existing.where(own | outdated)
    newer = F.lit(False)
    if "input_version" in table.column_names and scope.version is not None:
        newer = F.coalesce(F.col("input_version").between(scope.version + 1, scope.head), F.lit(False))
    look = look_of(table.compared_columns, binary={c.name for c in table.columns if c.type == "binary"})
    new = rows.select(*keys, look.alias("_new"))
    old = existing.select(*keys, look.alias("_old"), newer.alias("_newer"), outdated.alias("_outdated"))
    on = [F.col(f"n.{k}").eqNullSafe(F.col(f"o.{k}")) for k in keys]
    both = new.alias("n").join(old.alias("o"), on, "full_outer")
    stale = F.lit("delete") if scope.parents is not None else F.lit(None).cast("string")
    op = (
        F.when(F.col("_old").isNull(), F.lit("insert"))
        .when(F.col("_newer"), F.lit(None))
        .when(F.col("_new").isNull(), stale)
        # An equal row whose parent has changed says from now on that it saw the change: others would take it for stale.
        .when((F.col("_old") != F.col("_new")) | F.col("_outdated"), F.lit("update"))
    )
    merged = [F.coalesce(F.col(f"n.{k}"), F.col(f"o.{k}")).alias(k) for k in keys]
    return both.select(*merged, op.alias("_op")).where(F.col("_op").isNotNull())


def _source(table: Table, rows: DataFrame, changes: DataFrame, *, version: int | None) -> DataFrame:
    from pyspark.sql import functions as F

    keys = list(table.key)
    matches = [F.col(f"r.{k}").eqNullSafe(F.col(f"c.{k}")) for k in keys]
    written = rows.alias("r").join(F.broadcast(changes.where("_op <> 'delete'")).alias("c"), matches)
    written = written.select("r.*", "c._op")
    gone = changes.where("_op = 'delete'")
    filled = {"input_version": version}
    blank = [F.lit(filled.get(c.name)).cast(c.type).alias(c.name) for c in table.columns if c.name not in keys]
    return written.unionByName(gone.select(*keys, *blank, "_op"))


def near(column: str, values: Sequence[str]) -> Column:
    """A condition of literals that holds at least for rows with these values: a list, or a range if it is long."""
    from pyspark.sql import functions as F

    if len(values) <= IN_LIST:
        return F.col(column).isin(list(values))
    return F.col(column).between(F.lit(min(values)), F.lit(max(values)))


def _on(table: Table, column: str, values: Sequence[str]) -> str:
    """The merge condition: keys, plus literals that let Delta skip files and detect a writer of the same rows."""
    if len(values) <= IN_LIST:
        near = f"t.`{column}` IN ({', '.join(quoted(v) for v in values)})"
    else:
        near = f"t.`{column}` BETWEEN {quoted(min(values))} AND {quoted(max(values))}"
    nullable = {c.name for c in table.columns if c.nullable}
    same = (f"t.`{k}` {'<=>' if k in nullable else '='} s.`{k}`" for k in table.key)
    return " AND ".join((near, *same))
