"""Judges a wave's profile, one row of numbers, by the checks of the declarations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .._checks import CheckResult, Status, as_float, check_names, failure, validate_severity
from .._table import Check, Metric, Severity
from ._gx import NO_RESULT, explain, first_line, own_context, profile_definition, run

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation


def prepare() -> None:
    """Import Great Expectations and judge something trivial, so that the first real gate is quick.

    Meant for a background thread while Spark works; calling it again costs nothing to speak of.
    """
    judge_profile({"ready": 1}, [Check(name="ready", metric="ready", expected="", minimum=1)], rows=1, min_rows=1)


def judge_profile(
    profile: Mapping[str, Metric],
    checks: Sequence[Check],
    *,
    rows: int,
    min_rows: int,
    severity: Mapping[str, Severity] | None = None,
) -> list[CheckResult]:
    """Judge a wave's numbers by the checks of its declarations; one result per check, in their order.

    `profile` holds each number under the name of its check or of its metric. `rows` is the number of good rows: with
    none, a null number is nothing to judge, else it fails. Checks on shares only warn below `min_rows`. `severity` maps
    names of checks to severities that replace the declared ones. Raises ConfigError for a name there that no check has.
    """
    severity = severity or {}
    validate_severity(severity, check_names(checks))
    values = {c.name: _number(profile[n]) for c in checks for n in (c.metric, c.name) if n in profile}
    unbounded = {c.name for c in checks if c.factor is not None and c.minimum is None and c.maximum is None}
    judged = {c.name: c for c in checks if values.get(c.name) is not None and c.name not in unbounded}
    verdicts = _judge_bounds({name: values[name] for name in judged}, judged) if judged else {}
    results = []
    for check in checks:
        level = severity.get(check.name, check.severity)
        observed, message, verdict = "unknown", "", verdicts.get(check.name)
        status: Status
        if values.get(check.name) is not None:
            observed = _show_number(values[check.name], share=check.share)
        if check.name not in values:
            status, message = "errored", f"the wave's profile holds no number {check.metric!r}"
        elif check.name in unbounded:
            status, message = "skipped", "no earlier wave to compare with"
        elif check.name not in judged:
            status = "skipped" if rows == 0 else failure(level)
            message = "no rows to judge" if rows == 0 else "the number is null"
        elif isinstance(verdict, str):
            status, message = "errored", verdict
        else:
            status = "passed" if verdict else failure(level)
        if status == "stopped" and check.share and rows < min_rows:
            status, message = "warned", f"{rows} rows, too few to stop (min_rows = {min_rows})"
        results.append(
            CheckResult(
                name=check.name,
                severity=level,
                status=status,
                expected=check.expected,
                observed=observed,
                value=as_float(values.get(check.name)),
                message=message,
            )
        )
    return results


def _number(value: Any) -> Any:
    """A metric as GX compares it; None for NaN, which GX would take for a missing value and pass."""
    if isinstance(value, bool | Decimal):
        value = float(value) if isinstance(value, Decimal) else int(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _show_number(value: Any, *, share: bool) -> str:
    if isinstance(value, int | float) and share:
        return f"{100 * value:.4g} %"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _judge_bounds(values: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, bool | str]:
    """For each check whether its number lies within the bounds, or what went wrong with asking."""
    import pandas as pd
    from great_expectations.expectations.core.expect_column_values_to_be_between import ExpectColumnValuesToBeBetween

    verdicts: dict[str, bool | str] = {}
    expectations: dict[str, Expectation] = {}
    for name in values:
        low, high = checks[name].minimum, checks[name].maximum
        try:
            expectations[name] = ExpectColumnValuesToBeBetween(column=name, min_value=low, max_value=high)
        except ValueError as error:
            verdicts[name] = explain(error)
    if not expectations:
        return verdicts
    try:
        with own_context():
            batch = profile_definition().get_batch({"dataframe": pd.DataFrame([values])})
            results = run(batch, list(expectations.values()))
    except Exception as error:  # whatever went wrong in there, it is not a pass
        return verdicts | dict.fromkeys(expectations, first_line(error))
    for i, name in enumerate(expectations):
        result = results.get(i, NO_RESULT)
        verdicts[name] = result if isinstance(result, str) else bool(result.success)
    return verdicts
