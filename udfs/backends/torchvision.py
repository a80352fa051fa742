"""Backend `torchvision`: its detection models by the name of their builder, with its weights or a file of yours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .._errors import ModelError, first_line
from .._weights import SUFFIXES, check_weights, read_weights
from ..detector_types import DetectOptions, Instances, ModelInfo, Prepared
from ..hashing import file_digest

if TYPE_CHECKING:
    import torch
    from torchvision.models import WeightsEnum

IMPORTS = ("torchvision.models.detection", "safetensors.torch")
_MOST = 10_000  # boxes that a model may put out, before classes are chosen


def describe(options: DetectOptions) -> ModelInfo:
    """The model's facts. Weights of torchvision's own are fetched if they are not there yet. Raises ModelError."""
    name, labels = _builder(options), options.labels
    if _is_file(options):
        path = check_weights(Path(str(options.weights)))
        if labels is None:
            raise ModelError(f"weights {path} of your own want labels, names in the order of the network's outputs")
        version = path.stem
    else:
        entry = _entry(name, options)
        path, version = _fetched(entry), entry.name
        if labels is not None:
            raise ModelError(f"{name} with the weights {entry.name} has labels of its own; leave labels out")
        labels = tuple(entry.meta["categories"][1:])
    return ModelInfo(
        name=name,
        version=version,
        labels=labels,
        first_label_id=1,  # 0 is the background
        digests={"weights": file_digest(path), "labels": "\n".join(labels)},
        declared={
            "precision": "float32", "score_threshold": 0.3, "nms_iou": 0.5, "max_instances": 100, "classes": None
        },
        sources=("model", "labels"),
    )  # fmt: skip


def load(options: DetectOptions) -> Torchvision:
    """The network on its device, with one torch thread. Raises ModelError."""
    info = describe(options)
    path = Path(str(options.weights)) if _is_file(options) else _fetched(_entry(_builder(options), options))
    return Torchvision(path, info, info.resolved(options), options)


class Torchvision:
    """A loaded model. A batch holds pictures of one size: torchvision pads others, which changes what it finds."""

    first_label_id = 1

    def __init__(self, path: Path, info: ModelInfo, settings: dict[str, Any], options: DetectOptions) -> None:
        import torch
        from torchvision.models import get_model

        from .._device import find_batch_size, find_device

        torch.set_num_threads(1)
        self.labels, self._name = info.labels, f"{info.name}@{info.version}"
        network: Any = get_model(info.name, weights=None, weights_backbone=None, num_classes=len(info.labels) + 1)
        try:
            network.load_state_dict(read_weights(path))
        except RuntimeError as error:
            wrong = str(error).splitlines()[1:3] or [first_line(error)]
            raise ModelError(
                f"weights {path} do not fit {info.name} with {len(info.labels)} labels: "
                f"{'; '.join(line.strip() for line in wrong)}"
            ) from None
        chooser = getattr(network, "roi_heads", network)
        chooser.score_thresh, chooser.nms_thresh = settings["score_threshold"], settings["nms_iou"]
        chooser.detections_per_img = _MOST
        head = network.roi_heads.box_predictor if hasattr(network, "roi_heads") else network.head
        head.register_forward_hook(self._check_numbers)
        self._device = torch.device(find_device(options.device))
        self._network = network.eval().to(self._device, memory_format=torch.channels_last)
        self.batch_size = find_batch_size(options.batch_size, self._device.type)
        self._precision = torch.bfloat16 if settings["precision"] == "bfloat16" else None
        self._max_instances = settings["max_instances"]
        classes = settings["classes"]
        self._classes = None if classes is None else [self.labels.index(name) + 1 for name in classes]

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture as it is: the model has its own way to resize."""
        width, height = picture.size
        pixels = np.asarray(picture)
        return Prepared(pixels=pixels, width_px=width, height_px=height, scale_x=1.0, scale_y=1.0, left=0.0, top=0.0)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """What is in each picture of a batch of equal sizes."""
        import torch

        stacked = torch.from_numpy(np.stack([prepared.pixels for prepared in batch])).to(self._device)
        pictures = stacked.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last) / 255
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._precision, enabled=self._precision is not None),
        ):
            found = self._network([*pictures])
        return [self._instances({name: value.cpu() for name, value in one.items()}) for one in found]

    def _instances(self, found: dict[str, torch.Tensor]) -> Instances:
        boxes, scores, labels = (found[name].numpy() for name in ("boxes", "scores", "labels"))
        kept = np.isin(labels, self._classes) if self._classes is not None else np.ones(len(labels), bool)
        kept &= (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        order = np.flatnonzero(kept)
        order = order[np.argsort(-scores[order], kind="stable")][: self._max_instances]
        return Instances(
            boxes=boxes[order].astype(np.float64), scores=scores[order].astype(np.float64), label_ids=labels[order]
        )

    def _check_numbers(self, module: Any, given: Any, found: Any) -> None:
        """A hook on the head: what is no number is above no threshold, and would go unseen."""
        import torch

        values = found.values() if isinstance(found, dict) else found
        if not all(bool(torch.isfinite(value).all()) for value in values):
            raise ModelError(f"model {self._name} gave values that are no numbers; look at its weights")


def _builder(options: DetectOptions) -> str:
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models.detection)
    if options.model not in names:
        given = "wants model, the name of a builder" if options.model is None else f"knows no model {options.model!r}"
        raise ModelError(f"backend 'torchvision' {given}; there are: {', '.join(names)}")
    return options.model


def _is_file(options: DetectOptions) -> bool:
    return options.weights is not None and Path(options.weights).suffix in SUFFIXES


def _entry(name: str, options: DetectOptions) -> WeightsEnum:
    """Weights of torchvision's own by their name; without one its default."""
    from torchvision.models import get_model_weights

    there = get_model_weights(name)
    wanted = Path(options.weights).name if options.weights else "DEFAULT"
    if wanted not in there.__members__:
        raise ModelError(
            f"weights {options.weights!r}: {name} has {', '.join(there.__members__)}; or give a file that ends in "
            f"{', '.join(SUFFIXES)}"
        )
    return there[wanted]


def _fetched(entry: WeightsEnum) -> Path:
    """Where the file lies, once it is there. Raises ModelError that says what to fetch and where to put it."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / entry.url.rpartition("/")[2]
    if not path.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, str(path), path.stem.rpartition("-")[2], progress=False)
        except Exception as error:  # of the network, the disk, or a wrong digest
            raise ModelError(
                f"weights {entry.name} cannot be fetched ({first_line(error)}); put {entry.url} at {path}"
            ) from None
    return path
