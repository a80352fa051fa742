"""The durable staging of a wave: its parents and its rows, computed once; the header, written last, makes it count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._record import Wave

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameReader

    from ._lake import Lake

FOLDER = "_staging"
_HEADER = "header.json"


def folder(lake: Lake, wave: Wave) -> str:
    """Where the wave is staged."""
    return lake.path(FOLDER, wave.stage, wave.wave_id)


def staged_waves(lake: Lake, *, stage: str) -> list[Wave]:
    """Headers of the stage's staged waves, oldest first."""
    headers = lake.read_texts(f"{FOLDER}/{stage}/*/{_HEADER}")
    return sorted((Wave.from_json(text) for text in headers), key=lambda wave: (wave.stage, wave.sequence))


def write_part(lake: Lake, wave: Wave, part: str, rows: DataFrame) -> DataFrame:
    """Write the wave's `parents` or `rows`, and return what was written."""
    path = f"{folder(lake, wave)}/{part}"
    rows.write.mode("overwrite").parquet(path)
    return _reader(lake).schema(rows.schema).parquet(path)


def read_parts(lake: Lake, wave: Wave) -> tuple[DataFrame, DataFrame]:
    """Read back `parents` and `rows` of a staged wave."""
    return _reader(lake).parquet(f"{folder(lake, wave)}/parents"), _reader(lake).parquet(f"{folder(lake, wave)}/rows")


def _reader(lake: Lake) -> DataFrameReader:
    """A reader that takes paths as they are: the lake's own may hold what else would be a pattern."""
    return lake.spark.read.option("__globPaths__", "false")


def write_header(lake: Lake, wave: Wave) -> None:
    """Commit the wave: from here on a later run finishes it instead of computing it again."""
    lake.write_text(f"{folder(lake, wave)}/{_HEADER}", wave.as_json())


def discard(lake: Lake, wave: Wave) -> None:
    """Remove a wave that is published, dropped or superseded; the header first, so that half a removal counts."""
    lake.delete(f"{folder(lake, wave)}/{_HEADER}")
    lake.delete(folder(lake, wave))
