"""Worker processes that share what takes long to import."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ._daemon import IMPORTS
from ._session import DAEMON

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@contextmanager
def sharing(spark: SparkSession, modules: Sequence[str]) -> Iterator[None]:
    """Python functions that Spark is given in here run in workers that share `modules`, imported once for all of them.

    Spark starts a daemon for every environment that functions ask for, when the first of them runs, and forks workers
    from it. This holds where the daemon is ours, in local sessions; elsewhere each worker imports for itself.
    """
    if not modules or not _has_own_daemon(spark):
        yield
        return
    environment = spark.sparkContext.environment
    before = environment.get(IMPORTS)
    environment[IMPORTS] = ",".join(modules)
    try:
        yield
    finally:
        if before is None:
            del environment[IMPORTS]
        else:
            environment[IMPORTS] = before


def start_early(spark: SparkSession, modules: Sequence[str] = ()) -> None:
    """Let workers that share `modules` start while Spark is busy with something else: to import torch takes seconds.

    The first query of a session takes seconds, too, and this may be it.
    """

    def start(nothing: DataFrame) -> None:
        with suppress(Exception):
            nothing.collect()

    with suppress(Exception):  # whoever needs the workers will be told what is wrong with them
        if _has_own_daemon(spark):
            with sharing(spark, modules):
                nothing = spark.range(1, numPartitions=1).mapInArrow(lambda batches: batches, "id bigint")
            threading.Thread(target=start, args=(nothing,), daemon=True, name="start-workers").start()


def _has_own_daemon(spark: SparkSession) -> bool:
    return spark.conf.get("spark.python.daemon.module", "") == DAEMON
