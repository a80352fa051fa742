"""Reading weights that nobody has vouched for: tensors and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import ModelError, first_line

if TYPE_CHECKING:
    import torch

MAX_BYTES = 8 << 30
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def check_weights(path: Path) -> Path:
    """The path, if such a file may be read. Raises ModelError."""
    if not path.is_file():
        raise ModelError(f"weights {path}: there is no such file")
    if path.suffix not in SUFFIXES:
        raise ModelError(f"weights {path}: allowed are the endings {', '.join(SUFFIXES)}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ModelError(f"weights {path} have {size} bytes; at most {MAX_BYTES} are allowed")
    return path


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
