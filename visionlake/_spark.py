"""A Spark session for the length of a command, and what Ctrl-C does to it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Any

from ._terminal import make_console

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

INTERRUPTED = 130
_STOP_S = 8.0


@contextmanager
def command_session(settings: Mapping[str, str], *, verbose: bool = False) -> Iterator[SparkSession]:
    """A session; one that this starts is stopped at the end, also on Ctrl-C. A second Ctrl-C kills, Spark too."""
    from pyspark.sql import SparkSession

    from visionlake.jobs._session import get_session

    is_ours = SparkSession.getActiveSession() is None
    console = make_console(stderr=True)
    with console.status("Starting Spark") if console.is_terminal and not verbose else nullcontext():
        spark = get_session(settings=settings, log_level="INFO" if verbose else None)
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, _Interrupt(spark))
    try:
        yield spark
    finally:
        if is_ours:
            _stop(spark)
        signal.signal(signal.SIGINT, before)


class _Interrupt:
    """Handles Ctrl-C in place of Spark's handler, which talks to the JVM over the connection that it interrupts."""

    def __init__(self, spark: Any) -> None:
        self._spark = spark

    def __call__(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))  # the JVM ends when our end of its pipe closes
        logging.disable()  # py4j would log a trace of the interrupt
        sys.stderr.write("\nStopping (Ctrl-C again to kill)\n")
        threading.Thread(target=self._cancel, daemon=True).start()
        self._forget_connection()
        raise KeyboardInterrupt

    def _cancel(self) -> None:
        try:
            self._spark.sparkContext.cancelAllJobs()
        except Exception:  # Spark Connect, or a JVM that is gone: stopping is all that is left
            return

    def _forget_connection(self) -> None:
        """Close this thread's connection: the answer to the interrupted call would be taken for the next one's."""
        try:
            connection = self._spark.sparkContext._gateway._gateway_client.get_thread_connection()
            if connection is not None:
                connection.close()
        except Exception:  # Spark Connect has none
            return


def _stop(spark: SparkSession) -> None:
    """Stop the session from a thread of its own, so that a JVM which does not answer cannot hold us."""
    thread = threading.Thread(target=_quietly_stop, args=(spark,), daemon=True)
    thread.start()
    thread.join(_STOP_S)


def _quietly_stop(spark: SparkSession) -> None:
    try:
        spark.stop()
    except Exception:  # a JVM that is gone has stopped
        return
