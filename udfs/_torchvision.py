"""Networks of torchvision, and what they put out at the size of the picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.models import get_model
from torchvision.models.detection.transform import resize_boxes

from ._device import find_batch_size, find_device, find_dtype, to_device
from ._errors import ModelError, first_line
from ._regions import find_regions
from ._weights import read_weights
from .detector_types import DetectOptions, Instances, ModelInfo, Prepared
from .masks import in_bands, paste_mask

_MOST = 10_000  # boxes that a model may put out, before classes are chosen
_SHORTER_PX, _LONGER_PX = 520, 2080
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _Network(ABC):
    """A loaded model. A batch holds pictures of one size: torchvision pads others, which changes what it finds."""

    first_label_id = 1

    def __init__(self, path: Path, info: ModelInfo, settings: dict[str, Any], options: DetectOptions) -> None:
        torch.set_num_threads(1)
        self.labels, self.settings, self._name = info.labels, settings, f"{info.name}@{info.version}"
        network: Any = get_model(info.name, weights=None, weights_backbone=None, num_classes=len(info.labels) + 1)
        weights = {name: value for name, value in read_weights(path).items() if not name.startswith("aux_classifier.")}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            wrong = str(error).splitlines()[1:3] or [first_line(error)]
            raise ModelError(
                f"weights {path} do not fit {info.name} with {len(info.labels)} labels: "
                f"{'; '.join(line.strip() for line in wrong)}"
            ) from None
        self._device = torch.device(find_device(options.device))
        self.network = network.eval().to(self._device, memory_format=torch.channels_last)
        self.device_type = self._device.type
        self.batch_size = find_batch_size(options.batch_size, self.device_type)
        if (dtype := find_dtype(settings["precision"], self._device.type)) is not None:
            self.network.backbone = _Lower(self.network.backbone, dtype)
        classes = settings["classes"]
        self.classes = None if classes is None else [self.labels.index(name) + 1 for name in classes]

    def _evaluate(self, batch: Sequence[Prepared]) -> Any:
        stacked = to_device([prepared.pixels for prepared in batch], self._device)
        return self._network_of(stacked.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last) / 255)

    @abstractmethod
    def _network_of(self, pictures: torch.Tensor) -> Any:
        """What the network makes of pictures (N x 3 x height x width, from 0 to 1)."""

    def _check_numbers(self, values: Any) -> None:
        """What is no number is above no threshold, and would go unseen."""
        if not all(bool(torch.isfinite(value).all()) for value in values):
            raise ModelError(f"model {self._name} gave values that are no numbers; look at its weights")


class _Lower(torch.nn.Module):
    """A backbone in 16 bits. What comes after is not: coordinates would be rounded to several pixels."""

    def __init__(self, inner: torch.nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = inner, dtype

    def forward(self, pictures: torch.Tensor) -> Any:
        """Its features, as 32-bit floats."""
        with torch.autocast(pictures.device.type, dtype=self.dtype):
            found: Any = self.inner(pictures)
        if isinstance(found, torch.Tensor):
            return found.float()
        return OrderedDict((name, value.float()) for name, value in found.items())


class Objects(_Network):
    """A network that puts out boxes, and masks if it has some and they are wanted."""

    def __init__(self, path: Path, info: ModelInfo, settings: dict[str, Any], options: DetectOptions) -> None:
        super().__init__(path, info, settings, options)
        chooser = getattr(self.network, "roi_heads", self.network)
        chooser.score_thresh, chooser.nms_thresh = settings["score_threshold"], settings["nms_iou"]
        is_masked = settings["task"] != "detection"
        # Each box costs a mask of its own, so none is made that is not kept, where that is known before.
        chooser.detections_per_img = settings["max_instances"] if is_masked and self.classes is None else _MOST
        if not is_masked and hasattr(chooser, "has_mask"):
            chooser.mask_roi_pool = None  # it is not asked for masks then
        head = chooser.box_predictor if hasattr(self.network, "roi_heads") else self.network.head
        head.register_forward_hook(lambda _module, _given, found: self._check_numbers(_tensors(found)))
        self.network.transform.postprocess = _unpasted

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture as it is: the model has its own way to resize."""
        return Prepared.unchanged(picture)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """What is in each picture of a batch of equal sizes. Raises ModelError for values that are no numbers."""
        with torch.inference_mode():
            return [self._instances(*each) for each in zip(self._evaluate(batch), batch, strict=True)]

    def _network_of(self, pictures: torch.Tensor) -> Any:
        return self.network([*pictures])

    def _instances(self, found: dict[str, torch.Tensor], prepared: Prepared) -> Instances:
        boxes, scores, labels = (found[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
        kept = np.isin(labels, self.classes) if self.classes is not None else np.ones(len(labels), bool)
        kept &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.flatnonzero(kept)
        order = order[np.argsort(-scores[order], kind="stable")][: self.settings["max_instances"]]
        boxes, scores, labels = boxes[order].astype(np.float64), scores[order].astype(np.float64), labels[order]
        # It cuts boxes off at the edges of the picture that it has scaled, and the way back is rounded.
        boxes = boxes.clip(0, [prepared.width_px, prepared.height_px] * 2)
        if "masks" not in found:
            return Instances(boxes=boxes, scores=scores, label_ids=labels)
        size = (prepared.height_px, prepared.width_px)
        masks = [paste_mask(found["masks"][i, 0], box, size=size) for i, box in zip(order, boxes, strict=True)]
        return Instances.of_masks(masks, scores=scores.tolist(), label_ids=labels.tolist())


class Surfaces(_Network):
    """A network that says of every pixel to which class it belongs."""

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture with its shorter side of 520 px, as torchvision has trained its own weights.

        The longer one has at most 2080 px: what is longer would fill gigabytes.
        """
        width, height = picture.size
        scale = min(_SHORTER_PX / min(width, height), _LONGER_PX / max(width, height))
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR) if size != picture.size else picture)
        return Prepared(
            pixels=pixels, width_px=width, height_px=height, scale_x=size[0] / width, scale_y=size[1] / height,
            left=0.0, top=0.0,
        )  # fmt: skip

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """The regions of each picture of a batch of equal sizes. Raises ModelError for values that are no numbers."""
        with torch.inference_mode():
            found = self._evaluate(batch)["out"].float()
            self._check_numbers([found])
            return [self._regions(*each) for each in zip(found, batch, strict=True)]

    def _network_of(self, pictures: torch.Tensor) -> Any:
        mean, std = (torch.tensor(values, device=pictures.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        return self.network((pictures - mean) / std)

    def _regions(self, scores: torch.Tensor, prepared: Prepared) -> Instances:
        bands = in_bands(scores, size=(prepared.height_px, prepared.width_px))
        kept = range(1, len(self.labels) + 1) if self.classes is None else self.classes  # 0 is the background
        return find_regions(bands, first_label_id=0, kept=kept)


def _unpasted(
    found: list[dict[str, torch.Tensor]], sizes: Sequence[tuple[int, int]], originals: Sequence[tuple[int, int]]
) -> list[dict[str, torch.Tensor]]:
    """Boxes in pixels of the pictures, and masks still on their grids: at full size they would fill gigabytes."""
    return [
        {**one, "boxes": resize_boxes(one["boxes"], [*size], [*original])}
        for one, size, original in zip(found, sizes, originals, strict=True)
    ]


def _tensors(found: Any) -> Any:
    return found.values() if isinstance(found, dict) else found
