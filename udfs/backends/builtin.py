"""Backend `builtin`: a small detector of the things in generated scenes, which comes with the project.

`scripts/train_builtin.py` makes its weights. It is there to try things out, and for tests: what it knows is what
`visionlake sample` draws.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from .._errors import ModelError, first_line
from .._resize import has_extent, to_picture
from ..detector_types import DetectOptions, Instances, ModelInfo, Prepared
from ..scenes import LABELS

IMPORTS = ("torchvision.models.detection", "safetensors.torch")
VERSION = "1"
LONGEST_PX, MULTIPLE_PX = 480, 32
_MAX_WEIGHTS_BYTES = 2**26
_MEND = "make some with scripts/train_builtin.py, or leave `weights` out"


def describe(options: DetectOptions) -> ModelInfo:
    """The facts of the weights that come with the project, or of those that `options` name.

    Raises ModelError for weights of another network.
    """
    return ModelInfo(
        name="builtin",
        version=VERSION,
        labels=LABELS,
        first_label_id=0,
        digests={"weights": sha256(_read_weights(options)).hexdigest()},
        declared={
            "precision": "float32", "score_threshold": 0.7, "nms_iou": 0.5, "max_instances": 100, "classes": None
        },
        source=None if options.weights else "visionlake:builtin.safetensors",
    )  # fmt: skip


def load(options: DetectOptions) -> Builtin:
    """The network on its device, with one torch thread. Raises ModelError."""
    return Builtin(_read_weights(options), describe(options).resolved(options), options)


def _read_weights(options: DetectOptions) -> bytes:
    if options.weights is None:
        return files("visionlake.udfs.backends").joinpath("builtin.safetensors").read_bytes()
    try:
        with open(options.weights, "rb") as file:
            content = file.read(_MAX_WEIGHTS_BYTES + 1)
    except OSError as error:
        raise ModelError(f"weights {options.weights} cannot be read: {error.strerror}; {_MEND}") from None
    if len(content) > _MAX_WEIGHTS_BYTES or _labels_of(content) != LABELS:
        raise ModelError(f"weights {options.weights} are not those of builtin; {_MEND}")
    return content


def _labels_of(content: bytes) -> tuple[str, ...] | None:
    """The labels in the header of a safetensors file: its length in 8 bytes, then JSON."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tuple(header["__metadata__"]["labels"].split(","))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


class Builtin:
    """The loaded network. Of `settings`, all that `describe` declares matter; of `options`, the device."""

    labels = LABELS
    first_label_id = 0

    def __init__(self, weights: bytes, settings: dict[str, Any], options: DetectOptions) -> None:
        import torch

        from .._builtin_network import PROPOSALS, make_network
        from .._device import find_batch_size, find_device, find_dtype

        torch.set_num_threads(1)
        network = make_network(len(LABELS))
        network.load_state_dict(_tensors(weights, network.state_dict()))
        chooser: Any = network.roi_heads
        chooser.score_thresh, chooser.nms_thresh = settings["score_threshold"], settings["nms_iou"]
        chooser.detections_per_img = PROPOSALS * len(LABELS)  # classes are chosen first, below
        self._device = torch.device(find_device(options.device))
        self.device_type = self._device.type
        self.batch_size = find_batch_size(options.batch_size, self.device_type)
        self._network = network.eval().to(memory_format=torch.channels_last).to(self._device)
        self._precision = find_dtype(settings["precision"], self._device.type)
        self._max_instances = settings["max_instances"]
        self._classes = None if settings["classes"] is None else [LABELS.index(name) for name in settings["classes"]]

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture with its longer side at most 480 px, padded with black to multiples of 32 px.

        The network wants exact multiples, and pictures of one size may share a batch.
        """
        width, height = picture.size
        scale = min(1.0, LONGEST_PX / max(width, height))
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
            found = self._network(list(pictures))
        return [self._instances(one, prepared) for one, prepared in zip(found, batch, strict=True)]

    def _instances(self, found: dict[str, Any], prepared: Prepared) -> Instances:
        boxes, scores, ids = (found[name].cpu().double().numpy() for name in ("boxes", "scores", "labels"))
        boxes = to_picture(boxes, prepared)
        kept, labels = has_extent(boxes), ids.astype(np.int64) - 1  # 0 is the background
        if self._classes is not None:
            kept &= np.isin(labels, self._classes)
        places = np.flatnonzero(kept)[: self._max_instances]
        return Instances(boxes=boxes[places], scores=scores[places], label_ids=labels[places])


def _tensors(weights: bytes, wanted: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a safetensors file as 32-bit floats. Raises ModelError where they are not those `wanted`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(weights)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"the weights are no safetensors file: {first_line(error)}; {_MEND}") from None
    found = {name: values.float() if values.is_floating_point() else values for name, values in found.items()}
    differing = {(n, v.shape) for n, v in found.items()} ^ {(n, v.shape) for n, v in wanted.items()}
    odd = sorted({name for name, _ in differing} | {name for name, v in found.items() if not bool(v.isfinite().all())})
    if odd:
        raise ModelError(f"{len(odd)} tensors of the weights, such as {odd[0]}, do not fit the network; {_MEND}")
    return found
