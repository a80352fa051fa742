"""The GPU that Spark has given to a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from visionlake.udfs.detector_types import DetectOptions


def on_own_gpu(batches: Iterable[Any], *, work: Callable[..., Iterator[Any]], options: DetectOptions) -> Iterator[Any]:
    """`work(batches, options=...)` on the GPU of this task, where Spark schedules GPUs and the settings name none.

    With `spark.task.resource.gpu.amount = 1` each GPU has one task at a time, and so one process with the model.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    gpu = context.resources().get("gpu") if context else None
    device = device_of(options.device, gpu.addresses if gpu else ())
    return work(batches, options=replace(options, device=device))


def device_of(wanted: str, addresses: Sequence[str]) -> str:
    """The device for `wanted` on a task with GPUs at `addresses`: indexes, as Spark's discovery scripts give them."""
    if wanted != "auto" or not addresses or not addresses[0].isdigit():
        return wanted
    return f"cuda:{addresses[0]}"
