"""Small networks with cards, as archives and as ONNX files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert

from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions, Instances
from visionlake.udfs.scenes import render_scene
from visionlake.udfs.views import load_detector

SIDE, STRIDES, LABELS = 64, (8, 16), ("ant", "bee", "cow")


class Grid(nn.Module):
    """A YOLOX head on nothing but pooled pixels: what it finds depends on the picture, and on all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(3, 5 + len(LABELS), stride, stride) for stride in STRIDES)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        found = []
        for head in self.heads:
            raw = head(pictures / 255 - 0.5).flatten(2).permute(0, 2, 1)
            found.append(torch.cat([raw[..., :4], (6 * raw[..., 4:]).sigmoid()], dim=-1))
        return torch.cat(found, dim=1)


class Plain(nn.Module):
    """Boxes, scores and labels, padded; label 0 is the background."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bright = pictures.mean(dim=(1, 2, 3), keepdim=False)[:, None]
        boxes = torch.tensor([[8.0, 8, 40, 24], [9, 8, 40, 24], [0, 0, 64, 64], [0, 0, 0, 0]])
        scores = bright * torch.tensor([0.9, 0.8, 0.7, 0.0])
        labels = torch.tensor([1, 1, 3, 0])
        count = pictures.shape[0]
        return boxes.expand(count, 4, 4) + 0 * bright[..., None], scores, labels.expand(count, 4)


class Queries(nn.Module):
    """Logits and boxes of six queries, as DETR has them; the last column means nothing is there."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.boxes = nn.Linear(48, 6 * (len(LABELS) + 1)), nn.Linear(48, 24)

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = nn.functional.adaptive_avg_pool2d(pictures / 255 - 0.5, 4).flatten(1)
        logits, boxes = self.logits(20 * seen), self.boxes(20 * seen)
        return {"logits": logits.reshape(-1, 6, len(LABELS) + 1), "pred_boxes": boxes.reshape(-1, 6, 4).sigmoid()}


class Masks(nn.Module):
    """Four objects, and masks of them by what the picture looks like, as a card's `masks` says; "detr" is its head."""

    def __init__(self, masks: str) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        plane = 40 * nn.functional.avg_pool2d(pictures.mean(dim=1, keepdim=True) / 255 - 0.5, 4)
        grids = torch.cat([plane, -plane, plane.flip(-1), plane.flip(-2)], dim=1)
        logits = 8 * grids[..., :15].unflatten(-1, (len(LABELS), 5)).mean(dim=(2, 4))
        boxes = torch.tensor([[8.0, 8, 40, 32], [16, 4, 60, 60], [30, 30, 60, 60], [4, 30, 30, 60]])
        boxes = boxes + plane[:, 0, 0, :4, None]
        if self.masks == "detr":
            centre, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
            return logits, torch.cat([centre, sides], dim=-1) / SIDE, grids
        scores, labels = logits.sigmoid().max(dim=-1)
        if self.masks == "prototypes":
            return boxes, scores, labels, logits.tanh(), grids[:, :3]
        return boxes, scores, labels, grids.sigmoid() if self.masks == "box" else grids


class DefaultBoxes(nn.Module):
    """Offsets and logits of the default boxes on two maps, as SSD has them; column 0 means nothing is there."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(3, 4 * (5 + len(LABELS)), stride, stride) for stride in STRIDES)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        raw = [head(pictures / 255 - 0.5).permute(0, 2, 3, 1).flatten(1) for head in self.heads]
        found = torch.cat(raw, dim=1).unflatten(1, (-1, 5 + len(LABELS)))
        return 4 * found[..., :4], 6 * found[..., 4:]


def default_corners() -> torch.Tensor:
    """Corners of those boxes in input pixels (N x 4), by torchvision."""
    maps = [torch.zeros(1, 1, SIDE // stride, SIDE // stride) for stride in STRIDES]
    (corners,) = DefaultBoxGenerator([[2], [2]])(ImageList(torch.zeros(1, 3, SIDE, SIDE), [(SIDE, SIDE)]), maps)
    return corners


def write_priors(corners: torch.Tensor, path: Path, *, side: int = SIDE) -> None:
    np.savetxt(path, box_convert(corners, "xyxy", "cxcywh").numpy() / side)


def card_text(given: str, **changes: str) -> str:
    values = {
        "input": f"width_px = {SIDE}\nheight_px = {SIDE}\nscale = 1.0\n",
        "resize": "",
        "head": f"{given}\nlabels = {[*LABELS]}\n",
    } | changes
    sections = "".join(f"[{name}]\n{text}\n" for name, text in values.items())
    return f'name = "toy"\nversion = "1"\n{sections}'


def save(module: nn.Module, folder: Path, card: str) -> DetectOptions:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module.eval(), (torch.rand(2, 3, SIDE, SIDE),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "toy.pt2")
    (folder / "toy.toml").write_text(card)
    return DetectOptions(backend="exported", weights=str(folder / "toy.pt2"), device="cpu")


def save_fixed(module: nn.Module, folder: Path, card: str, *, height: int = SIDE, width: int = SIDE) -> DetectOptions:
    torch.export.save(torch.export.export(module.eval(), (torch.rand(1, 3, height, width),)), folder / "toy.pt2")
    (folder / "toy.toml").write_text(card)
    return DetectOptions(backend="exported", weights=str(folder / "toy.pt2"), device="cpu")


def save_onnx(
    module: nn.Module, folder: Path, card: str, *, batch: int | None = None, external_data: bool = False
) -> DetectOptions:
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1, max=64)},)
    given = (torch.rand(batch or 2, 3, SIDE, SIDE),)
    torch.onnx.export(
        module.eval(), given, folder / "toy.onnx", dynamic_shapes=shapes, external_data=external_data, verbose=False
    )
    (folder / "toy.toml").write_text(card)
    return DetectOptions(backend="onnx", weights=str(folder / "toy.onnx"), device="cpu")


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    made = np.random.default_rng(5)
    return [Image.fromarray(made.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes]


def seen_by(options: DetectOptions, *sizes: tuple[int, int]) -> list[Image.Image]:
    """Pictures of these sizes in which the model finds something; scenes for `builtin`, which knows nothing else."""
    if options.backend != "builtin":
        return pictures(*sizes)
    frames = render_scene(seed=3, index=1, times_s=[0.5 * place for place, _ in enumerate(sizes)])
    return [Image.fromarray(f.pixels).resize((8 * w, 8 * h)) for f, (w, h) in zip(frames, sizes, strict=True)]


def detect(options: DetectOptions, *images: Image.Image, together: bool = True) -> list[Instances]:
    detector = load_detector(find_backend(options.backend), options)
    prepared = [detector.prepare(image) for image in images]
    if not together:
        return [detector.detect([one])[0] for one in prepared]
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, one in enumerate(prepared):
        alike.setdefault(one.bucket, []).append(place)
    found: dict[int, Instances] = {}
    for places in alike.values():
        found |= zip(places, detector.detect([prepared[place] for place in places]), strict=True)
    return [found[place] for place in range(len(prepared))]


def changed(options: DetectOptions, **values: Any) -> DetectOptions:
    return dataclasses.replace(options, **values)
