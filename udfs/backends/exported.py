"""Backend `exported`: a network as a `torch.export` archive (`.pt2`) with a card beside it (see `udfs.cards`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from .._carded import CardedDetector, describe_file, find_weights
from .._errors import ModelError
from ..cards import Card, card_path, read_card
from ..detector_types import DetectOptions, ModelInfo

IMPORTS = ("torchvision.ops", "torch.export._trace")  # the latter is what torch imports when it loads an archive


def describe(options: DetectOptions) -> ModelInfo:
    """The facts of card and archive."""
    path, card = _files(options)
    return describe_file(path, card, declared={"precision": "float32"})


def load(options: DetectOptions) -> CardedDetector:
    """The network on its device. One torch thread: as many tasks run beside each other as there are cores."""
    import torch
    from torch.export.passes import move_to_device_pass

    from .._archive import load_archive
    from .._device import find_batch_size, find_device, find_dtype

    torch.set_num_threads(1)
    path, card = _files(options)
    settings = describe(options).resolved(options)
    device = torch.device(find_device(options.device))
    program = load_archive(path)
    if device.type != "cpu":
        program = move_to_device_pass(program, device)
    # What a guard would check of sizes, the card says; the archive's own are code from outside.
    module = program.module(check_guards=False).to(memory_format=torch.channels_last)
    dtype = find_dtype(settings["precision"], device.type)

    def network(pictures: torch.Tensor) -> Any:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return module(pictures)

    batch_size = find_batch_size(options.batch_size, device.type, most=card.input.max_batch)
    return CardedDetector(network, card, settings, device=device, batch_size=batch_size)


def _files(options: DetectOptions) -> tuple[Path, Card]:
    path = find_weights(options, kind="a .pt2 archive")
    if not is_zipfile(path):
        raise ModelError(
            f"weights {path} are no torch.export archive: write one with torch.export.save, ending in .pt2"
        )
    return path, read_card(card_path(path))
