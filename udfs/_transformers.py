"""Models of Hugging Face that put out boxes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import batched_nms
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)
from transformers.utils import logging

from ._device import find_batch_size, find_device, find_dtype
from ._errors import ModelError, first_line
from .detector_types import DetectOptions, Instances, ModelInfo, Prepared

_BOXES = re.compile(r"(?:^|\.)(?:\w*bbox\w*|box_head)(?:\.\d+)?$")
_SAFELY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class Network(ABC):
    """A loaded model. A batch holds pictures of one size, so that no picture is padded because of another."""

    first_label_id = 0
    makers: tuple[Any, Any] = (AutoImageProcessor, AutoModelForObjectDetection)

    def __init__(self, folder: Path, info: ModelInfo, settings: dict[str, Any], options: DetectOptions) -> None:
        torch.set_num_threads(1)
        logging.disable_progress_bar()
        self.labels, self.settings, self._name = info.labels, settings, f"{info.name}@{info.version}"
        self.device = torch.device(find_device(options.device))
        make_processor, make_network = self.makers
        try:
            self.processor: Any = make_processor.from_pretrained(folder, **_SAFELY)
            found: Any = make_network.from_pretrained(
                folder, **_SAFELY, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # of a configuration or weights from outside
            raise ModelError(f"model {folder}: transformers cannot load it: {first_line(error)}") from None
        network, loaded = found
        if wrong := sorted(map(str, [*loaded["missing_keys"], *loaded["mismatched_keys"], *loaded["error_msgs"]])):
            raise ModelError(
                f"model {folder}: its weights do not fit its config.json: {len(wrong)} that it needs are missing or of "
                f"another shape, such as {wrong[0]}"
            )
        if getattr(self.processor, "do_center_crop", False):
            self.processor.do_center_crop = False  # what lies beside would be labelled unseen
        self._network = network.eval().to(self.device, memory_format=torch.channels_last)
        self.device_type = self.device.type
        self.batch_size = find_batch_size(options.batch_size, self.device_type)
        self._precision = find_dtype(settings["precision"], self.device.type)
        if self._precision is not None:
            _keep_boxes_exact(self._network, self.device.type)
        self._stretched = _stretched_px(self.processor)
        classes = settings["classes"]
        self.classes = None if classes is None else [self.labels.index(name) for name in classes]

    def prepare(self, picture: Image.Image) -> Prepared:
        """The picture as it is: the model's own processor resizes it."""
        prepared = Prepared.unchanged(picture)
        return prepared if self._stretched is None else replace(prepared, input_px=self._stretched)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        """What is in each picture of a batch of equal sizes. Raises ModelError for values that are no numbers."""
        with torch.inference_mode():
            given = self._given([one.pixels for one in batch]).to(self.device)
            with torch.autocast(self.device.type, dtype=self._precision, enabled=self._precision is not None):
                output = self._network(**given)
            return self._found(output, given, batch)

    def _given(self, pictures: list[Any]) -> Any:
        # A picture of a few rows would be taken for one whose first axis is that of the colours.
        return self.processor(images=pictures, return_tensors="pt", input_data_format="channels_last")

    @abstractmethod
    def _found(self, output: Any, given: Any, batch: Sequence[Prepared]) -> list[Instances]:
        """What the network's output for `given`, the batch as the processor has made it, means."""

    def check_numbers(self, *found: torch.Tensor) -> None:
        """Raise ModelError for what is no number: it would be above no threshold, and go unseen."""
        if not all(bool(torch.isfinite(values).all()) for values in found):
            raise ModelError(f"model {self._name} gave values that are no numbers; look at its weights")


class Boxes(Network):
    """DETR and those that follow it."""

    def _found(self, output: Any, given: Any, batch: Sequence[Prepared]) -> list[Instances]:
        self.check_numbers(output.logits, output.pred_boxes)
        found = self.processor.post_process_object_detection(
            output, threshold=self.settings["score_threshold"], target_sizes=_sizes(batch)
        )
        return [self._instances(one, prepared) for one, prepared in zip(found, batch, strict=True)]

    def _instances(self, found: dict[str, Any], prepared: Prepared) -> Instances:
        boxes, scores, labels = (found[name].float().cpu() for name in ("boxes", "scores", "labels"))
        size = torch.tensor([prepared.width_px, prepared.height_px] * 2)
        boxes = torch.minimum(boxes.clamp(min=0.0), size)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        if self.classes is not None:
            kept &= torch.isin(labels, torch.tensor(self.classes, dtype=labels.dtype))
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if self.settings["nms_iou"] is not None:
            order = batched_nms(boxes, scores, labels, self.settings["nms_iou"])
        else:
            order = scores.argsort(descending=True, stable=True)
        order = order[: self.settings["max_instances"]]
        return Instances(
            boxes=boxes[order].double().numpy(),
            scores=scores[order].double().numpy(),
            label_ids=labels[order].long().numpy(),
        )


class Prompted(Boxes):
    """Models that score every box against every prompt (OWL-ViT: Minderer et al., arXiv:2205.06230; OWLv2)."""

    makers = (AutoProcessor, AutoModelForZeroShotObjectDetection)

    def _given(self, pictures: list[Any]) -> Any:
        text = [[*self.labels]] * len(pictures)
        return self.processor(text=text, images=pictures, return_tensors="pt", input_data_format="channels_last")

    def _found(self, output: Any, given: Any, batch: Sequence[Prepared]) -> list[Instances]:
        self.check_numbers(output.logits, output.pred_boxes)
        found = self.processor.post_process_grounded_object_detection(
            output, threshold=self.settings["score_threshold"], target_sizes=torch.tensor(_sizes(batch))
        )
        return [self._instances(one, prepared) for one, prepared in zip(found, batch, strict=True)]


class Grounded(Boxes):
    """Models that score every box against every token of one text (Grounding DINO: Liu et al., arXiv:2303.05499).

    All prompts make one text, "forklift. red car.". A box bears the prompt that the token with the highest score lies
    in, and that score: phrases put together from tokens need not be prompts.
    """

    makers = (AutoProcessor, AutoModelForZeroShotObjectDetection)

    def __init__(self, folder: Path, info: ModelInfo, settings: dict[str, Any], options: DetectOptions) -> None:
        super().__init__(folder, info, settings, options)
        prompts = [label.lower().strip().rstrip(".") for label in self.labels]
        self._text = " ".join(f"{prompt}." for prompt in prompts)
        tokens = self.processor.tokenizer(self._text, return_offsets_mapping=True)["offset_mapping"]
        most = self._network.config.max_text_len
        if len(tokens) > most:
            raise ModelError(f"prompts: together they have {len(tokens)} tokens; the model takes {most}: use fewer")
        begins = np.cumsum([0, *(len(prompt) + 2 for prompt in prompts[:-1])])
        places = zip(prompts, begins, strict=True)
        belongs = [[first <= begin < end <= first + len(prompt) for begin, end in tokens] for prompt, first in places]
        if unread := [label for label, its in zip(self.labels, belongs, strict=True) if not any(its)]:
            raise ModelError(f"prompts: the model's tokens leave nothing of {', '.join(map(repr, unread))}")
        self._belongs = torch.tensor(belongs, device=self.device)

    def _given(self, pictures: list[Any]) -> Any:
        text = [self._text] * len(pictures)
        return self.processor(text=text, images=pictures, return_tensors="pt", input_data_format="channels_last")

    def _found(self, output: Any, given: Any, batch: Sequence[Prepared]) -> list[Instances]:
        tokens = output.logits[..., : self._belongs.shape[1]]  # those after the text are minus infinity
        scores = tokens.float().sigmoid()
        self.check_numbers(scores, output.pred_boxes)
        best, labels = torch.stack([scores[..., its].amax(dim=-1) for its in self._belongs], dim=-1).max(dim=-1)
        found = []
        for place, one in enumerate(batch):
            kept = best[place] > self.settings["score_threshold"]
            centre, half = output.pred_boxes[place, kept].float().split(2, dim=-1)
            size = torch.tensor([one.width_px, one.height_px], device=self.device)
            boxes = torch.cat([centre - half / 2, centre + half / 2], dim=-1) * size.repeat(2)
            values = {"boxes": boxes, "scores": best[place, kept], "labels": labels[place, kept]}
            found.append(self._instances(values, one))
        return found


def _stretched_px(processor: Any) -> tuple[int, int] | None:
    """Height and width that the processor brings pictures of every size to; None where these depend on the picture."""
    own = getattr(processor, "image_processor", processor)
    size = getattr(own, "size", None) or {}
    height, width = (
        size.get(name) if hasattr(size, "get") else getattr(size, name, None) for name in ("height", "width")
    )
    is_plain = getattr(own, "do_resize", False) and not getattr(own, "do_pad", False)
    return (height, width) if is_plain and height and width else None


def _keep_boxes_exact(network: torch.nn.Module, device_type: str) -> None:
    """Let what puts out boxes compute in 32 bits: edges, as shares of a picture, would be rounded to several pixels."""
    for name, module in network.named_modules():
        if _BOXES.search(name) and not isinstance(module, torch.nn.ModuleList):
            module.forward = partial(_exactly, module.forward, device_type)


def _exactly(forward: Callable[..., Any], device_type: str, *given: Any, **named: Any) -> Any:
    with torch.autocast(device_type, enabled=False):
        return forward(*(one.float() if isinstance(one, torch.Tensor) else one for one in given), **named)


def _sizes(batch: Sequence[Prepared]) -> list[tuple[int, int]]:
    return [(one.height_px, one.width_px) for one in batch]
