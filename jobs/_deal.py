"""Deals work out to tasks: the largest piece first, so that no core is left with a long one at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def deal_out(rows: DataFrame, *, by: str, key: str, most: int) -> DataFrame:
    """The rows in at most `most` tasks, dealt out like cards by the size in `by`, largest first, then by `key`.

    Tasks start in their order, so that the largest pieces start first, and no task gets all of them.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    tasks = max(1, min(rows.count(), most))
    place = F.row_number().over(Window.orderBy(F.desc_nulls_last(by), key)) - 1
    return rows.withColumn("_task", (place % tasks).cast("int")).repartitionById(tasks, "_task").drop("_task")
