"""What a failed stage says: one line, without the traces that Spark wraps around it."""

from __future__ import annotations

import pytest

from visionlake.errors import summarise

IN_A_WORKER = """
  An exception was thrown from the Python worker. Please see the stack trace below.
Traceback (most recent call last):
  File "a.py", line 3, in work
    raise ModelError("x")
visionlake.udfs._errors.ModelError: model x hangs
\tat org.apache.spark.api.python.BasePythonRunner
"""
CRASHED = """An error occurred while calling o2281.parquet.
: org.apache.spark.SparkException: Job aborted due to stage failure: Task 1 in stage 4.0 failed 1 times
\tat org.apache.spark.scheduler.DAGScheduler
Caused by: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)
\tat org.apache.spark.api.python.BasePythonRunner
Caused by: java.io.EOFException
"""
IN_THE_JVM = """An error occurred while calling o1.save.
: org.apache.spark.SparkException: no space left on device
\tat java.base/java.io
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (IN_A_WORKER, "model x hangs"),
        (CRASHED, "RuntimeError: org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)"),
        (IN_THE_JVM, "RuntimeError: org.apache.spark.SparkException: no space left on device"),
        ("disk is full", "RuntimeError: disk is full"),
        ("first\nsecond", "RuntimeError: first"),
        ("", "RuntimeError: no message"),
    ],
)
def test_one_line_that_tells(text: str, told: str) -> None:
    assert summarise(RuntimeError(text)) == told


def test_the_kind_of_error_is_named_once() -> None:
    assert summarise(ValueError("ValueError: too dark")) == "ValueError: too dark"
