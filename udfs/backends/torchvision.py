"""Backend `torchvision`: its detection and segmentation models by the name of their builder.

Weights are a file of yours, or torchvision's own by their name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import ModelError, first_line
from .._weights import SUFFIXES, check_weights
from ..detector_types import DetectOptions, Detector, ModelInfo, Task
from ..hashing import file_digest

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

IMPORTS = ("torchvision.models.detection", "torchvision.models.segmentation", "safetensors.torch")
_INSTANCES = {"precision": "float32", "score_threshold": 0.3, "nms_iou": 0.5, "max_instances": 100, "classes": None}
_REGIONS = {"precision": "float32", "classes": None}


def describe(options: DetectOptions) -> ModelInfo:
    """The model's facts. Weights of torchvision's own are fetched if they are not there yet. Raises ModelError."""
    name, tasks = _builder(options)
    labels = options.labels
    if _is_file(options):
        path = check_weights(Path(str(options.weights)))
        if labels is None:
            raise ModelError(f"weights {path} of your own want labels, names in the order of the network's outputs")
        version, source = path.stem, None
    else:
        entry = _entry(name, options)
        path, version, source = _fetched(entry), entry.name, entry.url
        if labels is not None:
            raise ModelError(f"{name} with the weights {entry.name} has labels of its own; leave labels out")
        labels = tuple(entry.meta["categories"][1:])
    return ModelInfo(
        name=name,
        version=version,
        labels=labels,
        first_label_id=1,  # 0 is the background
        digests={"weights": file_digest(path), "labels": "\n".join(labels)},
        declared=_REGIONS if tasks == ("semantic",) else _INSTANCES,
        sources=("model", "labels"),
        tasks=tasks,
        source=source,
    )


def load(options: DetectOptions) -> Detector:
    """The network on its device, with one torch thread. Raises ModelError."""
    from .._torchvision import Objects, Surfaces

    info = describe(options)
    name, tasks = _builder(options)
    path = Path(str(options.weights)) if _is_file(options) else _fetched(_entry(name, options))
    kind = Surfaces if tasks == ("semantic",) else Objects
    return kind(path, info, info.resolved(options), options)


def _builder(options: DetectOptions) -> tuple[str, tuple[Task, ...]]:
    """The name of the builder, and what its models can do."""
    from torchvision.models import detection, list_models, segmentation

    objects, surfaces = list_models(module=detection), list_models(module=segmentation)
    name = options.model
    if name in surfaces:
        return name, ("semantic",)
    if name in objects:
        return name, ("detection", "instance") if name.startswith("maskrcnn") else ("detection",)
    given = "wants model, the name of a builder" if name is None else f"knows no model {name!r}"
    raise ModelError(f"backend 'torchvision' {given}; there are: {', '.join([*objects, *surfaces])}")


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
