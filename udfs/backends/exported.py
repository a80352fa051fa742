"""Backend `exported`: a network as a `torch.export` archive (`.pt2`) with a card beside it (see `udfs.cards`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import is_zipfile

import numpy as np
from PIL import Image

from .._errors import ModelError
from .._resize import has_extent, prepare, to_picture
from ..cards import Card, card_path, read_card
from ..detector_types import DetectOptions, Instances, ModelInfo, Prepared
from ..hashing import file_digest

if TYPE_CHECKING:
    import torch

    from .._heads import Found

IMPORTS = ("torchvision.ops", "torch.export._trace")  # the latter is what torch imports when it loads an archive


def describe(options: DetectOptions) -> ModelInfo:
    """The facts of card and archive; the archive is hashed, not loaded."""
    path, card = _files(options)
    return ModelInfo(
        name=card.name,
        version=card.version,
        labels=card.labels,
        first_label_id=card.head.first_label_id,
        digests={"weights": file_digest(path), "card": card.digest()},
        declared={
            "precision": "float32",
            "score_threshold": card.head.score_threshold,
            "nms_iou": card.head.nms_iou,
            "max_instances": card.head.max_instances,
            "classes": None,
        },
    )


def load(options: DetectOptions) -> Exported:
    """The network on its device. One torch thread: as many tasks run beside each other as there are cores."""
    path, card = _files(options)
    return Exported(path, card, describe(options).resolved(options), options)


def _files(options: DetectOptions) -> tuple[Path, Card]:
    if options.weights is None:
        raise ModelError("backend 'exported' wants weights, the path of a .pt2 archive")
    path = Path(options.weights)
    if not path.is_file():
        raise ModelError(f"weights {path}: there is no such file")
    if not is_zipfile(path):
        raise ModelError(
            f"weights {path} are no torch.export archive: write one with torch.export.save, ending in .pt2"
        )
    return path, read_card(card_path(path))


class Exported:
    """A loaded archive."""

    def __init__(self, path: Path, card: Card, settings: dict[str, Any], options: DetectOptions) -> None:
        import torch
        from torch.export.passes import move_to_device_pass

        from .._archive import load_archive
        from .._device import find_batch_size, find_device
        from .._heads import Choice

        torch.set_num_threads(1)
        self.card, self.labels, self.first_label_id = card, card.labels, card.head.first_label_id
        classes = settings["classes"]
        self._choice = Choice(
            score_threshold=settings["score_threshold"],
            nms_iou=settings["nms_iou"],
            max_instances=settings["max_instances"],
            labels=None if classes is None else tuple(card.labels.index(label) for label in classes),
        )
        self._device = torch.device(find_device(options.device))
        given = card.input
        self.batch_size = given.batch or find_batch_size(options.batch_size, self._device.type, most=given.max_batch)
        self._precision = torch.bfloat16 if settings["precision"] == "bfloat16" else None
        program = load_archive(path)
        if self._device.type != "cpu":
            program = move_to_device_pass(program, self._device)
        # What a guard would check of sizes, the card says; the archive's own are code from outside.
        self._network = program.module(check_guards=False).to(memory_format=torch.channels_last)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(card.input.mean, device=self._device).view(shape)
        self._std = torch.tensor(card.input.std, device=self._device).view(shape)
        self._is_plain = card.input.mean == (0.0, 0.0, 0.0) and card.input.std == (1.0, 1.0, 1.0)

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture (RGB) as the card says, still in bytes."""
        return prepare(picture, self.card)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """What is in each picture. Raises ModelError where the network does not keep to its card."""
        import torch

        from .._heads import find

        exact = self.card.input.batch
        most = exact or self.card.input.max_batch or len(batch)
        if len(batch) > most:
            return [one for i in range(0, len(batch), most) for one in self.detect(batch[i : i + most])]
        if exact and len(batch) < exact:
            return self.detect([*batch, *[batch[-1]] * (exact - len(batch))])[: len(batch)]
        with torch.inference_mode():
            with torch.autocast(self._device.type, dtype=self._precision, enabled=self._precision is not None):
                output = self._network(self._input(batch))
            found = find(output, self.card, self._choice, count=len(batch))
        return [self._instances(one, prepared) for one, prepared in zip(found, batch, strict=True)]

    def _input(self, batch: Sequence[Prepared]) -> torch.Tensor:
        import torch

        stacked = torch.from_numpy(np.stack([prepared.pixels for prepared in batch])).to(self._device)
        if self.card.input.channels == "BGR":
            stacked = stacked.flip(-1)
        values = stacked.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
        if self.card.input.scale != 1.0:
            values = values * self.card.input.scale
        return values if self._is_plain else (values - self._mean) / self._std

    def _instances(self, found: Found, prepared: Prepared) -> Instances:
        before = found.boxes.double().numpy()
        boxes = to_picture(before, prepared)
        kept = has_extent(boxes) | ~has_extent(before)  # what is empty by itself is for the gate to find
        return Instances(
            boxes=boxes[kept],
            scores=found.scores.double().numpy()[kept],
            label_ids=found.labels.numpy()[kept] + self.first_label_id,
        )
