"""Real weights on real pictures, where they are at hand: the accuracy that the model is known for."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import batched_nms, box_iou
from toy_networks import changed

from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CARD = Path(__file__).resolve().parents[1] / "data" / "yolox_nano.toml"

pytestmark = pytest.mark.long


def yolox(folder: Path, backend: str) -> DetectOptions:
    weights = SHARED / "models" / {"exported": "yolox_nano.pt2", "onnx": "yolox_nano.onnx"}[backend]
    if not weights.is_file():
        pytest.skip(f"{weights.name} is not here")
    shutil.copy(weights, folder)
    shutil.copy(CARD, folder)
    return DetectOptions(
        backend=backend, weights=str(folder / weights.name), device="cpu", score_threshold=0.01, nms_iou=0.65,
        max_instances=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def coco() -> Path:
    folder = SHARED / "data" / "coco-tiny"
    if not folder.is_dir():
        pytest.skip("coco-tiny is not here")
    return folder


@pytest.mark.parametrize("backend", ["exported", pytest.param("onnx", marks=pytest.mark.long)])
def test_average_precision_on_coco(tmp_path: Path, coco: Path, backend: str) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    detector = find_backend(backend).load(yolox(tmp_path, backend))
    found: list[Any] = []
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(coco / "annotations" / "instances_val2017.json"))
        categories = {category["name"]: category["id"] for category in truth.dataset["categories"]}
        for image in truth.dataset["images"]:
            picture = Image.open(coco / "val2017" / image["file_name"]).convert("RGB")
            (one,) = detector.detect([detector.prepare(picture)])
            for (x, y, right, bottom), score, label_id in zip(one.boxes, one.scores, one.label_ids, strict=True):
                found.append(
                    {
                        "image_id": image["id"],
                        "category_id": categories[detector.labels[label_id]],
                        "bbox": [x, y, right - x, bottom - y],
                        "score": score,
                    }
                )
        judged = COCOeval(truth, truth.loadRes(cast(Any, found)), "bbox")  # its stubs know file names only
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert judged.stats[0] == pytest.approx(0.296, abs=0.003)
    assert judged.stats[1] == pytest.approx(0.455, abs=0.003)


def test_an_archive_and_an_onnx_file_of_the_same_weights_find_the_same(tmp_path: Path, coco: Path) -> None:
    one, other = (find_backend(name).load(yolox(tmp_path, name)) for name in ("exported", "onnx"))
    count, alike = 0, 0
    for path in sorted((coco / "val2017").glob("*.jpg")):
        picture = Image.open(path).convert("RGB")
        (expected,), (found,) = (each.detect([each.prepare(picture)]) for each in (one, other))
        is_sure = expected.scores >= 0.3
        overlap = box_iou(torch.from_numpy(expected.boxes[is_sure]), torch.from_numpy(found.boxes))
        same_label = torch.from_numpy(expected.label_ids[is_sure][:, None] == found.label_ids[None])
        count += int(is_sure.sum())
        alike += int(((overlap >= 0.99) & same_label).any(dim=1).sum())
    assert count > 300 and alike >= 0.99 * count


Boxes = tuple[torch.Tensor, torch.Tensor]
"""Corners (N x 4) and numbers of labels."""


@pytest.fixture(scope="module")
def plain_boxes(coco: Path) -> list[Boxes]:
    """What YOLOX's own recipe finds in each picture, without a line of ours."""
    from onnxruntime import InferenceSession

    path = SHARED / "models" / "yolox_nano.onnx"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    session = InferenceSession(path)
    cells = [(x, y, stride) for stride in (8, 16, 32) for y in range(416 // stride) for x in range(416 // stride)]
    x, y, stride = torch.tensor(cells, dtype=torch.float64).T
    found = []
    for picture in pictures_of(coco):
        scale = min(416 / picture.width, 416 / picture.height)
        small = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BILINEAR)
        pixels = np.full((416, 416, 3), 114, np.float32)
        pixels[: small.height, : small.width] = np.asarray(small)[..., ::-1]  # BGR
        (raw,) = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})
        one = torch.from_numpy(np.asarray(raw)[0]).double()
        centre = (one[:, :2] + torch.stack([x, y], dim=1)) * stride[:, None]
        size = one[:, 2:4].exp() * stride[:, None]
        scores = one[:, 4:5] * one[:, 5:]
        place, label = (scores >= 0.3).nonzero(as_tuple=True)  # also more than one of a box
        corners = torch.cat([centre - size / 2, centre + size / 2], dim=1)[place]
        best = batched_nms(corners, scores[place, label], label, 0.65)[:300]
        edges = torch.tensor([picture.width, picture.height] * 2)
        found.append(((corners[best] / scale).clamp(min=0).minimum(edges), label[best]))
    return found


def pictures_of(coco: Path) -> Iterator[Image.Image]:
    return (Image.open(path).convert("RGB") for path in sorted((coco / "val2017").glob("*.jpg")))


def count_alike(one: Boxes, other: Boxes) -> int:
    """How many of the first have their like among the others."""
    is_alike = (box_iou(one[0], other[0]) >= 0.99) & (one[1][:, None] == other[1])
    return int(is_alike.any(dim=1).sum())


@pytest.mark.parametrize("backend", ["exported", "onnx"])
def test_boxes_are_those_of_a_plain_script(tmp_path: Path, coco: Path, plain_boxes: list[Boxes], backend: str) -> None:
    detector = find_backend(backend).load(changed(yolox(tmp_path, backend), score_threshold=0.3))
    alike, counts = np.zeros(2), np.zeros(2)
    for picture, expected in zip(pictures_of(coco), plain_boxes, strict=True):
        (found,) = detector.detect([detector.prepare(picture)])
        mine = (torch.from_numpy(found.boxes), torch.from_numpy(found.label_ids))
        counts += [len(mine[0]), len(expected[0])]
        alike += [count_alike(mine, expected), count_alike(expected, mine)]
    assert (counts > 200).all() and (alike >= 0.99 * counts).all(), (alike, counts)
