"""Backend `transformers`: object detection models of Hugging Face, from a folder or by their name on the hub.

Only safetensors are read, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._errors import ModelError, first_line
from ..detector_types import DetectOptions, Instances, ModelInfo, Prepared
from ..hashing import file_digest

IMPORTS = ("torchvision.ops", "safetensors.torch", "transformers.modeling_utils")
_FILES = ("*.json", "*.safetensors", "*.txt")


def describe(options: DetectOptions) -> ModelInfo:
    """The model's facts, as its folder tells them. One of the hub is fetched if it is not there yet."""
    folder = _folder(options)
    config = _config(folder)
    labels = _labels(config, folder)
    files = sorted(path for kind in _FILES for path in folder.glob(kind))
    digests = {path.name: file_digest(path) for path in files}
    version = options.model.partition("@")[2] if options.model else ""
    return ModelInfo(
        name=(options.model or folder.name).partition("@")[0].rpartition("/")[2],
        version=version or hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:8],
        labels=labels,
        first_label_id=0,
        digests=digests,
        declared={
            "precision": "float32", "score_threshold": 0.3, "nms_iou": None, "max_instances": 300, "classes": None
        },
        sources=("model",),
    )  # fmt: skip


def load(options: DetectOptions) -> Transformers:
    """The network on its device, with one torch thread. Raises ModelError."""
    info = describe(options)
    return Transformers(_folder(options), info, info.resolved(options), options)


class Transformers:
    """A loaded model. A batch holds pictures of one size, so that nothing is padded."""

    first_label_id = 0

    def __init__(self, folder: Path, info: ModelInfo, settings: dict[str, Any], options: DetectOptions) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForObjectDetection
        from transformers.utils import logging

        from .._device import find_batch_size, find_device

        torch.set_num_threads(1)
        logging.disable_progress_bar()
        self.labels, self._name, self._settings = info.labels, f"{info.name}@{info.version}", settings
        self._device = torch.device(find_device(options.device))
        try:
            self._processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            network: Any = AutoModelForObjectDetection.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
        except Exception as error:  # of a configuration or weights from outside
            raise ModelError(f"model {folder}: transformers cannot load it: {first_line(error)}") from None
        self._network = network.eval().to(self._device)
        self.batch_size = find_batch_size(options.batch_size, self._device.type)
        self._precision = torch.bfloat16 if settings["precision"] == "bfloat16" else None
        classes = settings["classes"]
        self._classes = None if classes is None else [self.labels.index(name) for name in classes]

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture as it is: the model's own processor resizes it."""
        width, height = picture.size
        pixels = np.array(picture)
        return Prepared(pixels=pixels, width_px=width, height_px=height, scale_x=1.0, scale_y=1.0, left=0.0, top=0.0)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """What is in each picture of a batch of equal sizes. Raises ModelError for values that are no numbers."""
        import torch

        given = self._processor(images=[one.pixels for one in batch], return_tensors="pt").to(self._device)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._precision, enabled=self._precision is not None),
        ):
            output = self._network(**given)
        if not all(bool(torch.isfinite(values).all()) for values in (output.logits, output.pred_boxes)):
            raise ModelError(f"model {self._name} gave values that are no numbers; look at its weights")
        found = self._processor.post_process_object_detection(
            output,
            threshold=self._settings["score_threshold"],
            target_sizes=[(one.height_px, one.width_px) for one in batch],
        )
        return [self._instances(one, prepared) for one, prepared in zip(found, batch, strict=True)]

    def _instances(self, found: dict[str, Any], prepared: Prepared) -> Instances:
        import torch
        from torchvision.ops import batched_nms

        boxes, scores, labels = (found[name].float().cpu() for name in ("boxes", "scores", "labels"))
        size = torch.tensor([prepared.width_px, prepared.height_px] * 2)
        boxes = torch.minimum(boxes.clamp(min=0.0), size)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        if self._classes is not None:
            kept &= torch.isin(labels, torch.tensor(self._classes, dtype=labels.dtype))
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if self._settings["nms_iou"] is not None:
            order = batched_nms(boxes, scores, labels, self._settings["nms_iou"])
        else:
            order = scores.argsort(descending=True, stable=True)
        order = order[: self._settings["max_instances"]]
        return Instances(
            boxes=boxes[order].double().numpy(),
            scores=scores[order].double().numpy(),
            label_ids=labels[order].long().numpy(),
        )


def _folder(options: DetectOptions) -> Path:
    """The model's folder: the one that `weights` names, or where the hub's client keeps that of `model`."""
    if find_spec("transformers") is None:
        raise ModelError("backend 'transformers' wants transformers: pip install 'visionlake[transformers]'")
    if (options.weights is None) == (options.model is None):
        raise ModelError("backend 'transformers' wants weights, a model's folder, or model, its name on the hub")
    if options.weights is not None:
        folder = Path(options.weights)
        if not folder.is_dir():
            raise ModelError(f"weights {folder}: there is no such folder")
        return folder
    from huggingface_hub import snapshot_download

    name, _, revision = str(options.model).partition("@")
    wanted = {"repo_id": name, "revision": revision or None, "allow_patterns": [*_FILES]}
    try:
        try:
            return Path(snapshot_download(**wanted, local_files_only=True))
        except FileNotFoundError:  # as the client says of what it has not fetched yet
            return Path(snapshot_download(**wanted))
    except Exception as error:  # of the network, the hub, the disk
        raise ModelError(
            f"model {options.model!r} cannot be fetched ({first_line(error)}); fetch its {', '.join(_FILES)} elsewhere "
            "and name their folder as weights"
        ) from None


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"model {folder}: {path.name} cannot be read: {first_line(error)}") from None
    if "auto_map" in config:
        raise ModelError(f"model {folder} comes with code of its own (auto_map), which is not run")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model {folder} has no safetensors; convert it with save_pretrained(..., safe_serialization)")
    return config


def _labels(config: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """Labels by their number; numbers that are left out have none."""
    try:
        names = {int(number): str(name) for number, name in config["id2label"].items()}
        return tuple(names.get(number, f"unnamed {number}") for number in range(max(names) + 1))
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"model {folder}: config.json has no id2label that can be read: {error!r}") from None
