"""Prepares Spark in this virtual environment: Delta's jars, a spark-defaults.conf that names them, a class archive.

Spark resolves the jars once, by its own means, so that repositories and proxies of the user's Spark configuration
count. Afterwards visionlake, and this environment's `spark-submit` and `pyspark`, start without a network.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyspark

from visionlake.errors import VisionlakeError
from visionlake.jobs._java import find_java
from visionlake.jobs._session import (
    CLASS_ARCHIVE,
    CONF,
    DELTA_PACKAGE,
    DELTA_SETTINGS,
    JARS,
    class_path_option,
    get_session,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WANTED = ("io.delta", "io.unitycatalog")
# What Delta asks for besides is part of Spark already, or older than Spark's and would break it.
UNWANTED = (
    "com.fasterxml.jackson.core", "com.fasterxml.jackson.datatype", "com.github.luben", "com.google.code.findbugs",
    "commons-logging", "commons-pool", "io.airlift", "javax.annotation", "org.apache.hadoop",
    "org.apache.logging.log4j", "org.apache.parquet", "org.locationtech.jts", "org.roaringbitmap", "org.scala-lang",
    "org.slf4j", "org.xerial.snappy",
)  # fmt: skip


def main() -> int:
    """Does one of the two steps, named by the only argument; returns the exit status."""
    try:
        {"jars": fetch_jars, "archive": archive_classes}[sys.argv[1]]()
    except VisionlakeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def fetch_jars() -> None:
    """Fetches Delta's jars unless they are there, and writes spark-defaults.conf."""
    artifact, version = DELTA_PACKAGE.split(":")[1:]
    if not list(JARS.glob(f"*{artifact}-{version}.jar")):
        with tempfile.TemporaryDirectory(prefix="visionlake-ivy-") as ivy:
            settings = {
                "spark.master": "local[1]",
                "spark.jars.packages": DELTA_PACKAGE,
                "spark.jars.excludes": ",".join(f"{group}:*" for group in UNWANTED),
                "spark.jars.ivy": ivy,
            }
            get_session(settings=settings).stop()
            shutil.rmtree(JARS, ignore_errors=True)
            JARS.mkdir(parents=True)
            for jar in Path(ivy, "jars").glob("*.jar"):
                if jar.name.startswith(WANTED):
                    shutil.copyfile(jar, JARS / jar.name)
    settings = {
        "spark.pyspark.driver.python": sys.executable,
        "spark.driver.extraClassPath": f"{JARS}/*",
        "spark.executor.extraClassPath": f"{JARS}/*",
        **DELTA_SETTINGS,
    }
    lines = ["# Written by visionlake's set-up: Delta Lake for this environment's Spark."]
    lines += [f"{name} {value}" for name, value in settings.items()]
    folder = Path(pyspark.__file__).parent / "conf"
    folder.mkdir(exist_ok=True)
    (folder / "spark-defaults.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")


def archive_classes() -> None:
    """Has Java write down the classes that a run loads; Spark with Delta then starts in half the time."""
    made_for = CLASS_ARCHIVE.with_suffix(".txt")
    CONF.mkdir(exist_ok=True)  # Java 21 takes no archive where a part of the class path is not there
    wanted = ", ".join([str(find_java()), f"Spark {pyspark.__version__}", DELTA_PACKAGE, *class_path_option(None)])
    if CLASS_ARCHIVE.exists() and made_for.exists() and made_for.read_text() == wanted:
        return
    CLASS_ARCHIVE.unlink(missing_ok=True)
    session = get_session(settings={"spark.driver.extraJavaOptions": f'"-XX:ArchiveClassesAtExit={CLASS_ARCHIVE}"'})
    java: Any = session.sparkContext._gateway
    with tempfile.TemporaryDirectory() as folder:
        _load_classes(session, f"{folder}/table")
        session.stop()
        java.proc.stdin.close()  # ends it
        java.proc.wait(timeout=300)
    if not CLASS_ARCHIVE.exists():
        raise VisionlakeError("Java wrote no archive")
    made_for.write_text(wanted)


def _load_classes(session: SparkSession, table: str) -> None:
    from delta.tables import DeltaTable

    def same(batches: Iterable[Any]) -> Iterator[Any]:
        yield from batches

    rows = session.range(100).selectExpr("id", "cast(id as string) name", "named_struct('x', id) box")
    rows.limit(0).write.format("delta").option("delta.enableChangeDataFeed", "true").save(table)
    rows.mapInArrow(same, rows.schema).write.format("delta").mode("append").save(table)
    merge = DeltaTable.forPath(session, table).alias("t").merge(rows.alias("s"), "t.id = s.id and s.id > 50")
    merge.whenMatchedUpdateAll("t.name <> s.name").whenNotMatchedInsertAll().execute()
    changes = session.read.format("delta").option("readChangeFeed", "true").option("startingVersion", 1).load(table)
    changes.join(rows, "id", "left_anti").groupBy("name").count().orderBy("name").toPandas()
    session.read.format("delta").load(table).createOrReplaceTempView("loaded")
    session.sql("select count(distinct id), max(name), collect_list(box) from loaded where id < 9").collect()


if __name__ == "__main__":
    raise SystemExit(main())
