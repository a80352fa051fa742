"""The files of backend `builtin`: weights of its network, and beside them those of its masks, if there are any."""

from __future__ import annotations

import json
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._errors import ModelError, first_line
from .scenes import LABELS

if TYPE_CHECKING:
    import torch

What = Literal["weights", "masks"]
_MAX_BYTES = 2**26
_MEND: dict[What, str] = {
    "weights": "make some with scripts/train_builtin.py, or leave `weights` out",
    "masks": "make some with scripts/train_builtin_masks.py, or leave `weights` out",
}


def weights_place(weights: str | None) -> Traversable:
    """Where the network's weights lie: the file that was named, or the project's own."""
    return files("visionlake.udfs.backends") / "builtin.safetensors" if weights is None else Path(weights)


def masks_place(weights: str | None) -> Traversable:
    """Where the masks' weights lie that go with those of the network, if there are any."""
    if weights is None:
        return files("visionlake.udfs.backends") / "builtin_masks.safetensors"
    return Path(weights).parent / f"{Path(weights).stem}_masks.safetensors"


def read_weights(weights: str | None) -> bytes:
    """The file of the network's weights. Raises ModelError for one that is of something else."""
    place = weights_place(weights)
    content = _read(place, "weights")
    if _labels_of(content) != LABELS:
        raise ModelError(f"weights {place} are not those of builtin; {_MEND['weights']}")
    return content


def read_masks(weights: str | None, *, of: bytes) -> bytes:
    """The file of the masks' weights that go with the network's, whose file has the content `of`. Raises ModelError.

    They were trained on the features of one network, and make little of those of another: they say which it was.
    """
    place = masks_place(weights)
    content = _read(place, "masks")
    if _labels_of(content) != LABELS or _metadata(content).get("weights") != sha256(of).hexdigest():
        raise ModelError(f"masks {place} do not belong to the weights beside them; {_MEND['masks']}")
    return content


def find_tensors(content: bytes, wanted: dict[str, torch.Tensor], *, what: What) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file as 32-bit floats. Raises ModelError where they are not those `wanted`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"the {what} are no safetensors file: {first_line(error)}; {_MEND[what]}") from None
    found = {name: values.float() if values.is_floating_point() else values for name, values in found.items()}
    differing = {(n, v.shape) for n, v in found.items()} ^ {(n, v.shape) for n, v in wanted.items()}
    odd = sorted({name for name, _ in differing} | {name for name, v in found.items() if not bool(v.isfinite().all())})
    if odd:
        raise ModelError(f"{len(odd)} tensors of the {what}, such as {odd[0]}, do not fit the network; {_MEND[what]}")
    return found


def _read(place: Traversable, what: What) -> bytes:
    """A file's content; nothing of one that is too large to be right."""
    try:
        with place.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{what} {place} cannot be read: {error.strerror}; {_MEND[what]}") from None
    return content if len(content) <= _MAX_BYTES else b""


def _labels_of(content: bytes) -> tuple[str, ...]:
    return tuple(str(_metadata(content).get("labels")).split(","))


def _metadata(content: bytes) -> dict[str, Any]:
    """What the header of a safetensors file says beside its tensors: its length in 8 bytes, then JSON."""
    try:
        found = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
