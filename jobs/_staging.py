"""The durable staging of a wave: its parents and its rows, computed once; the header, written last, makes it count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._record import Wave

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._lake import Lake

FOLDER = "_staging"
_HEADER = "header string"


def folder(lake: Lake, wave: Wave) -> str:
    """Where the wave is staged."""
    return lake.path(FOLDER, wave.stage, wave.wave_id)


def staged_waves(lake: Lake, *, stage: str) -> list[Wave]:
    """Headers of the stage's staged waves, oldest first."""
    from pyspark.errors import AnalysisException

    try:
        found = lake.spark.read.schema(_HEADER).json(lake.path(FOLDER, stage, "*", "header")).collect()
    except AnalysisException as error:
        if error.getCondition() == "PATH_NOT_FOUND":
            return []
        raise
    return sorted((Wave.from_json(row["header"]) for row in found), key=lambda wave: wave.sequence)


def write_part(lake: Lake, wave: Wave, part: str, rows: DataFrame) -> DataFrame:
    """Write the wave's `parents` or `rows`, and return what was written."""
    path = f"{folder(lake, wave)}/{part}"
    rows.write.mode("overwrite").parquet(path)
    return lake.spark.read.schema(rows.schema).parquet(path)


def read_parts(lake: Lake, wave: Wave) -> tuple[DataFrame, DataFrame]:
    """Read back `parents` and `rows` of a staged wave."""
    read = lake.spark.read.parquet
    return read(f"{folder(lake, wave)}/parents"), read(f"{folder(lake, wave)}/rows")


def write_header(lake: Lake, wave: Wave) -> None:
    """Commit the wave: from here on a later run finishes it instead of computing it again."""
    frame = lake.spark.createDataFrame([(wave.as_json(),)], _HEADER)
    frame.coalesce(1).write.mode("overwrite").json(f"{folder(lake, wave)}/header")


def discard(lake: Lake, wave: Wave) -> None:
    """Remove a wave that is published, dropped or superseded; the header first, so that half a removal counts."""
    lake.delete_folder(f"{folder(lake, wave)}/header")
    lake.delete_folder(folder(lake, wave))
