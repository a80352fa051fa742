"""Cuts the next wave off what is due: bounded by parents, estimated rows and bytes, in the order of the units' keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._feed import DELETED
from ._stage import Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The units (media, files) of a wave; `is_last` where nothing is due after them.

    `due_units` counts all units due, up to the limit of the run, and `due_rows` estimates what comes out of them; None
    where one of the two was not asked for or is not known.
    """

    units: Sequence[Row]
    is_last: bool
    due_units: int | None
    due_rows: int | None

    @property
    def parents(self) -> int:
        """Rows of the parent table, deleted ones among them."""
        return sum(row["parents"] for row in self.units)

    @property
    def deleted(self) -> int:
        """Rows that the parent table no longer has."""
        return sum(row["deleted"] for row in self.units)

    @property
    def keys(self) -> list[str]:
        """The units' keys, ascending."""
        return [row["unit"] for row in self.units]


def cut(due: DataFrame, stage: Stage, config: StageConfig, *, left: int | None, is_first: bool) -> Cut:
    """The next wave of `due`: at least one unit, at most `left`. All that is due is counted for the first wave only."""
    sums = per_unit(due, stage, config)
    most = config.max_wave_parents if left is None else min(config.max_wave_parents, left)
    found = sums.orderBy("unit").limit(most + 1).collect()
    units = _fitting(found[:most], config, most=most)
    due_units = due_rows = None
    if is_first and len(found) <= most:
        due_units = len(found)
        due_rows = int(sum(row["weight"] or 0 for row in found)) if stage.weight else None
    elif is_first:
        due_units = sums.count() if left is None else min(sums.count(), left)
    return Cut(units=units, is_last=len(units) == len(found), due_units=due_units, due_rows=due_rows)


def per_unit(due: DataFrame, stage: Stage, config: StageConfig) -> DataFrame:
    """Per unit its parents, and the rows and bytes that they are expected to yield."""
    from pyspark.sql import functions as F

    weight = F.expr(stage.weight(config)) if stage.weight else F.lit(1.0)
    size = F.expr(stage.row_bytes(config)) if stage.row_bytes else F.lit(0.0)
    return due.groupBy(F.col(stage.unit).alias("unit")).agg(
        F.count("*").alias("parents"),
        F.count_if(F.col(DELETED)).alias("deleted"),
        F.sum(F.when(F.col(DELETED), 0.0).otherwise(weight)).alias("weight"),
        F.sum(F.when(F.col(DELETED), 0.0).otherwise(weight * size)).alias("bytes"),
    )


def _fitting(found: Sequence[Row], config: StageConfig, *, most: int) -> list[Row]:
    """As many units as the bounds of a wave allow, one at least."""
    rows = parents = mib = 0.0
    for place, row in enumerate(found):
        rows, parents = rows + (row["weight"] or 0.0), parents + row["parents"]
        mib += (row["bytes"] or 0.0) / 2**20
        too_much = rows > config.max_wave_rows or mib > config.max_wave_mib
        if place and (too_much or parents > max(most, config.max_wave_rows)):
            return list(found[:place])
    return list(found)
