"""Backend `exported`: what cards say, and what it makes of a network's output."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models import get_model
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from toy_networks import (
    LABELS,
    SIDE,
    STRIDES,
    DefaultBoxes,
    Grid,
    Plain,
    card_text,
    changed,
    default_corners,
    detect,
    pictures,
    save,
    save_fixed,
    save_onnx,
    write_priors,
)

from visionlake.udfs import cards
from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend
from visionlake.udfs.cards import Card, read_card
from visionlake.udfs.detector_types import DetectOptions


def test_missing_files_are_named(tmp_path: Path) -> None:
    def refused(weights: Path | None) -> str:
        options = DetectOptions(backend="exported", weights=weights and str(weights))
        with pytest.raises(ModelError) as caught:
            find_backend("exported").describe(options)
        return str(caught.value)

    path = tmp_path / "a.pt2"
    assert "wants weights" in refused(None)
    assert "no such file" in refused(path)
    path.write_bytes(b"weights of another kind")
    assert "a.pt2 are no torch.export archive" in refused(path)
    with zipfile.ZipFile(path, "w"):
        pass
    assert "a.toml cannot be read" in refused(path)


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    torch.manual_seed(3)
    head = 'kind = "yolox"\nstrides = [8, 16]\nnms_iou = 0.5\nscore_threshold = 0.2'
    sized = f"width_px = {SIDE}\nheight_px = {SIDE}\nscale = 1.0\n"
    network = Grid()
    options = save(network, tmp_path, card_text(head, input=sized))
    free = detect(options, *pictures(*[(40, 30)] * 7))
    torch.export.save(torch.export.export(network, (torch.rand(4, 3, SIDE, SIDE),)), tmp_path / "toy.pt2")
    (tmp_path / "toy.toml").write_text(card_text(head, input=f"{sized}batch = 4"))
    fixed = detect(options, *pictures(*[(40, 30)] * 7))
    assert find_backend("exported").load(changed(options, batch_size=8)).batch_size == 4
    for one, other in zip(free, fixed, strict=True):
        assert np.allclose(one.boxes, other.boxes, atol=1e-3) and len(one.boxes)


def test_a_grid_is_decoded_as_its_paper_says(grid: DetectOptions) -> None:
    """Against plain loops over cells and classes, and suppression by the definition."""
    (image,) = pictures((64, 64))
    assert grid.weights is not None
    raw = (
        torch.export.load(grid.weights)
        .module()(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float())[0]
        .detach()
        .numpy()
    )
    cells = [(x, y, s) for s in STRIDES for y in range(SIDE // s) for x in range(SIDE // s)]
    found = []
    for (x, y, stride), row in zip(cells, raw.astype(float), strict=True):
        centre, size = np.array([row[0] + x, row[1] + y]) * stride, np.exp(row[2:4]) * stride
        for label, score in enumerate(row[4] * row[5:]):
            if score > 0.2:
                found.append((score, label, *(centre - size / 2), *(centre + size / 2)))
    kept: list[tuple[float, ...]] = []
    for candidate in sorted(found, reverse=True):
        if all(other[1] != candidate[1] or iou(other[2:], candidate[2:]) <= 0.5 for other in kept):
            kept.append(candidate)
    (result,) = detect(grid, image)
    assert len(kept) > 3
    assert result.label_ids.tolist() == [one[1] for one in kept]
    np.testing.assert_allclose(result.scores, [one[0] for one in kept], rtol=1e-4)
    np.testing.assert_allclose(result.boxes, np.clip([one[2:] for one in kept], 0, SIDE), rtol=1e-4, atol=1e-3)


def iou(a: Any, b: Any) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_the_background_is_nothing_and_labels_count_from_behind_it(plain: DetectOptions) -> None:
    (found,) = detect(plain, Image.new("RGB", (128, 64), (255, 255, 255)))
    assert found.label_ids.tolist() == [10, 10, 12]
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7], rtol=1e-5)
    np.testing.assert_allclose(found.boxes, [[16, 8, 80, 24], [18, 8, 80, 24], [0, 0, 128, 64]])
    (once,) = detect(changed(plain, nms_iou=0.5), Image.new("RGB", (128, 64), (255, 255, 255)))
    assert once.label_ids.tolist() == [10, 12]


def test_queries_are_decoded_as_their_paper_says(queries: DetectOptions) -> None:
    (image,) = pictures((64, 64))
    assert queries.weights is not None
    raw = torch.export.load(queries.weights).module()(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float())
    logits, boxes = (raw[name][0].detach().numpy().astype(float) for name in ("logits", "pred_boxes"))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = sorted(
        ((share[:3].max(), int(share[:3].argmax()), box) for share, box in zip(shares, boxes, strict=True)),
        key=lambda one: -one[0],
    )
    expected = [one for one in expected if one[0] > 0.3]
    (found,) = detect(queries, image)
    assert found.label_ids.tolist() == [label for _, label, _ in expected] and len(expected) > 1
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-4)
    corners = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for _, _, (x, y, w, h) in expected]
    np.testing.assert_allclose(found.boxes, np.clip(np.array(corners) * SIDE, 0, SIDE), rtol=1e-4, atol=1e-3)


def test_offsets_to_default_boxes_are_decoded_as_torchvision_does(offsets: DetectOptions, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network, (image,) = DefaultBoxes(), pictures((64, 64))
    write_priors(default_corners(), tmp_path / "priors.txt")
    with torch.no_grad():
        raw, logits = network(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float())
    boxes = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0)).decode(raw[0], [default_corners()])[:, 0].clamp(0, SIDE)
    scores, label_ids = logits[0].softmax(dim=-1)[:, 1:].max(dim=1)
    best = scores.argsort(descending=True)[: int((scores > 0.4).sum())]
    card = Path(str(offsets.weights)).with_suffix(".toml").read_text()
    for options in (offsets, save_onnx(network, tmp_path, card)):
        (found,) = detect(options, image)
        assert found.label_ids.tolist() == label_ids[best].tolist() and len(best) > 5
        np.testing.assert_allclose(found.scores, scores[best], rtol=1e-4)
        np.testing.assert_allclose(found.boxes, boxes[best], rtol=1e-4, atol=1e-4)


def test_what_comes_out_of_a_network_of_torchvision_makes_the_boxes_that_it_makes(
    ssd: DetectOptions, tmp_path: Path
) -> None:
    """Before suppression: it suppresses boxes once they are cut off at the edges."""
    network: Any = get_model(str(ssd.model), weights=None, weights_backbone=None, num_classes=len(LABELS) + 1).eval()
    network.load_state_dict(load_file(str(ssd.weights)))

    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = network.backbone, network.head

        def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
            found = self.head([*self.backbone(pictures).values()])
            return {"logits": found["cls_logits"], "boxes": found["bbox_regression"]}

    blank = torch.zeros(1, 3, 320, 320)
    (corners,) = network.anchor_generator(ImageList(blank, [(320, 320)]), [*network.backbone(blank).values()])
    write_priors(corners, tmp_path / "priors.txt", side=320)
    head = (
        'kind = "ssd"\nbox_form = "offsets"\npriors_file = "priors.txt"\nbackground_id = 0\nmany_labels = true\n'
        "max_instances = 1000\nscore_threshold = 0.95\nfirst_label_id = 1"
    )
    given = "width_px = 320\nheight_px = 320\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]"
    options = save_fixed(Raw(), tmp_path, card_text(head, input=given), height=320, width=320)
    image = pictures((64, 64))[0].resize((320, 320))
    its_own = changed(ssd, nms_iou=1.0, max_instances=1000, score_threshold=0.95)
    results = *detect(options, image), *detect(its_own, image)
    mine, its = (np.c_[one.boxes, 1000 * one.scores, 1000 * one.label_ids] for one in results)
    away = np.abs(mine[:, None] - its).max(axis=-1)
    assert len(mine) == len(its) > 10 and away.min(axis=0).max() < 0.01 and away.min(axis=1).max() < 0.01


class Given(nn.Module):
    """Puts out the same for every picture."""

    def __init__(self, *values: Any) -> None:
        super().__init__()
        self.values = [torch.tensor(one, dtype=torch.float32)[None] for one in values]

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [one + 0 * pictures.sum() for one in self.values]


@pytest.mark.parametrize(
    ("form", "boxes"),
    [
        ("xyxy", [[0.25, 0.5, 0.75, 1], [0, 0, 0.5, 0.25]]),
        ("cxcywh", [[0.5, 0.75, 0.5, 0.5], [0.25, 0.125, 0.5, 0.25]]),
        ("offsets", [[0.5, 1, np.log(0.5) / 2, np.log(0.5) / 2], [0, 0, 0, np.log(0.5) / 2]]),
    ],
)
def test_shares_of_the_input_and_offsets_become_pixels(tmp_path: Path, form: str, boxes: list[list[float]]) -> None:
    further = "\npriors = [[0.25, 0.25, 1, 1], [0.25, 0.125, 0.5, 0.5]]\nvariances = [0.5, 2.0]" * (form == "offsets")
    head = f'kind = "ssd"\nbox_form = "{form}"\nactivation = "none"{further}'
    card = card_text(head, input=f"width_px = {SIDE}\nheight_px = 32\n")
    options = save_fixed(Given(boxes, [[0.1, 0.9, 0.2], [0.4, 0.5, 0.8]]), tmp_path, card, height=32)
    (found,) = detect(options, Image.new("RGB", (SIDE, 32)))
    np.testing.assert_allclose(found.boxes, [[16, 16, 48, 32], [0, 0, 32, 8]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert found.label_ids.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("said", "columns", "expected"),
    [
        ("background_id = 0", [[5, 1, 2, 0], [0, 0, 2, 1]], np.exp(2) / (2 + np.exp(1) + np.exp(2))),
        ("background_id = 3", [[1, 2, 0, 5], [0, 2, 1, 0]], np.exp(2) / (2 + np.exp(1) + np.exp(2))),
        ('background_id = 0\nactivation = "none"', [[0.7, 0.1, 0.2, 0], [0.1, 0, 0.8, 0.1]], 0.8),
        ('activation = "sigmoid"', [[-1, -2, -9], [0, 2, 1]], 1 / (1 + np.exp(-2))),
        ("score_threshold = 0.5", [[1, 1, 1], [0, 2, 1]], np.exp(2) / (1 + np.exp(1) + np.exp(2))),
    ],
)
def test_scores_of_labels_are_without_the_background(
    tmp_path: Path, said: str, columns: list[list[float]], expected: float
) -> None:
    card = card_text(f'kind = "ssd"\nbox_form = "xyxy"\n{said}')
    (found,) = detect(save_fixed(Given([[0, 0, 1, 1]] * 2, columns), tmp_path, card), *pictures((9, 9)))
    assert found.label_ids.tolist() == [1]
    np.testing.assert_allclose(found.scores, [expected], rtol=1e-5)


PRIORS = "priors = [[0.5, 0.5, 1, 1], [0.5, 0.5, 0.5, 0.5]]"
BOXES, SCORES = [[0, 0, 0, 0]] * 2, [[9, -9, -9], [-9, -9, -9]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((SCORES, BOXES), r"\[\(1, 2, 3\), \(1, 2, 4\)\]; its card promises boxes \(pictures, 2, 4\), then scores"),
        ((BOXES, [[9, -9]] * 2), r"\(1, 2, 2\)\]; .* scores \(pictures, 2, 3\): 3 labels, 2 priors$"),
        ((BOXES[:1], SCORES[:1]), r"\(1, 1, 4\), .*, 2 priors$"),
        ((BOXES, SCORES[:1]), r"\(1, 1, 3\)\]; its card promises"),
        ((BOXES[0], SCORES[0]), r"\[\(1, 4\), \(1, 3\)\]; its card promises"),
        ((BOXES,), "gave list; its card promises boxes"),
        ((BOXES, [[9, -9, -9], [float("nan")] * 3]), "toy@1 gave values that are no numbers"),
        (([[0, 0, float("nan"), 0], [0] * 4], SCORES), "toy@1 gave values that are no numbers"),
        (([[0, 0, -float("inf"), 0], [0] * 4], SCORES), "toy@1 gave values that are no numbers"),
        (([[0, 0, 999, 0], [0] * 4], SCORES), "toy@1 gave values that are no numbers"),
    ],
)
def test_other_outputs_than_boxes_and_scores_of_priors_are_an_error(tmp_path: Path, values: Any, message: str) -> None:
    card = card_text(f'kind = "ssd"\nbox_form = "offsets"\nactivation = "sigmoid"\n{PRIORS}')
    options = save_fixed(Given(*values), tmp_path, card)
    with pytest.raises(ModelError, match=message):
        detect(options, *pictures((9, 9)))


def test_a_box_that_nobody_wants_may_be_too_large_for_a_number(tmp_path: Path) -> None:
    card = card_text(f'kind = "ssd"\nbox_form = "offsets"\nactivation = "sigmoid"\n{PRIORS}')
    options = save_fixed(Given([[0] * 4, [0, 0, 999, 999]], SCORES), tmp_path, card)
    (found,) = detect(options, Image.new("RGB", (SIDE, SIDE)))
    assert found.boxes.tolist() == [[0, 0, SIDE, SIDE]]


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ('mode = "letterbox"\nplacement = "top_left"\nrounding = "floor"', [16, 16, 80, 48]),
        ('mode = "letterbox"\nplacement = "center"\nrounding = "floor"', [16, 0, 80, 16]),
        ('mode = "stretch"', [16, 8, 80, 24]),
    ],
)
def test_boxes_go_back_the_way_the_picture_came(tmp_path: Path, resize: str, expected: list[int]) -> None:
    head = 'kind = "boxes_scores_labels"\nbackground_id = 0\nscore_threshold = 0.1'
    options = save(Plain(), tmp_path, card_text(head, resize=resize, input=f"width_px = {SIDE}\nheight_px = {SIDE}\n"))
    (found,) = detect(options, Image.new("RGB", (128, 64), (255, 255, 255)))
    np.testing.assert_allclose(found.boxes[0], expected)


def test_what_a_network_sees_is_what_the_card_says(tmp_path: Path) -> None:
    """A network that puts out the colour of its input, as a box."""

    class Colour(nn.Module):
        def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
            mean = pictures.mean(dim=(2, 3))
            box = torch.cat([0 * mean[:, :1], mean + 1], dim=1)[:, None]
            return [box, 0 * mean[:, :1] + 0.5, (0 * mean[:, :1]).long()]

    head = 'kind = "boxes_scores_labels"\nscore_threshold = 0.1'
    given = f'width_px = {SIDE}\nheight_px = {SIDE}\nchannels = "BGR"\nscale = 0.1\nmean = [1, 2, 3]\nstd = [1, 2, 4]\n'
    options = save(Colour(), tmp_path, card_text(head, input=given))
    (found,) = detect(options, Image.new("RGB", (SIDE, SIDE), (30, 90, 120)))
    np.testing.assert_allclose(found.boxes[0], [0, 12 - 1 + 1, (9 - 2) / 2 + 1, 0 + 1], rtol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_numbers_are_an_error_that_names_the_model(tmp_path: Path, value: float) -> None:
    class Bad(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.new_full((1, 80, 8), value) + 0 * pictures.sum()

    options = save_fixed(Bad(), tmp_path, card_text('kind = "yolox"\nstrides = [8, 16]'))
    with pytest.raises(ModelError, match="toy@1 gave values that are no numbers"):
        detect(options, *pictures((9, 9)))


def test_another_form_of_output_is_an_error_that_says_what_was_promised(tmp_path: Path) -> None:
    class Other(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return pictures.mean(dim=1)

    options = save_fixed(Other(), tmp_path, card_text('kind = "yolox"\nstrides = [8, 16]'))
    with pytest.raises(ModelError, match=r"gave \(1, 64, 64\); its card promises \(pictures, 80, 8\)"):
        detect(options, *pictures((9, 9)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": 'kind = "yolox"\nlabels = ["a"]'}, "wants strides"),
        ({"head": 'kind = "rcnn"\nlabels = ["a"]'}, "head.kind = 'rcnn': should be 'yolox', "),
        ({"head": 'kind = "ssd"\nlabels = ["a"]'}, "wants box_form: 'offsets', 'xyxy' or 'cxcywh'"),
        ({"head": 'kind = "ssd"\nbox_form = "offsets"\nlabels = ["a"]'}, "wants priors, or priors_file"),
        ({"head": f'kind = "ssd"\nbox_form = "xyxy"\nlabels = ["a"]\n{PRIORS}'}, "box_form = 'xyxy' has no priors"),
        ({"head": 'kind = "detr"\nbox_form = "xyxy"\nlabels = ["a"]'}, "kind = 'detr' has no box_form"),
        ({"head": 'kind = "detr"\nactivation = "none"\nlabels = ["a"]'}, "kind = 'detr' has no activation"),
        ({"head": 'kind = "ssd"\nbox_form = "xyxy"\nbackground_id = 2\nlabels = ["a"]'}, "allowed is 0 to 1, or none"),
        ({"head": 'kind = "ssd"\nbox_form = "xyxy"\nmasks = "box"\nlabels = ["a"]'}, "kind = 'ssd' is none"),
        (
            {"head": 'kind = "ssd"\nbox_form = "offsets"\nlabels = ["a"]\npriors = [[0, 0, 0, 1]]'},
            r"head\.priors\.0\.2 = 0: should be greater than 0",
        ),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels = ["a", "a"]'}, "twice"),
        ({"input": "width_px = 0\nheight_px = 5"}, "input.width_px = 0: should be greater than 0"),
        ({"resize": "padding = 3"}, "resize.padding"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels_file = "none.txt"'}, "none.txt cannot be read"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels_file = "/etc/hostname"'}, "outside the card's folder"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels_file = "a.txt"\nlabels = ["a"]'}, "both labels and"),
        ({"head": 'kind = "yolox"\nstrides = [8]'}, "labels, or labels_file"),
        ({"head": 'kind = "yolox"\nstrides = [0]\nlabels = ["a"]'}, r"head\.strides\.0 = 0: should be greater than 0"),
        ({"head": 'kind = "yolox"\nstrides = [8]\nlabels = ["a"]\nnms_io = 1'}, "unknown key; did you mean nms_iou"),
        ({"head": 'kind = "detr"\nbackground_id = 2\nlabels = ["a"]'}, "background_id = 2: allowed is 0 to 1"),
        ({"input": 'width_px = "9"\nheight_px = 5'}, "input.width_px = '9': should be a valid integer"),
        ({"input": "width_px = 9\nheight_px = 5\nstd = [1, 0, 1]"}, r"input\.std\.1 = 0"),
        ({"input": "width_px = 9"}, "input.height_px is missing"),
    ],
)
def test_a_wrong_card_says_what_is_allowed(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(card_text('kind = "yolox"\nstrides = [8]', **change))
    with pytest.raises(ModelError, match=message):
        read_card(path)


OFFSETS = 'kind = "ssd"\nbox_form = "offsets"\npriors_file = "priors.txt"'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0.5 0.5 1", "priors.txt, line 2: '0.5 0.5 1'; allowed are four numbers, cx cy w h"),
        ("0.5 0.5 1 one", "line 2: '0.5 0.5 1 one'; allowed are four numbers"),
        ("0.5 nan 1 1", "line 2: '0.5 nan 1 1'"),
        ("0.5 0.5 inf 1", "line 2: '0.5 0.5 inf 1'"),
        ("0.5 0.5 0 1", "line 2: '0.5 0.5 0 1'; .* w and h above 0"),
        ("32 32 64 64", "line 2: '32 32 64 64'; .* as shares of the input"),
        ("\udcff", "cannot be read: 'utf-8' codec"),
    ],
)
def test_default_boxes_are_checked(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "priors.txt").write_bytes(f"0.5 0.5 0.1 0.1\n{line}\n".encode(errors="surrogateescape"))
    (tmp_path / "toy.toml").write_text(card_text(OFFSETS))
    with pytest.raises(ModelError, match=message):
        read_card(tmp_path / "toy.toml")


def test_a_file_of_too_many_default_boxes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_MAX_PRIOR_BYTES", 10)
    (tmp_path / "priors.txt").write_text("0.5 0.5 1 1")
    (tmp_path / "toy.toml").write_text(card_text(OFFSETS))
    with pytest.raises(ModelError, match=r"priors.txt has 11 bytes; at most 10"):
        read_card(tmp_path / "toy.toml")


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (OFFSETS, "priors_file .*priors.txt cannot be read: .*No such file"),
        (OFFSETS.replace("priors.txt", "../priors.txt"), "priors_file .* lies outside the card's folder"),
        (f"{OFFSETS}\n{PRIORS}", "has both priors and priors_file"),
    ],
)
def test_default_boxes_lie_beside_the_card(tmp_path: Path, head: str, message: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "priors.txt").write_text("0.5 0.5 1 1")
    (folder / "toy.toml").write_text(card_text(head))
    with pytest.raises(ModelError, match=message):
        read_card(folder / "toy.toml")


def test_default_boxes_make_the_digest_and_not_their_file(tmp_path: Path) -> None:
    def card(name: str, text: str) -> Card:
        (tmp_path / name).write_text(text)
        (tmp_path / "toy.toml").write_text(card_text(OFFSETS.replace("priors.txt", name)))
        return read_card(tmp_path / "toy.toml")

    one = card("one.txt", "0.5 0.5 1 1\n0.5 0.5 0.5 0.5\n")
    same = card("same.txt", "0.5 0.50 1.0 1\n\n0.5\t0.5 5e-1 0.5")
    other = card("other.txt", "0.5 0.5 1 1\n0.5 0.5 0.5 0.51\n")
    (tmp_path / "toy.toml").write_text(card_text(f'kind = "ssd"\nbox_form = "offsets"\n{PRIORS}'))
    assert one.digest() == same.digest() == read_card(tmp_path / "toy.toml").digest() != other.digest()
    head = one.facts()["head"]
    assert re.fullmatch("[0-9a-f]{64}", head["priors"]) and "priors_file" not in head


def test_cards_of_other_kinds_keep_their_digest() -> None:
    """What it was before there was a kind "ssd"; it is part of what lakes already hold."""
    card = read_card(Path(__file__).parents[1] / "data" / "yolox_nano.toml")
    assert card.digest() == "ed436685efe8b7981c8a613ba1d54bf2344915890612835dc867806265980d45"


def test_words_for_people_do_not_change_the_digest(tmp_path: Path) -> None:
    text = card_text('kind = "yolox"\nstrides = [8]')
    (tmp_path / "a.toml").write_text(text)
    (tmp_path / "b.toml").write_text(f'# remark\ndescription = "words"\nlicense = "MIT"\n{text}')
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    listed = text.replace(f"labels = {[*LABELS]}", 'labels_file = "labels.txt"')
    (tmp_path / "c.toml").write_text(listed)
    digests = {read_card(tmp_path / f"{name}.toml").digest() for name in "abc"}
    assert len(digests) == 1 and "labels_file" in listed


def test_the_readmes_card_is_that_of_the_tests(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (text,) = [
        t for t in re.findall(r"```toml\n(.*?)```", (root / "README.md").read_text(), re.DOTALL) if "[head]" in t
    ]
    card = read_card(root / "tests" / "data" / "yolox_nano.toml")
    (tmp_path / "coco.txt").write_text("\n".join(card.labels))
    (tmp_path / "yolox_nano.toml").write_text(text)
    assert read_card(tmp_path / "yolox_nano.toml").digest() == card.digest()
