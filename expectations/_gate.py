"""The gate: Great Expectations judges a wave. The only module that imports it, and late, for that takes seconds.

Checks of the declarations are judged on a profile, one row of numbers; users' own expectations on the wave's good rows.
"""

from __future__ import annotations

import logging
import math
import runpy
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake.errors import ConfigError

from ._checks import (
    SHOWN_KEYS,
    CheckResult,
    Status,
    check_names,
    did_you_mean,
    validate_severity,
    with_offending_keys,
)
from ._table import Check, Metric, Severity

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation
    from pyspark.sql import DataFrame

__all__ = [
    "CheckResult",
    "check_names",
    "judge_profile",
    "judge_rows",
    "load_expectations",
    "prepare",
    "validate_expectations",
    "validate_severity",
    "with_offending_keys",
]

_TAG = "visionlake_check"  # in an expectation's meta: results come back in an order of their own
_NO_RESULT = "Great Expectations returned no result"
_LOCK = threading.RLock()  # GX has one current context for all threads, and `prepare` may run in another one
_NO_RESULT = "Great Expectations returned no result"


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
    judged = {check.name: check for check in checks if values.get(check.name) is not None}
    verdicts = _judge_bounds({name: values[name] for name in judged}, judged) if judged else {}
    results = []
    for check in checks:
        level = severity.get(check.name, check.severity)
        observed, message, verdict = "unknown", "", verdicts.get(check.name)
        status: Status
        if check.name in judged:
            observed = _show_number(values[check.name], share=check.share)
        if check.name not in values:
            status, message = "errored", f"the wave's profile holds no number {check.metric!r}"
        elif check.name not in judged:
            status = "skipped" if rows == 0 else _failure(level)
            message = "no rows to judge" if rows == 0 else "the number is null"
        elif isinstance(verdict, str):
            status, message = "errored", verdict
        else:
            status = "passed" if verdict else _failure(level)
        if status == "stopped" and check.share and rows < min_rows:
            status, message = "warned", f"{rows} rows, too few to stop (min_rows = {min_rows})"
        results.append(
            CheckResult(
                name=check.name,
                severity=level,
                status=status,
                expected=check.expected,
                observed=observed,
                value=_as_float(values.get(check.name)),
                message=message,
            )
        )
    return results


def judge_rows(
    rows: DataFrame, expectations: Sequence[Mapping[str, Any] | Expectation], *, key: Sequence[str]
) -> list[CheckResult]:
    """Judge the good rows of a wave by users' own expectations; one result per expectation, in their order.

    `rows` must be materialised, since every expectation runs Spark jobs on it. `key` names the columns of the offending
    keys that a result shows. On no rows, expectations about values are skipped, those about the table are judged.
    """
    if not expectations:
        return []
    own = _build(expectations)
    try:
        with _quiet_spark(), _spark_batch(rows) as batch:
            verdicts = _run(batch, [item.expectation for item in own], key=key)
    except Exception as error:  # whatever went wrong in there, it is not a pass
        verdicts = dict.fromkeys(range(len(own)), _first_line(error))
    is_empty = rows.isEmpty()
    return [_row_result(item, verdicts.get(i), key=key, is_empty=is_empty) for i, item in enumerate(own)]


def validate_expectations(expectations: Sequence[Mapping[str, Any] | Expectation]) -> None:
    """Raise ConfigError for an unknown type, a wrong argument or a wrong severity.

    Unknown types are found within milliseconds, arguments only by importing Great Expectations; nothing is imported
    where there are no expectations.
    """
    types = _known_types()
    for item in expectations:
        if types and isinstance(item, Mapping) and item.get("type") not in types:
            raise _unknown_type(item.get("type"), types)
    if expectations:
        _build(expectations)


def load_expectations(path: str | Path) -> list[Expectation]:
    """The list `EXPECTATIONS` of a Python file. Raises ConfigError where the file fails or does not have one."""
    try:
        found = runpy.run_path(str(path)).get("EXPECTATIONS")
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else f"{path}"
        raise ConfigError(f"{where}: {type(error).__name__}: {_explain(error)}") from error
    if not isinstance(found, list | tuple):
        raise ConfigError(f"{path}: wants EXPECTATIONS = [...], a list of Great Expectations expectations")
    return list(found)


def _failure(severity: Severity) -> Status:
    return "stopped" if severity == "stop" else "warned"


def _number(value: Any) -> Any:
    """A metric as GX compares it; None for NaN, which GX would take for a missing value and pass."""
    if isinstance(value, bool | Decimal):
        value = float(value) if isinstance(value, Decimal) else int(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _show_number(value: Any, *, share: bool) -> str:
    if isinstance(value, int | float) and share:
        return f"{100 * value:.4g} %"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _as_float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


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
            verdicts[name] = _explain(error)
    if not expectations:
        return verdicts
    try:
        with _own_context():
            batch = _profile_definition().get_batch({"dataframe": pd.DataFrame([values])})
            results = _run(batch, list(expectations.values()))
    except Exception as error:  # whatever went wrong in there, it is not a pass
        return verdicts | dict.fromkeys(expectations, _first_line(error))
    for i, name in enumerate(expectations):
        result = results.get(i, _NO_RESULT)
        verdicts[name] = result if isinstance(result, str) else bool(result.success)
    return verdicts


def _run(
    batch: Batch, expectations: Sequence[Expectation], *, key: Sequence[str] = ()
) -> dict[int, ExpectationValidationResult | str]:
    """Results by position in `expectations`; text where one could not be judged."""
    from great_expectations.core import ExpectationSuite

    tagged = [e.copy(update={"id": None, "meta": (e.meta or {}) | {_TAG: i}}) for i, e in enumerate(expectations)]
    result_format: dict[str, Any] = {"result_format": "SUMMARY", "partial_unexpected_count": SHOWN_KEYS}
    if key:
        result_format |= {"unexpected_index_column_names": list(key), "return_unexpected_index_query": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite = batch.validate(ExpectationSuite(name="gate", expectations=tagged), result_format=result_format)
    return {r.expectation_config.meta[_TAG]: _exception(r) or r for r in suite.results if r.expectation_config}


def _exception(result: ExpectationValidationResult) -> str | None:
    """What an expectation raised. GX reports it per expectation, or per metric, and calls both a failure."""
    info: Any = result.exception_info or {}
    for part in (info, *info.values()):
        if isinstance(part, Mapping) and part.get("raised_exception"):
            return _first_line(part.get("exception_message") or "the expectation raised an error")
    return None


def _first_line(error: object) -> str:
    lines = [line.removeprefix(": ").removeprefix("Error: ") for line in str(error).strip().splitlines()]
    telling = [line for line in lines if not line.startswith("An error occurred while calling")]  # Py4J's first line
    return telling[0][:300] if telling else type(error).__name__


@contextmanager
def _foreign_context_kept() -> Iterator[None]:
    """Afterwards the context that a notebook may use is GX's current one again."""
    from great_expectations.data_context.data_context.context_factory import project_manager
    from great_expectations.exceptions.exceptions import DataContextRequiredError

    with _LOCK:
        try:
            before = project_manager.get_current_project()
        except DataContextRequiredError:
            before = None
        try:
            yield
        finally:
            project_manager.set_project(before)


@contextmanager
def _own_context() -> Iterator[EphemeralDataContext]:
    """Our context, as the current one of GX."""
    from great_expectations.data_context.data_context.context_factory import project_manager

    with _foreign_context_kept():
        project_manager.set_project(_context())
        yield _context()


def _context() -> EphemeralDataContext:
    with _LOCK:
        return _new_context()


@cache
def _new_context() -> EphemeralDataContext:
    logging.getLogger("great_expectations").addHandler(logging.NullHandler())  # else warnings reach the terminal
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    with _foreign_context_kept():
        return gx.get_context(mode="ephemeral", project_config=config)


@cache
def _profile_definition() -> BatchDefinition:
    asset = _context().data_sources.add_pandas("profiles").add_dataframe_asset("profile")
    return asset.add_batch_definition_whole_dataframe("whole")


@contextmanager
def _spark_batch(rows: DataFrame) -> Iterator[Batch]:
    """The rows as a batch; afterwards GX knows nothing of them, and its temporary view is gone."""
    with _own_context() as context:
        # By default GX persists every frame and never lets go of it.
        source = context.data_sources.add_spark("waves", persist=False)
        source._spark = rows.sparkSession  # else queries run in the first session, which lacks this one's views
        try:
            definition = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("whole")
            yield definition.get_batch({"dataframe": rows})
        finally:
            context.data_sources.delete("waves")
            rows.sparkSession.catalog.dropTempView("tmp_view")


@contextmanager
def _quiet_spark() -> Iterator[None]:
    """Errors of expectations are in their results; Spark would write each to the terminal too, with its trace."""
    from pyspark.logger import PySparkLogger

    loggers = [PySparkLogger.getLogger(f"{kind}QueryContextLogger") for kind in ("SQL", "DataFrame")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclass(frozen=True, kw_only=True)
class _Own:
    """An expectation of a user's, with the name and severity it was given."""

    name: str
    severity: Severity
    expectation: Expectation


def _build(items: Sequence[Mapping[str, Any] | Expectation]) -> list[_Own]:
    """The expectations, each with a name of its own. Raises ConfigError."""
    built: list[_Own] = []
    for position, item in enumerate(items, start=1):
        try:
            own = _from_mapping(item) if isinstance(item, Mapping) else _from_object(item)
        except ConfigError as error:
            raise ConfigError(f"expectation {position}: {error}") from error
        same = sum(other.name.split(" #")[0] == own.name for other in built)
        name = f"{own.name} #{same + 1}" if same else own.name
        built.append(_Own(name=name, severity=own.severity, expectation=own.expectation))
    return built


def _from_mapping(item: Mapping[str, Any]) -> _Own:
    _context()
    from great_expectations.exceptions.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    arguments = {name: _plain(value) for name, value in item.items()}
    kind = arguments.pop("type", None)
    severity, name = arguments.pop("severity", "stop"), arguments.pop("name", None)
    try:
        cls = get_expectation_impl(str(kind))
    except ExpectationNotFoundError:
        raise _unknown_type(kind, list_registered_expectation_implementations()) from None
    fields: Mapping[str, Any] = cls.__fields__  # type: ignore[assignment]  # pydantic 1 makes it a plain attribute
    for argument in arguments:
        if argument not in fields:
            raise ConfigError(f"{kind}: unknown argument {argument!r}{did_you_mean(argument, fields)}")
    try:
        expectation = cls(**arguments)
    except (ValueError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise ConfigError(f"{kind}: {_explain(error)}") from error
    return _own(expectation, severity=severity, name=name)


def _from_object(item: Any) -> _Own:
    _context()
    from great_expectations.expectations.expectation import Expectation

    if not isinstance(item, Expectation):
        raise ConfigError(f"{item!r} is neither a table with a type nor a Great Expectations expectation")
    meta = item.meta or {}
    severity = meta.get("severity", "stop" if item.severity.value == "critical" else "warn")
    return _own(item, severity=severity, name=meta.get("name"))


def _own(expectation: Expectation, *, severity: Any, name: Any) -> _Own:
    if severity not in ("stop", "warn"):
        raise ConfigError(f"severity = {severity!r}; allowed: 'stop', 'warn'")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"name = {name!r}; allowed: text")
    arguments = expectation.configuration.kwargs
    columns = [arguments[a] for a in ("column", "column_A", "column_B") if a in arguments]
    columns += arguments.get("column_list", [])
    short = expectation.expectation_type.removeprefix("expect_")
    default = f"{short}({', '.join(columns)})" if columns else short
    return _Own(name=name or default, severity=severity, expectation=expectation)


def _plain(value: Any) -> Any:
    """The value in types that GX can copy: a TOML reader may give numbers that remember their text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return float(value) if isinstance(value, float) else value


def _explain(error: BaseException) -> str:
    """An argument error in one line, naming the argument."""
    details = getattr(error, "errors", None)
    if not callable(details):
        return _first_line(error)
    found: Any = details()
    return "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}".removeprefix("__root__: ") for d in found)


@cache
def _known_types() -> frozenset[str]:
    """The types that come with GX, by the names of its files; empty where they cannot be listed."""
    if "great_expectations" in sys.modules:
        return frozenset()
    spec = find_spec("great_expectations")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [path.stem for folder in folders for path in Path(folder, "expectations", "core").glob("[a-z]*.py")]
    return frozenset(files)


def _unknown_type(kind: object, types: Sequence[str] | frozenset[str]) -> ConfigError:
    if not isinstance(kind, str):
        return ConfigError(f"type = {kind!r}; wants the name of an expectation, as expect_column_values_to_be_between")
    return ConfigError(f"unknown expectation {kind!r}{did_you_mean(kind, types)}")


def _row_result(
    own: _Own, verdict: ExpectationValidationResult | str | None, *, key: Sequence[str], is_empty: bool
) -> CheckResult:
    status: Status
    observed, message, value, keys = "unknown", "", None, ()
    if verdict is None or isinstance(verdict, str):
        status, message = "errored", verdict or _NO_RESULT
    elif is_empty and _is_about_values(own.expectation):
        status, message = "skipped", "no rows to judge"
    else:
        status = "passed" if verdict.success else _failure(own.severity)
        result: Mapping[str, Any] = verdict.result or {}
        observed = _observed(result, success=bool(verdict.success))
        failing, total = result.get("unexpected_count"), result.get("element_count")
        value = failing / total if total and failing is not None else _as_float(result.get("observed_value"))
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
