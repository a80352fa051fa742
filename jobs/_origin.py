"""Which wave wrote a row.

A label says which run wrote it, a frame not even that. A producer's waves go through the media in the order of their
ids, in passes: a pass reads one version of its input, and a row says which (`input_version`). So in each pass it is the
first wave that got as far as the row's media. A replay is a pass of its own, of which only the parents that were asked
for are known, so it may have written any row. Where several passes remain, the table's change feed tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from ._lake import read_errors
from ._record import DONE

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from ._lake import Lake

_PUBLISHED = ("published", "released")
_SETTINGS = ("mode", "settings_digest", "config")


@dataclass(frozen=True, kw_only=True)
class Written:
    """A row of a table, by its key, with what it says itself of its origin; None where it says nothing.

    `input_version` is a version of `input_table`: of frames in a fusion's row, too, which reads other labels.
    """

    table: str
    input_table: str
    key: Mapping[str, Any]
    input_version: int | None
    producer: str | None = None
    run_id: str | None = None


def find_origins(lake: Lake, media_id: str, rows: Sequence[Written]) -> list[list[dict[str, Any]]]:
    """For each row, all of one media, the waves that may have written it: one where it is certain, none if not known.

    A wave is a row of `waves`.
    """
    from pyspark.sql import functions as F

    if not rows or not lake.exists("waves"):
        return [[] for _ in rows]
    wanted = reduce(lambda one, other: one | other, (_fits(row) for row in rows))
    found = _covering(lake.table("waves"), media_id).where(F.col("status").isin(*_PUBLISHED) & wanted)
    # The sizes of nested arrays are small: checks, and a version for each table.
    waves = [wave.asDict(recursive=True) for wave in found.orderBy("finished_at", "sequence").collect()]
    return [_told_apart(lake, row, [wave for wave in waves if _is_of(wave, row)]) for row in rows]


def _covering(waves: DataFrame, media_id: str) -> DataFrame:
    """Of each pass the first wave that got as far as the media; and all replays."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    in_order = Window.partitionBy("stage", "producer").orderBy("sequence")
    so_far = in_order.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    now, before = F.get("inputs", F.lit(0)), F.col("_before")
    # A look under other settings begins anew, at whatever version.
    is_alike = reduce(
        lambda one, other: one & other, (F.col(name).eqNullSafe(F.lag(name).over(in_order)) for name in _SETTINGS)
    )
    goes_on = (
        ~before["is_complete"]
        & F.col("_alike")
        & before["table_id"].eqNullSafe(now["table_id"])
        & before["version"].eqNullSafe(now["version"])
        & (now["last_key"] > before["last_key"])
    )
    is_replay = now.eqNullSafe(before)  # progress stays where it was
    is_as_far = is_replay | now["last_key"].isNull() | (now["last_key"] >= media_id)
    done = waves.where(F.col("status").isin(*DONE)).withColumns(
        {"_before": F.lag(now).over(in_order), "_alike": is_alike}
    )
    done = done.withColumn("_pass", F.sum(F.when(goes_on, 0).otherwise(1)).over(so_far))
    done = done.where(is_as_far & (F.col("rows_in") > 0))
    first = Window.partitionBy("stage", "producer", "_pass").orderBy("sequence")
    done = done.withColumn("_place", F.row_number().over(first)).where("_place = 1")
    return done.drop("_before", "_alike", "_pass", "_place")


def _fits(row: Written) -> Column:
    """Whether a wave agrees with what the row says."""
    from pyspark.sql import functions as F

    fits = F.exists("outputs", lambda output: output["table"] == row.table)
    parent = F.get("inputs", F.lit(0))
    is_other = parent["table"] != row.input_table
    for found, said in (
        (F.when(is_other, F.lit(row.input_version)).otherwise(parent["version"]), row.input_version),
        (F.col("producer"), row.producer),
        (F.col("run_id"), row.run_id),
    ):
        fits = fits if said is None else fits & (found == said)
    return fits


def _is_of(wave: Mapping[str, Any], row: Written) -> bool:
    """The same of a wave that is here."""
    said = (row.input_version, row.producer, row.run_id)
    parent = (wave["inputs"] or [{"table": None, "version": None}])[0]
    version = parent["version"] if parent["table"] == row.input_table else row.input_version
    found = (version, wave["producer"], wave["run_id"])
    agrees = all(one in (None, other) for one, other in zip(said, found, strict=True))
    return agrees and _version(wave, row.table) is not None


def _version(wave: Mapping[str, Any], table: str) -> int | None:
    return next((output["version"] for output in wave["outputs"] or () if output["table"] == table), None)


def _told_apart(lake: Lake, row: Written, waves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The one of the waves that wrote the row; all of them where the change feed is gone."""
    from pyspark.sql import functions as F

    if len(waves) < 2:
        return waves
    versions = [_version(wave, row.table) or 0 for wave in waves]
    try:
        feed = lake.changes(row.table, first=min(versions), last=max(versions))
        mine = reduce(lambda one, other: one & other, (F.col(name) == value for name, value in row.key.items()))
        written = feed.where(mine & F.col("_change_type").isin("insert", "update_postimage"))
        (last,) = written.agg(F.max("_commit_version").alias("version")).collect()
    except read_errors():
        return waves
    # A wave whose table was written by an attempt that was killed bears a version at or after that.
    pairs = sorted(zip(versions, range(len(waves)), strict=True))
    at = last["version"] or versions[pairs[0][1]]
    return [next(waves[place] for version, place in pairs if version >= at)]
