"""Calls that may hang, made in a thread of their own: whoever waits for them can give up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], SimpleQueue[tuple[Any, BaseException | None]]]


class Watched:
    """One thread that does what it is given, in order.

    Python cannot end a call into a library that hangs. The thread is a daemon: it does not keep the process alive.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def call(self, work: Callable[[], T], *, limit_s: float) -> T:
        """What `work()` returns or raises. Raises TimeoutError after `limit_s`; then the thread is of no more use."""
        answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._jobs.put((work, answer))
        try:
            value, error = answer.get(timeout=limit_s)
        except Empty:
            raise TimeoutError(f"no answer within {limit_s:g} s") from None
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Let the thread end, and with it what it holds, once it has done what it was given."""
        self._jobs.put(None)

    def _work(self) -> None:
        while job := self._jobs.get():
            work, answer = job
            try:
                answer.put((work(), None))
            except BaseException as error:  # it is raised where it was waited for
                answer.put((None, error))
            del job, work, answer  # or the last one would live as long as the thread waits
