"""Work that may hang, done in a thread of its own: whoever waits for it can give up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Answer = SimpleQueue[tuple[Any, BaseException | None]]
_LOOK_S = 0.5  # how often a waiting thread looks whether a limit has begun to hold


def _next(values: Iterator[T]) -> tuple[T] | None:
    for value in values:
        return (value,)
    return None


class HangsError(Exception):
    """What was limited has taken longer; its thread is of no more use."""


@dataclass(frozen=True, kw_only=True)
class _Limit:
    ends_s: float  # on the monotonic clock
    limit_s: float
    advice: str


class Watched:
    """One thread that does what it is given, in order.

    Python cannot end a call into a library that hangs. The thread is a daemon: it does not keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], _Answer] | None] = SimpleQueue()
        self._limit: _Limit | None = None
        self._is_given_up = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def each(self, values: Iterable[T]) -> Generator[T, None, None]:
        """The values, each of them made in the thread once it is asked for.

        All that makes a value stays in one thread: to hand each batch to another one would move it to another core and
        away from its caches. Raises what making them raises, and HangsError once what is `limited` there takes longer.
        """
        made = iter(values)
        try:
            while found := self._call(partial(_next, made)):
                yield found[0]
        finally:
            self._jobs.put((getattr(made, "close", bool), SimpleQueue()))  # a generator's

    @contextmanager
    def limited(self, limit_s: float, *, advice: str) -> Iterator[None]:
        """What the thread does in here may take so long, or whoever waits for it is told so, and what to do."""
        self._limit = _Limit(ends_s=time.monotonic() + limit_s, limit_s=limit_s, advice=advice)
        try:
            yield
        finally:
            self._limit = None
        if self._is_given_up:  # nobody waits for what would come next
            raise HangsError("the answer came too late")

    def close(self) -> None:
        """Let the thread end, and with it what it holds, once it has done what it was given."""
        self._jobs.put(None)

    def _call(self, work: Callable[[], T]) -> T:
        answer: _Answer = SimpleQueue()
        self._jobs.put((work, answer))
        value, error = self._wait(answer)
        try:
            if error is not None:
                raise error
            return value
        finally:
            del error  # its trace holds this frame, and would keep alive what the failed work held

    def _wait(self, answer: _Answer) -> tuple[Any, BaseException | None]:
        while True:
            limit = self._limit
            left_s = _LOOK_S if limit is None else min(_LOOK_S, max(0.0, limit.ends_s - time.monotonic()))
            try:
                return answer.get(timeout=left_s)
            except Empty:
                if not self._thread.is_alive():
                    raise RuntimeError("the thread that should do the work was closed") from None
                if limit is not None and limit is self._limit and time.monotonic() >= limit.ends_s:
                    self._is_given_up = True
                    raise HangsError(f"no answer within {limit.limit_s:g} s; {limit.advice}") from None

    def _work(self) -> None:
        while job := self._jobs.get():
            work, answer = job
            try:
                answer.put((work(), None))
            except BaseException as error:  # it is raised where it was waited for
                answer.put((None, error))
            del job, work, answer  # or the last one would live as long as the thread waits
