"""Rows of a staged wave, split by the row rules of each table into good ones and bad ones, counted and made unique."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from visionlake.errors import StageError
from visionlake.expectations._table import Column, Metric, Rule, Table

from ._feed import joined_key
from ._record import Wave
from ._schemas import fitted, struct_type
from ._stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame

REASON = "_reason"
FILLED = ("input_version", "run_id")  # by the runner, where the stage does not


@dataclass(frozen=True, kw_only=True)
class Output:
    """Good rows for one table, and how many they are."""

    table: Table
    rows: DataFrame
    count: int


@dataclass(frozen=True, kw_only=True)
class Split:
    table: Table
    rows: DataFrame


def tables_with_manifest(stage: Stage, staged: DataFrame) -> list[Table]:
    """The stage's tables, an open one with the columns that its struct has gained from manifests."""
    tables = []
    for table in stage.outputs:
        if table.is_open and len(stage.outputs) > 1:
            names = staged.select(f"{table.name}.*").columns
            extra = [n for n in names if n not in table.column_names]
            table = table.with_columns(Column(name=n, type="string", comment="from the manifest") for n in extra)
        tables.append(table)
    return tables


def split_rows(table: Table, staged: DataFrame, wave: Wave, *, given: Collection[str] = ()) -> Split:
    """The table's rows with `_reason`: the first rule that a row breaks, null for a good row.

    Volatile columns in `given` are as the stage has them; the others are filled here.
    """
    from pyspark.sql import functions as F

    single = table.name not in staged.columns
    if single and (absent := [n for n in table.column_names if n not in (*staged.columns, *FILLED)]):
        raise StageError(
            f"{wave.stage} returns no column {', '.join(absent)}, which the table {table.name} has; it returns "
            f"{', '.join(staged.columns)}"
        )
    rows = staged if single else staged.where(F.col(table.name).isNotNull())
    if single:
        rows = rows.where(F.col("error.reason").isNull()) if "error" in staged.columns else rows
        rows = rows.select(*(_cast(staged, c) for c in table.columns), _input_key(wave, staged))
    else:
        rows = rows.select(F.col(f"{table.name}.*"), _input_key(wave, staged))
        rows = rows.select(*(_cast(rows, c) for c in table.columns), "_input_key")
    filled = {
        "input_version": F.lit(wave.progress.version).cast("bigint"),
        "run_id": F.lit(wave.run_id),
    }
    wanted = {c.name for c in table.columns if c.volatile} - {*given}
    rows = rows.withColumns({name: value for name, value in filled.items() if name in wanted})
    broken = [_broken(rule) for rule in (*key_rules(table), *table.rules)]
    reason = F.coalesce(*broken) if broken else F.lit(None).cast("string")
    return Split(table=table, rows=rows.withColumn(REASON, reason))


def _cast(staged: DataFrame, column: Column) -> SparkColumn:
    from pyspark.sql import functions as F

    if column.name not in staged.columns:
        return F.lit(None).cast(column.type).alias(column.name)
    actual, wanted = staged.schema[column.name].dataType, struct_type(f"value {column.type}")["value"].dataType
    return fitted(F.col(column.name), actual, wanted).alias(column.name)


def _input_key(wave: Wave, staged: DataFrame) -> SparkColumn:
    return joined_key(wave.parent_key).alias("_input_key")


def key_rules(table: Table) -> list[Rule]:
    holds = " AND ".join(f"`{name}` IS NOT NULL" for name in table.known_key)
    return [Rule(name="key_missing", holds=holds, message=f"{', '.join(table.known_key)} not null")]


def _broken(rule: Rule) -> SparkColumn:
    from pyspark.sql import functions as F

    return F.when(~F.coalesce(F.expr(rule.holds), F.lit(False)), F.lit(rule.name))


def count_rows(stage: Stage, staged: DataFrame, split: Sequence[Split]) -> dict[str, Metric]:
    """How many rows there are, how many break which rule, how many keys and parents differ: one pass per table."""
    from pyspark.sql import functions as F

    has_error = F.col("error.reason").isNotNull() if "error" in staged.columns else F.lit(False)
    is_record = reduce(or_, (F.col(table.name).isNotNull() for table in stage.records), F.lit(False))
    overall = staged.agg(
        F.count_if(~is_record).alias("rows"),
        F.count_if(has_error).alias("errors"),
        F.count_distinct(F.when(has_error, F.struct(*stage.key_of_parent))).alias("bad_parents"),
        F.count_distinct(F.struct(*stage.key_of_parent)).alias("parents"),
    )
    counts: dict[str, Metric] = {}
    for part in split:
        names = [rule.name for rule in (*key_rules(part.table), *part.table.rules)]
        good = F.col(REASON).isNull()
        row = part.rows.agg(
            F.count_if(good).alias("good"),
            F.count_distinct(F.when(good, F.struct(*part.table.key))).alias("keys"),
            F.count_distinct(F.when(good, F.col("_input_key"))).alias("good_parents"),
            F.count_distinct(F.when(~good, F.col("_input_key"))).alias("bad_parents"),
            *(F.count_if(F.col(REASON) == name).alias(f"reason:{name}") for name in names),
        )
        overall = overall.join(row.select(F.struct("*").alias(part.table.name)), how="cross")
    found = overall.collect()[0].asDict(recursive=True)
    for part in split:
        row = found.pop(part.table.name)
        counts |= {f"good:{part.table.name}": row.pop("good"), f"keys:{part.table.name}": row.pop("keys")}
        counts["good_parents"] = max(counts.get("good_parents") or 0, row.pop("good_parents"))
        found["bad_parents"] += row.pop("bad_parents")
        for name, count in row.items():
            counts[name] = (counts.get(name) or 0) + count
    return counts | found


def without_duplicates(stage: Stage, part: Split, counts: dict[str, Metric]) -> Output:
    """Good rows with unique keys. Equal facts of the same content are no error where the table is only added to."""
    from pyspark.sql import functions as F

    good = part.rows.where(F.col(REASON).isNull())
    name = part.table.name
    surplus = int(counts[f"good:{name}"] or 0) - int(counts[f"keys:{name}"] or 0)
    if surplus:
        good = numbered(part).where("_place = 1")
        counts[f"good:{name}"] = counts[f"keys:{name}"]
        if not stage.keeps_children:
            counts["reason:duplicate_key"] = (counts.get("reason:duplicate_key") or 0) + surplus
    count = int(counts[f"good:{name}"] or 0)
    return Output(table=part.table, rows=good.select(*part.table.column_names), count=count)


def numbered(part: Split) -> DataFrame:
    """Good rows with `_place`, their number among those of the same key: the same one in every attempt."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy(*part.table.key).orderBy(F.xxhash64(*part.table.compared_columns))
    return part.rows.where(F.col(REASON).isNull()).withColumn("_place", F.row_number().over(order))
