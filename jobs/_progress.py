"""Live numbers of a Spark write while it runs, from the status that Spark keeps for its web page."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Callback = Callable[[int, int, int], None]

_NODE = re.compile(r'^\s*\d+ \[id="node\d+".*$', re.MULTILINE)
_ROWS = re.compile(r"number of output rows: ([\d,]+)")


@contextmanager
def watch(spark: SparkSession, callback: Callback, *, interval_s: float = 0.5) -> Iterator[None]:
    """Call `callback(tasks_done, tasks_total, rows)` every now and then while the body writes.

    Tasks are those of the running Spark stage; rows are what Python workers have returned so far in the newest
    execution, 0 for one without Python. Executors report every `spark.executor.heartbeatInterval`. Where a session
    has no such status (Spark Connect), or anything goes wrong, there are no calls; the body never notices.
    """
    try:
        status = _Status(spark)
    except Exception:  # Spark Connect has no JVM to ask
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_poll, args=(status, callback, interval_s, stop), daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def _poll(status: _Status, callback: Callback, interval_s: float, stop: threading.Event) -> None:
    try:
        last = None
        running = True
        while running:
            running = not stop.wait(interval_s)
            if not running:  # one look more, for the final count
                status.settle()
            numbers = status.read()
            if numbers is not None and numbers != last:
                callback(*numbers)
                last = numbers
    except Exception:  # progress is a courtesy: whatever Spark has changed inside, the work goes on
        return


class _Status:
    """What a classic session knows about the newest execution that began after this was made."""

    def __init__(self, spark: SparkSession) -> None:
        # The store and the plan's text are internal to Spark; they were looked at in 4.1.
        session: Any = spark
        self._store = session._jsparkSession.sharedState().statusStore()
        self._tracker = session.sparkContext.statusTracker()
        newest = self._newest()
        self._before = -1 if newest is None else newest.executionId()
        self._tasks = (0, 0)

    def read(self) -> tuple[int, int, int] | None:
        """Tasks done, tasks in all, rows; None before anything has begun."""
        newest = self._newest()
        if newest is None or newest.executionId() <= self._before:
            return None
        number = newest.executionId()
        own = {int(stage) for stage in newest.stages().mkString(" ").split()}
        active = sorted(own & set(self._tracker.getActiveStageIds()))
        info = self._tracker.getStageInfo(active[-1]) if active else None
        self._tasks = (info.numCompletedTasks, info.numTasks) if info else (self._tasks[1], self._tasks[1])
        # One call for the whole plan: node by node it would be hundreds.
        plan = self._store.planGraph(number).makeDotFile(self._store.executionMetrics(number))
        return self._tasks[0], self._tasks[1], _python_rows(plan)

    def settle(self) -> None:
        """Wait a little until Spark has taken note of the end; its listeners come after the write."""
        limit = time.monotonic() + 0.25
        while time.monotonic() < limit:
            newest = self._newest()
            if newest is None or newest.executionId() <= self._before or newest.completionTime().isDefined():
                return
            time.sleep(0.02)

    def _newest(self) -> Any:
        count = self._store.executionsCount()
        newest = self._store.executionsList(max(count - 1, 0), 1)
        return None if newest.isEmpty() else newest.last()


def _python_rows(plan: str) -> int:
    """Rows out of the Python node nearest to the plan's root, which comes first."""
    for node in _NODE.findall(plan):
        if "Python workers" in node or "<b>MapIn" in node:
            rows = _ROWS.search(node)
            return int(rows[1].replace(",", "")) if rows else 0
    return 0
