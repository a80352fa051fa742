"""The quarantine as a person handles it: list, count, show, ask for a replay."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ._sql import quoted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._lake import Lake


def list_rows(
    lake: Lake, *, stage: str | None = None, reason: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Quarantined rows, newest first."""
    found = _chosen(lake, stage=stage, reason=reason)
    if found is None:
        return []
    return [row.asDict() for row in found.orderBy("at", ascending=False).limit(limit).collect()]


def counts(lake: Lake) -> list[dict[str, Any]]:
    """Rows per stage and reason, most frequent first."""
    found = _chosen(lake)
    if found is None:
        return []
    return [
        row.asDict() for row in found.groupBy("stage", "reason").count().orderBy("count", ascending=False).collect()
    ]


def show(lake: Lake, input_key: str) -> list[dict[str, Any]]:
    """All quarantined rows of one parent."""
    found = _chosen(lake, input_key=input_key)
    return [] if found is None else [row.asDict() for row in found.collect()]


def replay(lake: Lake, *, stage: str | None = None, reason: str | None = None, input_key: str | None = None) -> int:
    """Make the parents of the chosen rows due again; the next run processes them with today's settings and files.

    Returns the number of rows marked.
    """
    found = _chosen(lake, stage=stage, reason=reason, input_key=input_key)
    count = 0 if found is None else found.count()
    if count:
        wanted = {"stage": stage, "reason": reason, "input_key": input_key}
        where = " AND ".join(f"{name} = {quoted(value)}" for name, value in wanted.items() if value is not None)
        lake.update("quarantine", where=where or "true", values={"replay_requested_at": _now()})
    return count


def replay_unread(lake: Lake, *, stage: str, producer: str, reasons: Collection[str]) -> None:
    """Ask for a replay of what could not be read: it may lie somewhere else by now. Kept until it is done."""
    from pyspark.sql import functions as F

    if not reasons or not lake.exists("quarantine"):
        return
    waiting = (F.col("stage") == stage) & (F.col("producer") == producer) & F.col("reason").isin(*reasons)
    if not lake.table("quarantine").where(waiting & F.col("replay_requested_at").isNull()).isEmpty():
        listed = ", ".join(map(quoted, sorted(reasons)))
        lake.update(
            "quarantine",
            where=f"stage = {quoted(stage)} AND producer = {quoted(producer)} AND reason IN ({listed})",
            values={"replay_requested_at": _now()},
        )


def _now() -> str:
    return f"TIMESTAMP {quoted(datetime.now(UTC).isoformat())}"


def _chosen(lake: Lake, **wanted: str | None) -> DataFrame | None:
    from pyspark.sql import functions as F

    if not lake.exists("quarantine"):
        return None
    rows = lake.table("quarantine")
    for name, value in wanted.items():
        rows = rows if value is None else rows.where(F.col(name) == value)
    return rows
