"""Reading weights that nobody has vouched for: tensors and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import ModelError, first_line

if TYPE_CHECKING:
    import torch

MAX_BYTES = 8 << 30
_MAX_HEADER_BYTES = 100_000_000  # as the format's own library has it
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def check_weights(path: Path) -> Path:
    """The path, if such a file may be read. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"weights {path}: there is no such file")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"weights {path}: allowed are the endings {', '.join(SUFFIXES)}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ModelError(f"weights {path} have {size} bytes; at most {MAX_BYTES} are allowed")
    if path.suffix == ".safetensors":
        check_whole(path)
    return path


def check_whole(path: Path) -> None:
    """Raise ModelError for a file of safetensors that is cut off, or is none: its header tells its length."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"its header would have {length} bytes")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        found, told = path.stat().st_size, 8 + length + max(ends, default=0)
        if found != told:
            raise ValueError(f"it has {found} bytes, and {told} by its header")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"weights {path} cannot be read as tensors alone: {first_line(error)}") from None


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, from safetensors or from what `torch.save` wrote, of which nothing but tensors is unpickled.

    What a training loop saved beside them (`{"model": ..., "optimizer": ...}`) is left out. Raises ModelError.
    """
    import torch

    try:
        if check_weights(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except ModelError:
        raise
    except Exception as error:  # both have many kinds, torch's with a page of advice
        raise ModelError(f"weights {path} cannot be read as tensors alone: {first_line(error)}") from None
    for name in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"weights {path} hold no tensors by name; save model.state_dict()")
    return {str(name).removeprefix("module."): value for name, value in found.items()}
