"""Backend `transformers`: models of Hugging Face, from a folder or by their name on the hub.

Object detection, zero-shot detection from text, and segmentation. Only safetensors are read, and no code that comes
with a model is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .._errors import ModelError, first_line
from .._weights import check_whole
from ..detector_types import DetectOptions, Detector, ModelInfo, Task
from ..hashing import file_digest

IMPORTS = ("torchvision.ops", "safetensors.torch", "transformers.modeling_utils")
_FILES = ("*.json", "*.safetensors", "*.txt")
_PROMPTED = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2")
_LICENCE = re.compile(
    r"^licen[sc]e:[ \t]*(?:\n[ \t]*-[ \t]*)?[\"']?(?P<name>\w[\w.+-]{0,99})[\"']?[ \t]*$", re.MULTILINE
)
_MAX_README_CHARACTERS = 1 << 20
_REFUSED = ("oneformer", "omdet", "eomt")  # their processors want more, or give pictures in parts
_TASKS: dict[str, tuple[Task, ...]] = {
    "ForObjectDetection": ("detection",),
    "ForUniversalSegmentation": ("instance", "panoptic", "semantic"),
    "ForInstanceSegmentation": ("instance", "panoptic", "semantic"),
    "ForSemanticSegmentation": ("semantic",),
    "DetrForSegmentation": ("instance", "panoptic", "semantic"),
}
"""By the end of the name of the model's class."""


def describe(options: DetectOptions) -> ModelInfo:
    """The model's facts, as its folder tells them. One of the hub is fetched if it is not there yet."""
    folder = _folder(options)
    config = _config(folder)
    tasks, is_prompted = _tasks(config, folder), config.get("model_type") in _PROMPTED
    if is_prompted and not options.prompts:
        raise ModelError(f'model {folder} finds what it is told; set prompts, for example ["forklift", "red car"]')
    labels = options.prompts if is_prompted and options.prompts else _labels(config, folder)
    files = sorted(path for kind in _FILES for path in folder.glob(kind))
    digests = {path.name: file_digest(path) for path in files}
    version = options.model.partition("@")[2] if options.model else ""
    return ModelInfo(
        name=(options.model or folder.name).partition("@")[0].rpartition("/")[2],
        version=version or hashlib.sha256("".join(digests.values()).encode()).hexdigest()[:8],
        labels=labels,
        first_label_id=0,
        digests={**digests, "prompts": "\n".join(labels)} if is_prompted else digests,
        declared=_declared(options, tasks),
        sources=("model", "prompts") if is_prompted else ("model",),
        tasks=tasks,
        registry_version=folder.name if options.model else None,  # the hub's client keeps a folder for each commit
        licence=_licence(folder),
    )


def load(options: DetectOptions) -> Detector:
    """The network on its device, with one torch thread. Raises ModelError."""
    from .. import _transformers, _transformers_masks

    info, folder = describe(options), _folder(options)
    settings = info.resolved(options)
    if settings["task"] != "detection":
        kind = _transformers_masks.Classes if info.tasks == ("semantic",) else _transformers_masks.Queries
    elif "prompts" in info.sources:
        is_grounded = "grounding-dino" in _config(folder)["model_type"]
        kind = _transformers.Grounded if is_grounded else _transformers.Prompted
    else:
        kind = _transformers.Boxes
    return kind(folder, info, settings, options)


def _declared(options: DetectOptions, tasks: tuple[Task, ...]) -> dict[str, Any]:
    """The settings that matter to a task."""
    always = {"precision": "float32", "classes": None}
    if options.task == "semantic" or tasks == ("semantic",):
        return always
    if options.task == "detection":
        return {**always, "score_threshold": 0.3, "nms_iou": None, "max_instances": 300}
    return {**always, "score_threshold": 0.5, "max_instances": 100}


def _tasks(config: dict[str, Any], folder: Path) -> tuple[Task, ...]:
    named = next(iter(config.get("architectures") or ()), "")
    found = next((tasks for ending, tasks in _TASKS.items() if str(named).endswith(ending)), None)
    if found is None or str(config.get("model_type")).startswith(_REFUSED):
        raise ModelError(
            f"model {folder} is a {named or 'model without architectures in config.json'}; allowed are those that end "
            f"in {', '.join(_TASKS)}, but for OneFormer, EoMT and OmDet-Turbo"
        )
    return found


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
    for path in sorted(folder.glob("*.safetensors")):
        check_whole(path)
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


def _licence(folder: Path) -> str | None:
    """What the front matter of the folder's README says; None where there is none."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            begin, *rest = file.read(_MAX_README_CHARACTERS).split("\n---", 1)
    except OSError:
        return None
    found = _LICENCE.search(begin) if begin.startswith("---\n") and rest else None
    return found["name"] if found else None
