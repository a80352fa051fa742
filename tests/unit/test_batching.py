"""Batches that do not fit into memory, work done ahead, and work that is watched."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from visionlake.jobs._gpu import device_of
from visionlake.udfs._ahead import map_ahead
from visionlake.udfs._halving import in_halves, is_out_of_memory
from visionlake.udfs._watched import HangsError, Watched


class Memory:
    """Holds so many at a time."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error, self.asked = room, error, list[int]()

    def __call__(self, batch: Sequence[int]) -> list[int]:
        self.asked.append(len(batch))
        if len(batch) > self.room:
            raise self.error
        return [10 * each for each in batch]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer"),
        MemoryError(),
    ],
)
def test_a_batch_that_is_too_large_is_halved_until_it_fits(error: Exception) -> None:
    memory = Memory(3, error)
    assert in_halves(memory, range(11)) == ([10 * n for n in range(11)], 3)
    assert memory.asked == [11, 6, 3, 3, 3, 2]
    with pytest.raises(type(error)):
        in_halves(Memory(0, error), range(4))


def test_other_errors_are_not_tried_again() -> None:
    memory = Memory(1, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(memory, range(4))
    assert memory.asked == [4] and not is_out_of_memory(memory.error)


@pytest.mark.parametrize("threads", [0, 3])
def test_work_ahead_keeps_its_order_and_its_bounds(threads: int) -> None:
    begun: list[int] = []
    taken = map_ahead(lambda n: n * n, (begun.append(n) or n for n in range(50)), threads=threads, most=5)
    assert next(taken) == 0 and len(begun) <= 5
    assert list(taken) == [n * n for n in range(1, 50)]


def test_work_ahead_fails_in_its_turn_and_leaves_no_thread() -> None:
    before = threading.active_count()
    taken = map_ahead(lambda n: 1 // (3 - n), range(9), threads=2, most=4)
    assert [next(taken), next(taken), next(taken)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(taken)
    assert threading.active_count() == before


def test_a_task_works_on_the_gpu_that_spark_gives_it() -> None:
    assert device_of("auto", ["3"]) == "cuda:3" and device_of("auto", ["2", "5"]) == "cuda:2"
    assert device_of("cpu", ["3"]) == "cpu" and device_of("cuda:1", ["0"]) == "cuda:1"
    assert device_of("auto", []) == "auto" and device_of("auto", ["MIG-1f"]) == "auto"


def test_what_hangs_is_told_and_what_comes_late_is_not() -> None:
    watched, done = Watched("test"), threading.Event()

    def values() -> Iterator[str]:
        done.wait(0.7)  # for what is to come: longer than the limit below, and than a look at it
        with watched.limited(5, advice="mend it"):
            yield threading.current_thread().name
        with watched.limited(0.05, advice="mend it"):
            done.wait(60)

    taken = watched.each(values())
    assert next(taken) == "test"
    with pytest.raises(HangsError, match=r"no answer within 0\.05 s; mend it"):
        next(taken)
    done.set()


def test_a_watched_thread_goes_on_after_what_failed_or_was_left() -> None:
    watched, closed = Watched("test"), threading.Event()

    def endless() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.set()

    with pytest.raises(ZeroDivisionError):
        list(watched.each(1 // n for n in (1, 0)))
    taken = watched.each(endless())
    assert [next(taken), next(taken)] == [0, 1]
    taken.close()
    assert closed.wait(10) and list(watched.each("ab")) == ["a", "b"]
    watched.close()


def test_nothing_is_begun_after_a_hang_and_nobody_waits_for_a_thread_that_ended() -> None:
    watched, over, begun = Watched("test"), threading.Event(), list[str]()

    def values() -> Iterator[str]:
        with watched.limited(0.05, advice="mend it"):
            over.wait(60)
        begun.append("the next")
        yield "late"

    with pytest.raises(HangsError):
        list(watched.each(values()))
    over.set()
    watched.close()
    watched._thread.join(20)
    with pytest.raises(RuntimeError, match="was closed"):
        list(watched.each("ab"))
    assert begun == []
