"""Work for Spark from several threads."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest
from pyspark.sql import SparkSession

from visionlake.jobs._side import side_by_side


def test_work_beside_is_of_the_same_job_group_and_none_outlives_the_body(spark: SparkSession) -> None:
    context = spark.sparkContext
    before = set(threading.enumerate())
    context.setJobGroup("of this test", "")
    try:
        with side_by_side(spark, threads=2) as start:
            counted = start(lambda n: spark.range(n).count(), 7)
            group = start(context.getLocalProperty, "spark.jobGroup.id")
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)  # pyright: ignore[reportArgumentType] -- None unsets it
    assert (counted.result(), group.result()) == (7, "of this test")
    assert set(threading.enumerate()) <= before


def test_what_fails_beside_is_told_to_who_asks_and_what_has_not_begun_is_let_go(spark: SparkSession) -> None:
    has_begun, was_there = threading.Event(), threading.Event()

    def work() -> bool:
        has_begun.set()
        return was_there.wait(1.0)

    futures: list[Future[object]] = []
    with pytest.raises(KeyError, match="body"), side_by_side(spark, threads=1) as start:
        broken = start(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            broken.result()
        futures += [start(work), start(was_there.set)]
        assert has_begun.wait(60)
        raise KeyError("body")
    assert futures[0].result() is False
    assert futures[1].cancelled()
