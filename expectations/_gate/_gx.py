"""Great Expectations as the gate uses it: a context of its own, batches, and results without its noise."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from .._checks import SHOWN_KEYS

if TYPE_CHECKING:
    from great_expectations.core.batch_definition import BatchDefinition
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation
    from pyspark.sql import DataFrame

NO_RESULT = "Great Expectations returned no result"
_TAG = "visionlake_check"  # in an expectation's meta: results come back in an order of their own
_LOCK = threading.RLock()  # GX has one current context for all threads, and `prepare` may run in another one


def run(
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
            return first_line(part.get("exception_message") or "the expectation raised an error")
    return None


def first_line(error: object) -> str:
    """The telling line of an error's text."""
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
def own_context() -> Iterator[EphemeralDataContext]:
    """Our context, as the current one of GX."""
    from great_expectations.data_context.data_context.context_factory import project_manager

    with _foreign_context_kept():
        project_manager.set_project(context())
        yield context()


def context() -> EphemeralDataContext:
    """Our context; made once, which takes a second."""
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
def profile_definition() -> BatchDefinition:
    """What makes a batch of a profile."""
    asset = context().data_sources.add_pandas("profiles").add_dataframe_asset("profile")
    return asset.add_batch_definition_whole_dataframe("whole")


@contextmanager
def spark_batch(rows: DataFrame) -> Iterator[Batch]:
    """The rows as a batch; afterwards GX knows nothing of them, and its temporary view is gone."""
    with own_context() as current:
        # By default GX persists every frame and never lets go of it.
        source = current.data_sources.add_spark("waves", persist=False)
        source._spark = rows.sparkSession  # else queries run in the first session, which lacks this one's views
        try:
            definition = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("whole")
            yield definition.get_batch({"dataframe": rows})
        finally:
            current.data_sources.delete("waves")
            rows.sparkSession.catalog.dropTempView("tmp_view")


@contextmanager
def quiet_spark() -> Iterator[None]:
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


def explain(error: BaseException) -> str:
    """An argument error in one line, naming the argument."""
    details = getattr(error, "errors", None)
    if not callable(details):
        return first_line(error)
    found: Any = details()
    return "; ".join(f"{'.'.join(map(str, d['loc']))}: {d['msg']}".removeprefix("__root__: ") for d in found)
