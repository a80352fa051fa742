"""The quarantine as a person handles it: list, count, show, ask for a replay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ._lake import quoted

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
        now = datetime.now(UTC).isoformat()
        lake.update("quarantine", where=where or "true", values={"replay_requested_at": f"TIMESTAMP {quoted(now)}"})
    return count


def _chosen(lake: Lake, **wanted: str | None) -> DataFrame | None:
    from pyspark.sql import functions as F

    if not lake.exists("quarantine"):
        return None
    rows = lake.table("quarantine")
    for name, value in wanted.items():
        rows = rows if value is None else rows.where(F.col(name) == value)
    return rows
