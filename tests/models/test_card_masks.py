"""Masks of networks with a card: over boxes, over the input, and from prototypes, as archive and as ONNX file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from toy_networks import SIDE, card_text, changed, detect, save, save_onnx

from visionlake.udfs._errors import ModelError
from visionlake.udfs.detector_types import DetectOptions
from visionlake.udfs.rle import decode_mask

BOXES = torch.tensor([[8.0, 8, 40, 24], [0, 0, 64, 64], [32, 32, 64, 64]])
LETTERBOX = 'mode = "letterbox"\nplacement = "center"'


class Masked(nn.Module):
    """Three objects as bright as the picture, each on in the left half of what its mask lies over."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        bright = pictures.mean(dim=(1, 2, 3))[:, None] / 255
        none = 0 * bright[..., None, None]  # of each picture
        left = torch.cat([torch.ones(16, 8), -torch.ones(16, 8)], dim=1)
        found = (
            BOXES + none[..., 0],
            bright * torch.tensor([0.9, 0.8, 0.7]),
            torch.tensor([0, 1, 2]) + 0 * bright.long(),
        )
        if self.kind == "box":
            return (*found, (left > 0).float().expand(3, 16, 16) + none)
        if self.kind == "input":
            return (*found, left.expand(3, 16, 16) + none)
        factors = torch.tensor([[1.0, 0.0], [0.5, 0.0], [-1.0, 0.0]])
        return (*found, factors + none[..., 0], torch.stack([left, torch.zeros(16, 16)]) + none)


def options_of(kind: str, folder: Path, saved: Callable[..., DetectOptions] = save, resize: str = "") -> DetectOptions:
    head = f'kind = "boxes_scores_labels"\nmasks = "{kind}"\nscore_threshold = 0.3'
    return changed(saved(Masked(kind), folder, card_text(head, resize=resize)), task="instance")


def bounds(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95  # what is pasted has round corners
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("box", [[8, 8, 24, 24], [0, 0, 32, 64], [32, 32, 48, 64]]),
        ("input", [[0, 0, 32, 64]] * 3),
        ("prototypes", [[8, 8, 32, 24], [0, 0, 32, 64], [32, 32, 64, 64]]),  # the last one is on at the right
    ],
)
def test_masks_lie_where_they_are_said_to(kind: str, expected: list[list[int]], tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    for options in (options_of(kind, tmp_path), options_of(kind, tmp_path / "onnx", save_onnx)):
        (found,) = detect(options, Image.new("RGB", (SIDE, SIDE), "white"))
        assert found.masks is not None
        assert [bounds(decode_mask(mask.rle)) for mask in found.masks] == expected
        assert found.boxes.tolist() == expected
        (boxes,) = detect(changed(options, task="detection"), Image.new("RGB", (SIDE, SIDE), "white"))
        assert boxes.masks is None and boxes.boxes.tolist() == BOXES.tolist()


@pytest.mark.parametrize("kind", ["box", "input", "prototypes"])
def test_what_lies_beside_a_letterbox_is_no_part_of_them(kind: str, tmp_path: Path) -> None:
    options = options_of(kind, tmp_path, resize=LETTERBOX)
    (found,) = detect(changed(options, max_instances=2), Image.new("RGB", (256, 128), "white"))
    assert found.masks is not None
    small, whole = (bounds(decode_mask(mask.rle)) for mask in found.masks)
    assert whole == [0, 0, 128, 128]  # the left half of a picture that fills rows 16 to 48 of the input
    assert small == {"box": [32, 0, 96, 32], "input": [0, 0, 128, 128], "prototypes": [32, 0, 128, 32]}[kind]


def test_classes_and_their_number_are_chosen_with_their_masks(tmp_path: Path) -> None:
    options = options_of("box", tmp_path)
    (found,) = detect(changed(options, classes=("cow",)), Image.new("RGB", (SIDE, SIDE), "white"))
    assert found.masks is not None and [mask.box for mask in found.masks] == [(32.0, 32.0, 48.0, 64.0)]


def test_other_masks_than_the_card_says_are_an_error(tmp_path: Path) -> None:
    options = options_of("prototypes", tmp_path)
    card = tmp_path / "toy.toml"
    card.write_text(card.read_text().replace('"prototypes"', '"input"'))
    with pytest.raises(ModelError, match="gave something else than the boxes"):
        detect(options, Image.new("RGB", (SIDE, SIDE), "white"))
    text = card.read_text().replace('kind = "boxes_scores_labels"', 'kind = "detr"')
    card.write_text(text.replace('"input"', '"box"'))
    with pytest.raises(ModelError, match="masks = 'box': allowed with kind = 'detr' is 'input'"):
        detect(options, Image.new("RGB", (SIDE, SIDE), "white"))
