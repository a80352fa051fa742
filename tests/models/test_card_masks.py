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


class MaskedQueries(nn.Module):
    """As DETR has it: a query of nothing, the left half, and a part at the right; their boxes are smaller."""

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = torch.tensor([[0.0, 0, 0, 9], [0, 4, 0, 0], [0, 0, 3, 0]])
        boxes = torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.25, 0.5, 0.25, 0.125], [0.6875, 0.5, 0.125, 0.125]])
        masks = torch.full((3, 16, 16), -2.0)
        masks[1, :, :8] = masks[2, 6:10, 8:14] = 2
        none = 0 * pictures.mean(dim=(1, 2, 3))[:, None, None]  # of each picture
        return {"logits": logits + none, "pred_boxes": boxes + none, "pred_masks": masks + none[..., None]}


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


@pytest.mark.parametrize("saved", [save, save_onnx])
@pytest.mark.parametrize(
    ("resize", "size", "masks", "boxes"),
    [
        ("", (128, 32), [[0, 0, 64, 32], [64, 12, 112, 20]], [[16, 14, 48, 18], [80, 14, 96, 18]]),
        (LETTERBOX, (256, 128), [[0, 0, 128, 128], [128, 32, 224, 96]], [[32, 48, 96, 80], [160, 48, 192, 80]]),
    ],
    ids=["stretch", "letterbox"],
)
def test_masks_of_queries_lie_where_they_are_said_to(
    saved: Callable[..., DetectOptions],
    resize: str,
    size: tuple[int, int],
    masks: list[list[int]],
    boxes: list[list[int]],
    tmp_path: Path,
) -> None:
    head = 'kind = "detr"\nbackground_id = 3\nmasks = "input"\nscore_threshold = 0.3'
    options, image = saved(MaskedQueries(), tmp_path, card_text(head, resize=resize)), Image.new("RGB", size, "white")
    (found,), (boxed,) = (detect(changed(options, task=task), image) for task in ("instance", "detection"))
    assert found.masks is not None and boxed.masks is None
    decoded = [decode_mask(mask.rle) for mask in found.masks]
    assert [mask.shape for mask in decoded] == [size[::-1]] * 2
    assert [bounds(mask) for mask in decoded] == found.boxes.tolist() == masks
    assert boxed.boxes.tolist() == boxes
    assert found.label_ids.tolist() == boxed.label_ids.tolist() == [1, 2]
    expected = [np.exp(logit) / (np.exp(logit) + 3) for logit in (4, 3)]
    np.testing.assert_allclose([found.scores, boxed.scores], [expected] * 2, rtol=1e-6)


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
