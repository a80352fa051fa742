"""What goes to quarantine, in the columns of that table: rows with an error, rows that break a rule, dropped waves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from visionlake.expectations import quarantine
from visionlake.expectations._table import Table

from ._feed import MICROSECONDS, joined_key
from ._record import Wave
from ._split import REASON, Output, Split, key_rules, numbered
from ._stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def bad_rows(
    stage: Stage, wave: Wave, *, errors: DataFrame | None, split: Sequence[Split], has_duplicates: bool
) -> DataFrame:
    """Everything that goes to quarantine, one row per key of that table; its message counts those of one key."""
    from pyspark.sql import functions as F

    parts = [] if errors is None else [_error_rows(stage, errors)]
    for part in split:
        messages = {r.name: f"allowed: {r.message}" for r in (*key_rules(part.table), *part.table.rules)}
        bad = part.rows.where(F.col(REASON).isNotNull())
        if has_duplicates and not stage.keeps_children:
            again = numbered(part).where("_place > 1").drop("_place")
            bad = bad.unionByName(again.withColumn(REASON, F.lit("duplicate_key")))
            messages |= {"duplicate_key": "allowed: one row per key"}
        message = F.coalesce(*(F.when(F.col(REASON) == name, F.lit(text)) for name, text in messages.items()))
        parts.append(_held_back(part.table, bad, input_key=F.col("_input_key"), reason=F.col(REASON), message=message))
    return _in_quarantine(wave, parts)


def dropped_rows(stage: Stage, wave: Wave, outputs: Sequence[Output]) -> DataFrame:
    """The good rows of a dropped wave. Facts of content are left out where the place that led to them is kept."""
    from pyspark.sql import functions as F

    reason, message = F.lit("wave_dropped"), F.lit(f"wave {wave.wave_id} was dropped")
    key = joined_key(stage.key_of_parent)
    held = [output for output in outputs if {*stage.key_of_parent} <= {*output.rows.columns}]
    return _in_quarantine(
        wave, [_held_back(o.table, o.rows, input_key=key, reason=reason, message=message) for o in held]
    )


def _in_quarantine(wave: Wave, parts: Sequence[DataFrame]) -> DataFrame:
    from pyspark.sql import DataFrame
    from pyspark.sql import functions as F

    key = [name for name in quarantine.TABLE.key if name not in ("stage", "producer")]
    alike = reduce(DataFrame.unionByName, parts).groupBy(*key)
    rows = alike.agg(F.min(F.struct("message", "payload")).alias("first"), F.count("*").alias("n"))
    more = F.when(F.col("n") > 1, F.format_string(" (and %d more like it)", F.col("n") - 1)).otherwise("")
    return rows.withColumns(
        {
            "message": F.concat("first.message", more),
            "payload": F.col("first.payload"),
            "stage": F.lit(wave.stage),
            "producer": F.lit(wave.producer),
            "run_id": F.lit(wave.run_id),
            "wave_id": F.lit(wave.wave_id),
            "at": F.current_timestamp(),
            "replay_requested_at": F.lit(None).cast("timestamp"),
        }
    ).select(*quarantine.TABLE.column_names)


def _error_rows(stage: Stage, errors: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    key = stage.outputs[0].key
    known = len(stage.outputs) == 1 and all(name in errors.columns for name in key)
    # As much of the key as is known: two streams with the same error are two rows.
    parts = [F.coalesce(F.col(name).cast("string"), F.lit("?")) for name in key] if known else []
    further = [name for name in key if name not in stage.key_of_parent] if known else []
    has_more = F.coalesce(*(F.col(name).cast("string") for name in further)).isNotNull() if further else F.lit(known)
    given = F.col("output_key") if "output_key" in errors.columns else F.lit(None).cast("string")
    return errors.select(
        joined_key(stage.key_of_parent).alias("input_key"),
        (F.when(has_more, F.concat_ws("/", *parts)) if known else given).alias("output_key"),
        F.col("error.reason").alias("reason"),
        F.col("error.message").alias("message"),
        F.col("error.payload").alias("payload"),
    )


def _held_back(table: Table, rows: DataFrame, *, input_key: Column, reason: Column, message: Column) -> DataFrame:
    """Rows of a table that are not published, with what they hold."""
    from pyspark.sql import functions as F

    shown = [c.name for c in table.columns if c.type != "binary" and not c.volatile]
    return rows.select(
        input_key.alias("input_key"),
        joined_key(table.known_key).alias("output_key"),
        reason.alias("reason"),
        message.alias("message"),
        F.to_json(F.struct(*shown), {"timestampFormat": MICROSECONDS}).alias("payload"),
    )
