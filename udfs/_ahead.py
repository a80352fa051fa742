"""Work done ahead of who wants it, in a bounded number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_ahead(work: Callable[[_T], _R], items: Iterable[_T], *, threads: int, most: int) -> Iterator[_R]:
    """`work(item)` for each item, in their order, at most `most` of them begun and not yet taken.

    Without threads each is done when its turn comes. Raises what `work` raises, in its turn; what was begun beyond it
    is let go of.
    """
    if not threads:
        yield from map(work, items)
        return
    waiting: deque[Future[_R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
