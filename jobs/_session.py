"""The Spark session: the one that is there (cluster, notebook), else a local one set up for small machines."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake.errors import VisionlakeError

from ._java import find_java

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JARS = Path(sys.prefix) / "share" / "visionlake" / "jars"
CLASS_ARCHIVE = Path(sys.prefix) / "share" / "visionlake" / "spark.jsa"
CONF = Path(sys.prefix) / "share" / "visionlake" / "conf"
"""Spark's configuration of local sessions: an empty folder, as the class archive fits none that holds files."""
DAEMON = "visionlake.jobs._daemon"
DELTA_PACKAGE = "io.delta:delta-spark_4.1_2.13:4.4.0"
DELTA_EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
DELTA_SETTINGS = {
    "spark.sql.extensions": DELTA_EXTENSION,
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    "MALLOC_ARENA_MAX": "1",  # other arenas are pieces of 64 MiB, which are handed back whatever the threshold says
}
"""Settings of glibc's allocator for workers: large arrays that come and go stay in the process."""


def get_session(
    *, settings: Mapping[str, str] | None = None, app_name: str = "visionlake", log_level: str | None = None
) -> SparkSession:
    """The active Spark session; where there is none, a new one.

    Under `spark-submit` or Spark Connect the new one is the cluster's, as it finds it. Otherwise it is local, with
    `settings` (Spark's own names) over the defaults of this module, and its logs stay off the terminal unless
    `log_level` ("WARN", "INFO", ...) asks for them. A session that is there is not changed.

    Raises VisionlakeError where there is no fitting Java, or where Spark does not start.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is None and SparkContext._active_spark_context is not None:  # started by another thread
        session = SparkSession.builder.getOrCreate()
    if session is None:
        settings = settings or {}
        if not ("PYSPARK_GATEWAY_PORT" in os.environ or "SPARK_REMOTE" in os.environ or "spark.remote" in settings):
            return _start_local(local_settings(settings), app_name=app_name, log_level=log_level)
        session = SparkSession.builder.appName(app_name).config(map={**settings}).getOrCreate()
    _warn_without_delta(session)
    return session


def local_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """`settings` over the defaults of a local session. Delta's jars are ours unless `settings` name some."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    defaults = {
        "spark.master": "local[*]",
        "spark.driver.memory": "2g",
        # Nor generated code: to compile it costs more than it saves on the few rows that the JVM itself looks at.
        # The same holds for plans that are made again while they run, and for checksums of small Delta logs.
        "spark.sql.adaptive.enabled": "false",
        "spark.databricks.delta.writeChecksumFile.enabled": "false",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.executor.heartbeatInterval": "2s",  # how often progress is seen
        "spark.python.daemon.module": DAEMON,
        # No notes of where in Python each expression was made, which are half of a run's calls to the JVM. So an error
        # that comes with the rows does not name the line that made its expression.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        "spark.sql.dataFrameQueryContext.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(max(2, min(cpus, 16))),
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        # Rows hold pictures: Spark's 10,000 a batch would be gigabytes.
        "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
        "spark.sql.execution.arrow.maxBytesPerBatch": str(64 * 2**20),
        "spark.sql.catalogImplementation": "in-memory",  # Hive's would leave a metastore in the working directory
        # Workers free and take picture buffers all the time; by default the C library hands each back to the system.
        **{f"spark.executorEnv.{name}": value for name, value in MALLOC.items()},
        **DELTA_SETTINGS,
    }
    merged = defaults | dict(settings)
    if DELTA_EXTENSION not in merged["spark.sql.extensions"]:
        merged["spark.sql.extensions"] += f",{DELTA_EXTENSION}"
    if merged["spark.master"].startswith("local"):  # needs no resolvable host name
        merged = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"} | merged
    if not _names_delta_jars(settings):
        _add_delta_jars(merged)
    options = [*_java_options(), *class_path_option(merged.get("spark.driver.extraClassPath"))]
    return {"spark.driver.defaultJavaOptions": " ".join(options)} | merged


def _java_options() -> list[str]:
    # Stages are short and the work is done by Python workers: the optimising compiler doubles the CPU time of a run and
    # the default collector the memory; neither makes it faster. Nor does a heap that begins large (a 64th of the
    # machine's memory) and keeps as much free as it holds. The archive halves the time until the first table is
    # written; Java ignores it where it does not fit.
    archive = [f'"-XX:SharedArchiveFile={CLASS_ARCHIVE}"'] if CLASS_ARCHIVE.exists() else []
    heap = ["-XX:+UseSerialGC", "-Xms64m", "-XX:MinHeapFreeRatio=20"]
    # Without the optimising compiler Java keeps 48 MiB of machine code, forgets some and compiles it again.
    compiler = ["-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=128m"]
    return [*compiler, *heap, *archive]


# With any of these Spark's launcher may put other things on the class path than is known here.
CHANGES_CLASS_PATH = frozenset(
    ["SPARK_HOME", "SPARK_CONF_DIR", "SPARK_DIST_CLASSPATH", "HADOOP_CONF_DIR", "YARN_CONF_DIR", "PYSPARK_SUBMIT_ARGS"]
)


def class_path_option(extra: str | None) -> list[str]:
    """Java's option for the class path of Spark's launcher, with each jar on it once; none where that is not known.

    The launcher names slf4j twice, and Java 21 then takes no class archive. Of several such options the last counts.
    """
    import pyspark

    if not CONF.is_dir() or CHANGES_CLASS_PATH & os.environ.keys():
        return []
    jars = Path(pyspark.__file__).parent / "jars"
    return ["-cp", f'"{os.pathsep.join(filter(None, [extra, str(CONF), f"{jars}/*"]))}"']


_CLASS_PATHS = ("spark.driver.extraClassPath", "spark.executor.extraClassPath")


def _names_delta_jars(settings: Mapping[str, str]) -> bool:
    """Whether the user's own Spark configuration brings Delta's jars."""
    texts = [settings.get(name, "") for name in ("spark.jars", "spark.jars.packages", *_CLASS_PATHS)]
    texts.append(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))
    folder = os.environ.get("SPARK_CONF_DIR") or os.path.join(os.environ.get("SPARK_HOME", ""), "conf")
    defaults = Path(folder, "spark-defaults.conf")
    if os.path.isabs(folder) and defaults.is_file():
        lines = defaults.read_text(errors="replace").splitlines()
        texts += [line for line in lines if line.startswith(("spark.jars", *_CLASS_PATHS))]
    return any("delta" in text for text in texts)


def _add_delta_jars(settings: dict[str, str]) -> None:
    if any(JARS.glob("*delta-spark*.jar")):
        for name in _CLASS_PATHS:
            settings[name] = os.pathsep.join(filter(None, [settings.get(name), f"{JARS}/*"]))
    else:  # a plain `pip install`: Spark downloads them at its first start and keeps them
        packages = settings.get("spark.jars.packages")
        settings["spark.jars.packages"] = ",".join(filter(None, [packages, DELTA_PACKAGE]))


def _start_local(settings: dict[str, str], *, app_name: str, log_level: str | None) -> SparkSession:
    import pyspark
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.java_gateway import launch_gateway
    from pyspark.logger import PySparkLogger
    from pyspark.sql import SparkSession

    from ._gateway import remember_names

    remember_names()
    java = find_java()
    folder = Path(tempfile.mkdtemp(prefix="visionlake-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings = {"spark.app.name": app_name, "spark.sql.warehouse.dir": folder.as_uri() + "/warehouse"} | settings
    conf = SparkConf(loadDefaults=False).setAll(list(settings.items()))
    environ = {
        "PYSPARK_PYTHON": settings.get("spark.pyspark.python", sys.executable),
        "SPARK_HOME": os.environ.get("SPARK_HOME", str(Path(pyspark.__file__).parent)),
    }
    if "SPARK_HOME" not in os.environ and "SPARK_CONF_DIR" not in os.environ:
        environ["SPARK_CONF_DIR"] = str(CONF)
    if java.home is not None:
        environ["JAVA_HOME"] = str(java.home)
    if os.environ.get("LC_ALL") in ("C", "POSIX"):  # Java could then not open paths that are not ASCII
        environ["LC_ALL"] = "C.UTF-8"
    log = folder / "spark.log"
    with log.open("wb") as output, _environment(environ):
        # The JVM writes warnings of its own to the terminal that no log setting silences.
        streams: dict[str, Any] = {} if log_level else {"stdout": output, "stderr": output}
        try:
            # A session that was stopped leaves its JVM, which serves the next one.
            gateway = SparkContext._gateway or launch_gateway(conf, popen_kwargs=streams)
            context = SparkContext(conf=conf, gateway=gateway)
        except (PySparkRuntimeError, OSError) as error:
            said = log.read_text(errors="replace").strip()[-2000:]
            raise VisionlakeError(f"Spark did not start on {java}: {said or error}") from error
    if log_level:
        context.setLogLevel(log_level)
    else:  # it prints each SQL error, with both traces, before the exception reaches anyone
        PySparkLogger.getLogger("SQLQueryContextLogger").disabled = True
    return SparkSession(context, options=settings)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _warn_without_delta(session: SparkSession) -> None:
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:  # Delta is built in there
        return
    if "Delta" not in (session.conf.get("spark.sql.extensions", "") or ""):
        wanted = " ".join(f"--conf {name}={value}" for name, value in DELTA_SETTINGS.items())
        warnings.warn(
            f"this Spark session has no Delta Lake; start it with --packages {DELTA_PACKAGE} {wanted}",
            RuntimeWarning,
            stacklevel=3,
        )
