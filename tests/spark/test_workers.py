"""Worker processes that share what was imported for them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pyarrow as pa
import pytest
from py4j.clientserver import JavaClient
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from visionlake.jobs._workers import sharing, start_early


def test_workers_share_what_was_imported_for_them_and_others_do_not(spark: SparkSession) -> None:
    def has_it(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import sys

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"has_it": ["this" in sys.modules]})

    with sharing(spark, ["there_is_no_such_module", "this"]):  # the latter prints when it is imported
        sharers = spark.range(1).mapInArrow(has_it, "has_it boolean")
    others = spark.range(1).mapInArrow(has_it, "has_it boolean")
    assert [row["has_it"] for row in sharers.collect()] == [True]
    assert [row["has_it"] for row in others.collect()] == [False]


def test_workers_that_were_started_early_are_those_that_work(spark: SparkSession) -> None:
    def parent(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import os

        for _ in batches:
            yield pa.RecordBatch.from_pydict({"pid": [os.getppid()]})

    def daemons() -> set[int]:
        jvm = psutil.Process(spark.sparkContext._gateway.proc.pid)  # pyright: ignore[reportOptionalMemberAccess] -- a classic session has one
        found = set[int]()
        for child in jvm.children():
            with suppress(psutil.Error):  # it has just ended
                if any("_daemon" in word for word in child.cmdline()):
                    found.add(child.pid)
        return found

    before = daemons()
    start_early(spark, ["colorsys"])
    assert any(daemons() - before or time.sleep(0.1) for _ in range(300))
    early = daemons() - before
    with sharing(spark, ["colorsys"]):
        rows = spark.range(1).mapInArrow(parent, "pid bigint")
    assert {row["pid"] for row in rows.collect()} == early


def test_names_of_the_jvm_are_asked_for_once(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    send = JavaClient.send_command

    def listening(self: Any, command: str, *args: Any, **options: Any) -> Any:
        asked.append(command)
        return send(self, command, *args, **options)

    monkeypatch.setattr(JavaClient, "send_command", listening)
    for _ in range(2):
        asked.clear()
        counts = spark.range(3).agg(F.count_if(F.col("id") > 0), F.lit(1)).collect()
        assert [*counts[0]] == [2, 1]
    assert asked and not [command for command in asked if command.startswith("r\n")]
