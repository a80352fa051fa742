"""Files below a lake that are no tables: staged waves' headers, pages for people. On a local disk or in any store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake.errors import StageError, UsageError, summarise
from visionlake.expectations._table import arrow_schema
from visionlake.udfs.uris import ADDRESS

from ._schemas import to_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from ._as_of import AsOf


class LakeFiles:
    """What a `Lake` can do with files."""

    uri: str
    in_catalog: bool
    spark: SparkSession
    as_of: AsOf | None

    @property
    def local_folder(self) -> Path | None:
        """The lake's folder where it lies on this machine's disk, else None."""
        return None if self.in_catalog or ADDRESS.match(self.uri) else Path(self.uri)

    def path(self, *parts: str) -> str:
        """A path below the lake, for what is not a table (staged waves)."""
        return "/".join((self._root(), *parts))

    def check_writable(self) -> None:
        """Raises UsageError where the lake is read as it was."""
        if self.as_of is not None:
            raise UsageError(f"lake {self.uri} as of {self.as_of.text} can be read only; to write, open it without")

    def delete(self, path: str) -> None:
        """Remove a file or folder below the lake, if this session can reach its file system; else it stays."""
        self.check_writable()
        folder = self.local_folder
        if folder is not None:
            Path(path).unlink(missing_ok=True) if Path(path).is_file() else shutil.rmtree(path, ignore_errors=True)
            return
        spark: Any = self.spark
        try:
            target = spark._jvm.org.apache.hadoop.fs.Path(path)
            target.getFileSystem(spark._jsc.hadoopConfiguration()).delete(target, True)
        except Exception:  # Spark Connect has no JVM handle, and tidying must never fail a run
            return

    def write_text(self, path: str, text: str) -> None:
        """Write a small file below the lake so that it is there whole or not at all."""
        self.check_writable()
        if self.local_folder is None:
            frame = to_spark(self.spark, [{"value": text}], arrow_schema({"value": "string"}))
            frame.coalesce(1).write.mode("overwrite").text(path)
            return
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)

    def write_file(self, name: str, text: str) -> None:
        """Write a file for people to open, right below the lake. Raises StageError where this session cannot."""
        self.check_writable()
        if self.local_folder is not None:
            self.local_folder.mkdir(parents=True, exist_ok=True)
            self.write_text(self.path(name), text)
            return
        spark: Any = self.spark
        try:
            target = spark._jvm.org.apache.hadoop.fs.Path(self.path(name))
            stream = target.getFileSystem(spark._jsc.hadoopConfiguration()).create(target, True)
        except Exception as error:
            raise StageError(f"{self.path(name)} cannot be written from this session: {summarise(error)}") from error
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def read_file(self, name: str) -> str | None:
        """What `write_file` wrote; None where there is nothing."""
        if self.local_folder is not None:
            path = self.local_folder / name
            return path.read_text(encoding="utf-8") if path.is_file() else None
        from pyspark.errors import PySparkException

        try:
            return self.spark.read.text(self.path(name), wholetext=True).collect()[0]["value"]
        except (PySparkException, IndexError):
            return None

    def read_texts(self, pattern: str) -> list[str]:
        """What `write_text` wrote to the paths below the lake that match; parts of the pattern may be `*`."""
        folder = self.local_folder
        if folder is not None:
            return [found.read_text(encoding="utf-8") for found in sorted(folder.glob(pattern))]
        from pyspark.errors import AnalysisException

        try:
            return [row["value"] for row in self.spark.read.text(self.path(pattern), wholetext=True).collect()]
        except AnalysisException as error:
            if error.getCondition() == "PATH_NOT_FOUND":
                return []
            raise

    def _root(self) -> str:
        if not self.in_catalog:
            return self.uri.rstrip("/")
        rows = self.spark.sql(f"DESCRIBE SCHEMA {self.uri}").collect()
        return next(r["info_value"] for r in rows if r["info_name"].startswith("Location")).rstrip("/")
