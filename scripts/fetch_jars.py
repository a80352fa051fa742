"""Puts Delta's jars and a spark-defaults.conf that names them into this virtual environment.

Spark resolves them once, by its own means, so that repositories and proxies of the user's Spark configuration count.
Afterwards visionlake, and this environment's `spark-submit` and `pyspark`, start without a network.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pyspark

from visionlake.errors import VisionlakeError
from visionlake.jobs._session import DELTA_PACKAGE, DELTA_SETTINGS, JARS, get_session

WANTED = ("io.delta", "io.unitycatalog")
# What Delta asks for besides is part of Spark already, or older than Spark's and would break it.
UNWANTED = (
    "com.fasterxml.jackson.core", "com.fasterxml.jackson.datatype", "com.github.luben", "com.google.code.findbugs",
    "commons-logging", "commons-pool", "io.airlift", "javax.annotation", "org.apache.hadoop",
    "org.apache.logging.log4j", "org.apache.parquet", "org.locationtech.jts", "org.roaringbitmap", "org.scala-lang",
    "org.slf4j", "org.xerial.snappy",
)  # fmt: skip


def main() -> int:
    """Fetches the jars unless they are there; returns the exit status."""
    artifact, version = DELTA_PACKAGE.split(":")[1:]
    if list(JARS.glob(f"*{artifact}-{version}.jar")):
        _write_defaults()
        return 0
    with tempfile.TemporaryDirectory(prefix="visionlake-ivy-") as ivy:
        settings = {
            "spark.master": "local[1]",
            "spark.jars.packages": DELTA_PACKAGE,
            "spark.jars.excludes": ",".join(f"{group}:*" for group in UNWANTED),
            "spark.jars.ivy": ivy,
        }
        try:
            get_session(settings=settings).stop()
        except VisionlakeError as error:
            print(error, file=sys.stderr)
            return 1
        jars = [jar for jar in Path(ivy, "jars").glob("*.jar") if jar.name.startswith(WANTED)]
        shutil.rmtree(JARS, ignore_errors=True)
        JARS.mkdir(parents=True)
        for jar in jars:
            shutil.copyfile(jar, JARS / jar.name)
    _write_defaults()
    print(f"setup: {len(jars)} jars of {DELTA_PACKAGE}")
    return 0


def _write_defaults() -> None:
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


if __name__ == "__main__":
    raise SystemExit(main())
