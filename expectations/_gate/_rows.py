"""Judges the good rows of a wave by users' own expectations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._checks import SHOWN_KEYS, CheckResult, Status, as_float, failure
from ._gx import NO_RESULT, first_line, quiet_spark, run, spark_batch
from ._own import Own, build

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation
    from pyspark.sql import DataFrame


def judge_rows(
    rows: DataFrame, expectations: Sequence[Mapping[str, Any] | Expectation], *, key: Sequence[str]
) -> list[CheckResult]:
    """Judge the good rows of a wave by users' own expectations; one result per expectation, in their order.

    `rows` must be materialised, since every expectation runs Spark jobs on it. `key` names the columns of the offending
    keys that a result shows. On no rows, expectations about values are skipped, those about the table are judged.
    """
    if not expectations:
        return []
    own = build(expectations)
    try:
        with quiet_spark(), spark_batch(rows) as batch:
            verdicts = run(batch, [item.expectation for item in own], key=key)
    except Exception as error:  # whatever went wrong in there, it is not a pass
        verdicts = dict.fromkeys(range(len(own)), first_line(error))
    is_empty = rows.isEmpty()
    return [_row_result(item, verdicts.get(i), key=key, is_empty=is_empty) for i, item in enumerate(own)]


def _row_result(
    own: Own, verdict: ExpectationValidationResult | str | None, *, key: Sequence[str], is_empty: bool
) -> CheckResult:
    status: Status
    observed, message, value, keys = "unknown", "", None, ()
    if verdict is None or isinstance(verdict, str):
        status, message = "errored", verdict or NO_RESULT
    elif is_empty and _is_about_values(own.expectation):
        status, message = "skipped", "no rows to judge"
    else:
        status = "passed" if verdict.success else failure(own.severity)
        result: Mapping[str, Any] = verdict.result or {}
        observed = _observed(result, success=bool(verdict.success))
        failing, total = result.get("unexpected_count"), result.get("element_count")
        value = failing / total if total and failing is not None else as_float(result.get("observed_value"))
        keys = _keys(result, key)
    return CheckResult(
        name=own.name,
        severity=own.severity,
        status=status,
        expected=own.expectation.description or _sentence(own.expectation),
        observed=observed,
        value=value,
        keys=keys,
        message=message,
    )


def _keys(result: Mapping[str, Any], key: Sequence[str]) -> tuple[str, ...]:
    """Keys of some offending rows; expectations about the table, and queries, have none."""
    rows = result.get("partial_unexpected_index_list") or ()
    shown = [row for row in rows[:SHOWN_KEYS] if isinstance(row, Mapping)]
    return tuple("/".join(str(row[name]) for name in key if name in row) for row in shown)


def _is_about_values(expectation: Expectation) -> bool:
    from great_expectations.expectations import expectation as kinds

    return isinstance(
        expectation,
        kinds.ColumnMapExpectation
        | kinds.ColumnPairMapExpectation
        | kinds.MulticolumnMapExpectation
        | kinds.ColumnAggregateExpectation,
    )


def _sentence(expectation: Expectation) -> str:
    """For example `column values to be between: column brightness, min_value 10`."""
    left_out = ("batch_id", "severity")
    kwargs = expectation.configuration.kwargs
    arguments = [f"{name} {_short(value)}" for name, value in kwargs.items() if name not in left_out]
    text = expectation.expectation_type.removeprefix("expect_").replace("_", " ")
    return f"{text}: {', '.join(arguments)}" if arguments else text


def _observed(result: Mapping[str, Any], *, success: bool) -> str:
    if "unexpected_count" in result and "element_count" in result:
        count, total = result["unexpected_count"], result["element_count"]
        share = f" ({100 * count / total:.4g} %)" if total else ""
        examples = ", ".join(_short(value) for value in (result.get("partial_unexpected_list") or [])[:3])
        return f"{count} of {total} rows fail{share}" + (f", e.g. {examples}" if examples else "")
    if result.get("observed_value") is not None:
        return _short(result["observed_value"])
    return "it holds" if success else "it does not hold"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
