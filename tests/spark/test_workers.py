"""Worker processes that share what was imported for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from visionlake.jobs._workers import sharing


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
