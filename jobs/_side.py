"""Work for Spark from several threads: while it plans one query on one core, the next need not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")


class Start(Protocol):
    """Lets work begin in another thread; the future holds what it returns or raises."""

    def __call__(
        self, work: Callable[_Given, _Found], /, *args: _Given.args, **named: _Given.kwargs
    ) -> Future[_Found]: ...


@contextmanager
def side_by_side(spark: SparkSession, *, threads: int) -> Iterator[Start]:
    """Work in up to `threads` threads, which have this one's job group and tags. None of it outlives the body."""
    from pyspark import inheritable_thread_target

    found: Any = inheritable_thread_target(spark)
    # Without a thread of its own for each of ours (PYSPARK_PIN_THREAD) the JVM has nothing to hand on.
    inherit: Callable[..., Any] = found if callable(found) else lambda work: work
    pool = ThreadPoolExecutor(threads, thread_name_prefix="side by side")

    def start(work: Callable[_Given, _Found], /, *args: _Given.args, **named: _Given.kwargs) -> Future[_Found]:
        return pool.submit(inherit(work), *args, **named)

    try:
        yield start
    finally:
        pool.shutdown(cancel_futures=True)
