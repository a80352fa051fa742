"""The memory of a program and all that it started."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil


def resident(process: psutil.Process) -> int:
    """Resident bytes of a Python process; of Java nothing, since its heap grows to what it is allowed."""
    return process.memory_info().rss if "java" not in process.name() else 0


def proportional(process: psutil.Process) -> int:
    """Bytes of a process, with those that it shares counted in part (PSS, of Linux)."""
    return process.memory_full_info().pss


class Peak:
    """The largest sum over this process's descendants (with `own`, and itself), sampled a few times a second."""

    def __init__(self, measure: Callable[[psutil.Process], int] = resident, *, own: bool = False) -> None:
        self.bytes, self._measure, self._own = 0, measure, own

    def __enter__(self) -> Peak:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.2):
            total = 0
            for process in [*([me] if self._own else []), *me.children(recursive=True)]:
                try:
                    total += self._measure(process)
                except psutil.Error:
                    continue
            self.bytes = max(self.bytes, total)
