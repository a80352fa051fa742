"""Backend `builtin`: a small detector of the things in generated scenes, with masks, which comes with the project.

`scripts/train_builtin.py` makes its weights and `scripts/train_builtin_masks.py` those of its masks: a second file
beside the first, named after it, which is read where masks are wanted. It is there to try things out, and for tests:
what it knows is what `visionlake sample` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .._builtin_weights import find_tensors, masks_place, read_masks, read_weights
from .._resize import has_extent, to_picture
from ..detector_types import DetectOptions, Instances, ModelInfo, Prepared
from ..masks import Mask, paste_mask
from ..scenes import LABELS

if TYPE_CHECKING:
    import torch

IMPORTS = ("torchvision.models.detection", "safetensors.torch")
VERSION = "1"
LONGEST_PX, MASKED_LONGEST_PX, MULTIPLE_PX = 480, 640, 32


def describe(options: DetectOptions) -> ModelInfo:
    """The facts of the weights that come with the project, or of those that `options` name.

    Weights of your own have masks where there is a file of them. Raises ModelError for weights of another network.
    """
    weights = read_weights(options.weights)
    has_masks = masks_place(options.weights).is_file()
    digests = {"weights": weights}
    if has_masks and options.task in ("instance", "segmentation"):
        digests["masks"] = read_masks(options.weights, of=weights)
    return ModelInfo(
        name="builtin",
        version=VERSION,
        labels=LABELS,
        first_label_id=0,
        digests={name: sha256(content).hexdigest() for name, content in digests.items()},
        declared={
            "precision": "float32", "score_threshold": 0.7, "nms_iou": 0.5, "max_instances": 100, "classes": None
        },
        source=None if options.weights else "visionlake:builtin.safetensors",
        tasks=("detection", "instance") if has_masks else ("detection",),
    )  # fmt: skip


def load(options: DetectOptions) -> Builtin:
    """The network on its device, with one torch thread. Raises ModelError."""
    settings, weights = describe(options).resolved(options), read_weights(options.weights)
    masks = None if settings["task"] == "detection" else read_masks(options.weights, of=weights)
    return Builtin(weights, settings, options, masks=masks)


class Builtin:
    """The loaded network. Of `settings`, all that `describe` declares matter; of `options`, the device.

    `masks` are the weights for them, where they are wanted.
    """

    labels = LABELS
    first_label_id = 0

    def __init__(
        self, weights: bytes, settings: dict[str, Any], options: DetectOptions, *, masks: bytes | None = None
    ) -> None:
        import torch

        from .._builtin_masks import MaskHead
        from .._builtin_network import PROPOSALS, make_network
        from .._device import find_batch_size, find_device, find_dtype

        torch.set_num_threads(1)
        network = make_network(len(LABELS))
        network.load_state_dict(find_tensors(weights, network.state_dict(), what="weights"))
        chooser: Any = network.roi_heads
        chooser.score_thresh, chooser.nms_thresh = settings["score_threshold"], settings["nms_iou"]
        chooser.detections_per_img = PROPOSALS * len(LABELS)  # classes are chosen first, below
        self._device = torch.device(find_device(options.device))
        self.device_type = self._device.type
        self.batch_size = find_batch_size(options.batch_size, self.device_type)
        self._network = network.eval().to(memory_format=torch.channels_last).to(self._device)
        self._masks: MaskHead | None = None
        if masks is not None:
            head = MaskHead(len(LABELS))
            head.load_state_dict(find_tensors(masks, head.state_dict(), what="masks"))
            self._masks = head.eval().to(self._device)
        self._precision = find_dtype(settings["precision"], self._device.type)
        self._max_instances = settings["max_instances"]
        self._classes = None if settings["classes"] is None else [LABELS.index(name) for name in settings["classes"]]

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture with its longer side at most 480 px, for masks 640, padded with black to multiples of 32 px.

        The network wants exact multiples, and pictures of one size may share a batch. Edges want more pixels than
        boxes do.
        """
        width, height = picture.size
        longest = LONGEST_PX if self._masks is None else MASKED_LONGEST_PX
        scale = min(1.0, longest / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        padded = [-(-side // MULTIPLE_PX) * MULTIPLE_PX for side in size]
        pixels = np.zeros((padded[1], padded[0], 3), np.uint8)
        pixels[: size[1], : size[0]] = np.asarray(picture)
        return Prepared(
            pixels=pixels, width_px=width, height_px=height, scale_x=size[0] / width, scale_y=size[1] / height,
            left=0.0, top=0.0,
        )  # fmt: skip

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """What is in each picture, best first, in pixels of it."""
        import torch

        from .._device import to_device

        stacked = to_device([prepared.pixels for prepared in batch], self._device)
        pictures = stacked.permute(0, 3, 1, 2).float() / 255
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._precision, enabled=self._precision is not None),
        ):
            seen, _ = self._network.transform(list(pictures))
            features = self._network.backbone(seen.tensors)
            proposals, _ = self._network.rpn(seen, features)
            found, _ = self._network.roi_heads(features, proposals, seen.image_sizes)
            looks = zip(seen.tensors.split(1), features["0"].split(1), strict=True)
            return [self._instances(*each) for each in zip(found, batch, looks, strict=True)]

    def _instances(
        self, found: dict[str, torch.Tensor], prepared: Prepared, looks: tuple[torch.Tensor, torch.Tensor]
    ) -> Instances:
        import torch

        boxes, scores, ids = (found[name].cpu().double().numpy() for name in ("boxes", "scores", "labels"))
        boxes = to_picture(boxes, prepared)
        kept, labels = has_extent(boxes), ids.astype(np.int64) - 1  # 0 is the background
        if self._classes is not None:
            kept &= np.isin(labels, self._classes)
        places = np.flatnonzero(kept)[: self._max_instances]
        if self._masks is None:
            return Instances(boxes=boxes[places], scores=scores[places], label_ids=labels[places])
        chosen = torch.from_numpy(places).to(self._device)
        masks = self._make_masks(found["boxes"][chosen], found["labels"][chosen] - 1, prepared, looks)
        return Instances.of_masks(masks, scores=scores[places].tolist(), label_ids=labels[places].tolist())

    def _make_masks(
        self, boxes: torch.Tensor, labels: torch.Tensor, prepared: Prepared, looks: tuple[torch.Tensor, torch.Tensor]
    ) -> list[Mask | None]:
        """Masks of the objects of one picture: no more are held at a time, and none depends on a neighbour."""
        from .._builtin_masks import widened

        if self._masks is None or not len(boxes):
            return []
        shares = self._masks(*looks, [boxes], labels).sigmoid()
        wide = widened(boxes.double()).cpu().numpy() / ([prepared.scale_x, prepared.scale_y] * 2)
        size = (prepared.height_px, prepared.width_px)
        return [paste_mask(share, box, size=size) for share, box in zip(shares, wide, strict=True)]
