"""The gate's verdict on a wave: the numbers that checks judge, and every check of stage, tables and user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from visionlake.expectations._checks import SHOWN_KEYS, CheckResult, with_offending_keys
from visionlake.expectations._gate import judge_profile, judge_rows, load_expectations
from visionlake.expectations._table import Check, Metric, Severity

from ._feed import DELETED, joined_key
from ._record import Wave
from ._split import Output
from ._sql import quoted
from ._stage import Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
ERRORS = "errors:"  # before a reason: how many rows are in quarantine for it, as a number to judge
KEYS = "_keys"  # after the name of a measured number: keys of what makes it bad


def builtin_checks(stage: Stage, config: StageConfig) -> tuple[Check, ...]:
    """The checks that every stage has. What offends them is found among the rows for quarantine."""
    rules = ["key_missing", *(rule.name for table in stage.outputs for rule in table.rules)]
    breaks_rule = f"reason IN ({', '.join(map(quoted, rules))})"
    share = f"{config.max_error_share:.0%}" if config.max_error_share >= 0.01 else f"{config.max_error_share:.2%}"
    return (
        Check(
            name="error_share",
            metric="error_share",
            maximum=config.max_error_share,
            share=True,
            expected=f"at most {share} of rows in quarantine",
            offending="true",
        ),
        Check(
            name="failed_parents_share",
            metric="failed_parents_share",
            maximum=config.max_error_share,
            share=True,
            expected=f"at most {share} of inputs without a good row",
            offending="true",
        ),
        Check(
            name="parents_accounted",
            metric="parents_without_rows",
            maximum=0,
            expected="every input yields at least one row, good or in quarantine",
        ),
        Check(
            name="duplicate_keys",
            metric="duplicate_keys",
            maximum=0,
            severity="warn",
            expected="keys are unique",
            offending="reason = 'duplicate_key'",
        ),
        Check(
            name="row_rules",
            metric="rows_breaking_rules",
            maximum=0,
            severity="warn",
            expected="rows keep the rules",
            offending=breaks_rule,
        ),
    )


def all_checks(stage: Stage, config: StageConfig) -> tuple[Check, ...]:
    """Built-in checks, the tables' and the stage's own."""
    tables = (check for table in stage.outputs for check in table.checks)
    return (*builtin_checks(stage, config), *tables, *_own_checks(stage, config))


def _own_checks(stage: Stage, config: StageConfig) -> tuple[Check, ...]:
    return (*stage.checks, *(stage.checks_for(config) if stage.checks_for else ()))


def judge(
    stage: Stage,
    config: StageConfig,
    wave: Wave,
    *,
    staged: DataFrame,
    outputs: Sequence[Output],
    bad: DataFrame,
    parents: DataFrame,
    counts: Mapping[str, Metric],
    reasons: Mapping[str, int],
    earlier: Mapping[str, float],
) -> tuple[CheckResult, ...]:
    """Judge a wave by every check: its good rows in `outputs`, those for quarantine in `bad`.

    `earlier` holds what checks have observed in earlier waves of the producer, on average.
    """
    checks = [_compared(check, earlier) for check in all_checks(stage, config)]
    errors = {c.metric: reasons.get(c.metric[len(ERRORS) :], 0) for c in checks if c.metric.startswith(ERRORS)}
    builtin = builtin_checks(stage, config)
    rows, seen = int(counts["rows"] or 0), int(counts["parents"] or 0)
    good = sum(output.count for output in outputs)
    numbers = {**_numbers(wave, counts=counts, reasons=reasons), **errors}
    offending: dict[str, list[str]] = {}
    if good:
        if stage.measure:
            measured = stage.measure(outputs[0].rows, parents.where(f"NOT {DELETED}"), config).collect()[0].asDict()
            offending = {name: measured.pop(name) for name in list(measured) if name.endswith(KEYS)}
            numbers |= measured
        numbers |= _aggregates(outputs, _own_checks(stage, config), known=numbers)
    profile = {**({} if good else {c.metric: None for c in checks}), **numbers}
    results: list[CheckResult] = []
    by_parent = [check for check in builtin if check.name == "failed_parents_share"]
    by_row = [check for check in builtin if check not in by_parent]
    own = iter(checks[len(builtin) :])
    by_table = [([*islice(own, len(output.table.checks))], output.count) for output in outputs]
    for group, count in ((by_parent, seen), (by_row, rows), *by_table, ([*own], good)):
        names = {check.name for check in group}
        levels: dict[str, Severity] = {name: level for name, level in config.severity.items() if name in names}
        results += judge_profile(profile, group, rows=count, min_rows=config.min_rows, severity=levels)
    results = _with_keys(results, _own_checks(stage, config), builtin, outputs=outputs, bad=bad, measured=offending)
    results = [_with_lost(r, stage, staged, parents) if r.name == "parents_accounted" else r for r in results]
    results = [_with_reasons(r, reasons, bad) if r.name == "error_share" else r for r in results]
    mine = [*config.expectations, *(load_expectations(config.expectations_file) if config.expectations_file else ())]
    return (*results, *(judge_rows(outputs[0].rows, mine, key=outputs[0].table.key) if mine else ()))


def _with_lost(result: CheckResult, stage: Stage, staged: DataFrame, parents: DataFrame) -> CheckResult:
    """The result with the keys of some parents that yielded nothing, where it failed."""
    if not result.failed:
        return result
    keys = list(stage.key_of_parent)
    lost = parents.where(f"NOT {DELETED}").join(staged.select(*keys).distinct(), keys, "left_anti")
    found = lost.select(joined_key(keys).alias("key")).limit(SHOWN_KEYS).collect()
    return replace(result, keys=tuple(row["key"] for row in found))


def _with_reasons(result: CheckResult, reasons: Mapping[str, int], bad: DataFrame) -> CheckResult:
    """The result, where it failed, with the most frequent reasons and what one of their rows says.

    What a gate holds back is in no quarantine yet, where one could look.
    """
    if not result.failed or not reasons:
        return result
    most = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))[:3]
    row = bad.where(f"reason = {quoted(most[0][0])}").select("message").first()
    told = ", ".join(f"{reason} ({count})" for reason, count in most)
    example = f"; for example: {row['message']}" if row and row["message"] else ""
    return replace(result, message="; ".join(filter(None, (result.message, f"most often {told}{example}"))))


def _compared(check: Check, earlier: Mapping[str, float]) -> Check:
    """The check with bounds from earlier waves, if that is where it has them from."""
    if check.factor is None or check.name not in earlier:
        return check
    usual = earlier[check.name]
    bounds = (usual / check.factor, usual * check.factor)
    words = f"{check.expected} ({usual:.3g}): {bounds[0]:.3g} to {bounds[1]:.3g}"
    return replace(check, minimum=bounds[0], maximum=bounds[1], expected=words)


def _numbers(wave: Wave, *, counts: Mapping[str, Metric], reasons: Mapping[str, int]) -> dict[str, Metric]:
    """What the built-in checks judge."""
    rows, seen, good = (int(counts[name] or 0) for name in ("rows", "parents", "good_parents"))
    # A parent that yields neither good nor bad rows has not failed: a file that was bad, and is gone.
    failed = min(seen - good, int(counts["bad_parents"] or 0))
    rules = {name for name in counts if name.startswith("reason:")}
    return {
        "failed_parents_share": failed / (good + failed) if good + failed else 0.0,
        "error_share": sum(reasons.values()) / rows if rows else None,
        "parents_without_rows": wave.rows_in - wave.rows_deleted - seen,
        "duplicate_keys": reasons.get("duplicate_key", 0),
        "rows_breaking_rules": sum(int(counts[name] or 0) for name in rules if name != "reason:duplicate_key"),
    }


def _with_keys(
    results: list[CheckResult],
    extra: Sequence[Check],
    builtin: Sequence[Check],
    *,
    outputs: Sequence[Output],
    bad: DataFrame,
    measured: Mapping[str, Sequence[str]],
) -> list[CheckResult]:
    """The results, each that failed with some offending keys where it can tell them."""
    from pyspark.sql import functions as F

    held = bad.withColumn("key", F.coalesce("output_key", "input_key"))
    results = with_offending_keys(results, builtin, held, key=("key",))
    for output in outputs:
        own = (*output.table.checks, *(extra if output is outputs[0] else ()))
        results = with_offending_keys(results, own, output.rows, key=output.table.key)
        keys = {c.name: measured.get(f"{c.metric}{KEYS}") or () for c in own}
        results = [replace(r, keys=tuple(keys.get(r.name, ()))) if r.failed and not r.keys else r for r in results]
    return results


def _aggregates(outputs: Sequence[Output], extra: Sequence[Check], *, known: Mapping[str, Metric]) -> dict[str, Metric]:
    from pyspark.sql import functions as F

    numbers: dict[str, Metric] = {}
    for place, output in enumerate(outputs):
        checks = [c for c in (*output.table.checks, *(extra if place == 0 else ())) if c.metric not in known]
        if checks:
            row = output.rows.agg(*(F.expr(c.metric).alias(c.name) for c in checks)).collect()[0]
            numbers |= row.asDict()
    return {name: float(v) if v is not None else None for name, v in numbers.items()}
