"""Detectors whose network is a file with a card beside it: everything but the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._device import to_device
from ._errors import ModelError
from ._resize import has_extent, prepare, to_picture
from .cards import Card
from .detector_types import DetectOptions, Instances, ModelInfo, Prepared
from .hashing import file_digest
from .masks import Mask, paste_mask, sample_mask

if TYPE_CHECKING:
    import torch

    from ._heads import Found


def find_weights(options: DetectOptions, *, kind: str) -> Path:
    """The file that `options` name, of a kind told in words. Raises ModelError where there is none."""
    if options.weights is None:
        raise ModelError(f"backend {options.backend!r} wants weights, the path of {kind}")
    path = Path(options.weights)
    if not path.is_file():
        raise ModelError(f"weights {path}: there is no such file")
    return path


def describe_file(path: Path, card: Card, *, declared: Mapping[str, Any] | None = None) -> ModelInfo:
    """The facts of file and card; the file is hashed, not loaded. `declared` are settings beside the card's."""
    return ModelInfo(
        name=card.name,
        version=card.version,
        labels=card.labels,
        first_label_id=card.head.first_label_id,
        digests={"weights": file_digest(path), "card": card.digest()},
        declared={
            **(declared or {}),
            "score_threshold": card.head.score_threshold,
            "nms_iou": card.head.nms_iou,
            "max_instances": card.head.max_instances,
            "classes": None,
        },
        tasks=("detection", "instance") if card.head.masks else ("detection",),
        licence=card.license or None,
        card=card.facts(),
    )


class CardedDetector:
    """A network that keeps to its card.

    `network` takes a batch as the card says, float32 (N x 3 x height x width, channels last), and returns what the
    card's head promises. `settings` are the resolved ones.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], Any],
        card: Card,
        settings: Mapping[str, Any],
        *,
        device: torch.device,
        batch_size: int,
    ) -> None:
        import torch

        from ._heads import Choice

        self.card, self.labels, self.first_label_id = card, card.labels, card.head.first_label_id
        self.batch_size = card.input.batch or batch_size
        classes = settings["classes"]
        self._choice = Choice(
            score_threshold=settings["score_threshold"],
            nms_iou=settings["nms_iou"],
            max_instances=settings["max_instances"],
            labels=None if classes is None else tuple(card.labels.index(label) for label in classes),
            masks=settings["task"] == "instance",
        )
        self._network, self._device, self.device_type = network, device, device.type
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(card.input.mean, device=device).view(shape)
        self._std = torch.tensor(card.input.std, device=device).view(shape)
        self._is_plain = card.input.mean == (0.0, 0.0, 0.0) and card.input.std == (1.0, 1.0, 1.0)

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture (RGB) as the card says, still in bytes."""
        return prepare(picture, self.card)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """What is in each picture. Raises ModelError where the network does not keep to its card."""
        import torch

        from ._heads import find

        exact = self.card.input.batch
        most = exact or self.card.input.max_batch or len(batch)
        if len(batch) > most:
            return [one for i in range(0, len(batch), most) for one in self.detect(batch[i : i + most])]
        if exact and len(batch) < exact:
            return self.detect([*batch, *[batch[-1]] * (exact - len(batch))])[: len(batch)]
        with torch.inference_mode():
            output = self._network(self._input(batch))
            found = find(output, self.card, self._choice, count=len(batch))
        return [self._instances(one, prepared) for one, prepared in zip(found, batch, strict=True)]

    def _input(self, batch: Sequence[Prepared]) -> torch.Tensor:
        import torch

        stacked = to_device([prepared.pixels for prepared in batch], self._device)
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
        scores, label_ids = found.scores.double().numpy()[kept], found.labels.numpy()[kept] + self.first_label_id
        if found.masks is None:
            return Instances(boxes=boxes[kept], scores=scores, label_ids=label_ids)
        if not has_extent(before).all():
            named = f"{self.card.name}@{self.card.version}"
            raise ModelError(f"model {named} gave boxes without an area, which have no masks; look at its weights")
        moved = (before - [prepared.left, prepared.top] * 2) / ([prepared.scale_x, prepared.scale_y] * 2)
        masks = [self._mask(found.masks[place], moved[place], prepared) for place in np.flatnonzero(kept)]
        return Instances.of_masks(masks, scores=scores.tolist(), label_ids=label_ids.tolist())

    def _mask(self, mask: torch.Tensor, box: npt.NDArray[np.float64], prepared: Prepared) -> Mask | None:
        """A mask of the network at the size of the picture; `box` is that of its object, also beyond the edges."""
        size = (prepared.height_px, prepared.width_px)
        if self.card.head.masks == "box":
            return paste_mask(mask, box, size=size)
        down, across = mask.shape[0] / self.card.input.height_px, mask.shape[1] / self.card.input.width_px
        return sample_mask(
            mask,
            size=size,
            scale=(prepared.scale_y * down, prepared.scale_x * across),
            shift=(prepared.top * down, prepared.left * across),
            box=box if self.card.head.masks == "prototypes" else None,
        )
