"""Real weights on real pictures, where they are at hand: the accuracy that the model is known for."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CARD = Path(__file__).resolve().parents[1] / "data" / "yolox_nano.toml"

pytestmark = pytest.mark.long


@pytest.fixture
def yolox(tmp_path: Path) -> DetectOptions:
    weights = SHARED / "models" / "yolox_nano.pt2"
    if not weights.is_file():
        pytest.skip(f"{weights.name} is not here")
    shutil.copy(weights, tmp_path)
    shutil.copy(CARD, tmp_path)
    return DetectOptions(
        backend="exported", weights=str(tmp_path / weights.name), device="cpu", score_threshold=0.01, nms_iou=0.65,
        max_instances=300,
    )  # fmt: skip


def test_average_precision_on_coco(yolox: DetectOptions) -> None:
    folder = SHARED / "data" / "coco-tiny"
    if not folder.is_dir():
        pytest.skip("coco-tiny is not here")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    detector = find_backend("exported").load(yolox)
    found: list[Any] = []
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "annotations" / "instances_val2017.json"))
        categories = {category["name"]: category["id"] for category in truth.dataset["categories"]}
        for image in truth.dataset["images"]:
            picture = Image.open(folder / "val2017" / image["file_name"]).convert("RGB")
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
