"""Batches that turn out too large for the memory there is: evaluated in halves."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")
# What PyTorch's allocators for CUDA and processors, cuDNN, cuBLAS and onnxruntime's arena say.
_WORDS = re.compile(
    r"out of memory|can't allocate memory|failed to allocate|_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED", re.IGNORECASE
)


def in_halves(evaluate: Callable[[Sequence[_T]], list[_R]], batch: Sequence[_T]) -> tuple[list[_R], int]:
    """What `evaluate` makes of a batch, and how many of it fitted at a time: all, or a half, or a half of that.

    Raises what `evaluate` does, for want of memory only where not even one fits.
    """
    found: list[_R] = []
    most = len(batch)
    while len(found) < len(batch):
        try:
            found += evaluate(batch[len(found) : len(found) + most])
            continue
        except Exception as error:
            if most == 1 or not is_out_of_memory(error):
                raise
        _release()  # out here nothing holds on to the tensors of the attempt, as the exception's frames did
        most = (most + 1) // 2
    return found, most


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that memory ran out."""
    return isinstance(error, MemoryError) or bool(_WORDS.search(str(error)))


def _release() -> None:
    """Give back what PyTorch keeps for later."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
