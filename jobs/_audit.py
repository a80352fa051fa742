"""The audit of a staged wave: row rules split good rows from bad, and the gate's checks judge what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from visionlake.expectations._checks import CheckResult

from ._bad_rows import bad_rows, dropped_rows
from ._judge import judge
from ._record import Wave
from ._split import Output, count_rows, split_rows, tables_with_manifest, without_duplicates
from ._stage import Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the audit found: rows to publish, rows to quarantine, and how the checks went."""

    outputs: tuple[Output, ...]
    bad: DataFrame
    published: int
    quarantined: int
    reasons: Mapping[str, int]
    checks: tuple[CheckResult, ...]

    @property
    def is_stopped(self) -> bool:
        """Whether a check forbids publishing."""
        return any(check.stops for check in self.checks)


def audit(
    stage: Stage,
    config: StageConfig,
    wave: Wave,
    *,
    staged: DataFrame,
    parents: DataFrame,
    earlier: Mapping[str, float] | None = None,
) -> Audit:
    """Split and judge a staged wave. Reads materialised rows only. For `earlier` see `judge`."""
    from pyspark.sql import functions as F

    readable = _readable(stage, staged)
    given = ("input_version",) if stage.gather else ()
    split = [split_rows(table, readable, wave, given=given) for table in tables_with_manifest(stage, staged)]
    errors = staged.where(F.col("error.reason").isNotNull()) if "error" in staged.columns else None
    counts = count_rows(stage, staged, split)
    outputs = tuple(without_duplicates(stage, part, counts) for part in split)
    reasons = {name[7:]: int(n) for name, n in counts.items() if name.startswith("reason:") and n}
    if errors is not None and counts["errors"]:
        by_reason = errors.groupBy(F.col("error.reason").alias("reason")).agg(F.count("*").alias("n"))
        reasons |= {row["reason"]: row["n"] for row in by_reason.collect()}
    bad = bad_rows(stage, wave, errors=errors, split=split, has_duplicates="duplicate_key" in reasons)
    checks = judge(
        stage, config, wave, staged=staged, outputs=outputs, bad=bad, parents=parents, counts=counts, reasons=reasons,
        earlier=earlier or {},
    )  # fmt: skip
    return Audit(
        outputs=outputs,
        bad=bad,
        published=max(output.count for output in outputs if output.table not in stage.records),
        quarantined=sum(reasons.values()),
        reasons=reasons,
        checks=checks,
    )


def dropped(stage: Stage, wave: Wave, audited: Audit) -> Audit:
    """The same of a wave that is not to be published: every row that would have been goes to quarantine instead."""
    bad = audited.bad.unionByName(dropped_rows(stage, wave, audited.outputs))
    reasons = {**audited.reasons, "wave_dropped": audited.published}
    return replace(audited, bad=bad, published=0, quarantined=sum(reasons.values()), reasons=reasons)


def unread_parents(stage: Stage, staged: DataFrame) -> DataFrame | None:
    """Keys of the parents that could not be read to the end just now; None for a stage that knows no such thing.

    Nothing of them is published, and the children that they have stay.
    """
    from pyspark.sql import functions as F

    if not stage.unreadable or "error" not in staged.columns:
        return None
    away = staged.where(F.col("error.reason").isin(*stage.unreadable))
    return away.select(*stage.key_of_parent).distinct()


def _readable(stage: Stage, staged: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    # A parent of a model has one row: nothing else came of what could not be read.
    away = None if stage.producer else unread_parents(stage, staged)
    return staged if away is None else staged.join(F.broadcast(away), list(stage.key_of_parent), "left_anti")
