"""Live numbers of a write: they grow while it runs, end at its result, and never disturb it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from visionlake.jobs._progress import watch

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


def test_a_write_is_watched_to_its_last_row(spark: SparkSession, tmp_path: Path) -> None:
    def slow(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:  # in here, so that it travels by value
        for batch in batches:
            time.sleep(0.5)
            yield batch

    seen: list[tuple[int, int, int]] = []
    with watch(spark, lambda *numbers: seen.append(numbers), interval_s=0.1):
        spark.range(0, 60, 1, 6).mapInArrow(slow, "id long").write.parquet(str(tmp_path / "rows"))
    assert seen[-1] == (6, 6, 60)
    assert any(0 < done < 6 for done, total, _ in seen if total == 6)
    assert [rows for *_, rows in seen] == sorted(rows for *_, rows in seen)
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_what_goes_wrong_while_watching_is_not_the_works_concern(spark: SparkSession, tmp_path: Path) -> None:
    def broken(*_: int) -> None:
        raise ValueError

    with watch(spark, broken, interval_s=0.01):
        spark.range(10).write.parquet(str(tmp_path / "rows"))
    assert spark.read.parquet(str(tmp_path / "rows")).count() == 10
    with pytest.raises(KeyError), watch(spark, print):
        raise KeyError("the work's own")
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_a_session_without_status_is_not_watched() -> None:
    calls: list[tuple[int, int, int]] = []
    with watch(object(), lambda *numbers: calls.append(numbers)):  # pyright: ignore[reportArgumentType] -- like Spark Connect's
        pass
    assert calls == []
