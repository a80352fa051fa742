"""Where a network runs, and how pictures get there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ._errors import ModelError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> str:
    """The device for `name`; "auto" is CUDA where there is any. Raises ModelError."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device = {name!r}, but there is no CUDA device here; allowed: 'auto', 'cpu'")
    return name


def find_batch_size(wanted: int | None, device: str, *, most: int | None = None) -> int:
    """Pictures to evaluate together on a device: `wanted`, else what suits it; never more than `most`."""
    size = wanted or (4 if device == "cpu" else 32)
    return min(size, most) if most else size


def find_dtype(precision: str, device: str) -> torch.dtype | None:
    """The type that `torch.autocast` computes in; None for 32-bit floats.

    Raises ModelError where the device has it not, or only in a way that is slower than 32 bits.
    """
    import torch

    if precision == "float32":
        return None
    if precision == "float16" and device == "cpu":
        raise ModelError("precision = 'float16' is for CUDA; on a processor allowed are 'float32', 'bfloat16'")
    if precision == "bfloat16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ModelError("precision = 'bfloat16', which this GPU does not have; allowed are 'float32', 'float16'")
    return torch.float16 if precision == "float16" else torch.bfloat16


def to_device(pictures: Sequence[npt.NDArray[np.uint8]], device: torch.device) -> torch.Tensor:
    """Pictures of one size as uint8, N x height x width x 3, on the device: bytes travel, a quarter of what floats are.

    From pinned memory the GPU fetches them by itself.
    """
    import torch

    stacked = torch.from_numpy(np.stack(pictures))
    if device.type == "cuda":
        return stacked.pin_memory().to(device, non_blocking=True)
    return stacked.to(device)
