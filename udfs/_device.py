"""Where a network runs."""

from __future__ import annotations

from ._errors import ModelError


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
