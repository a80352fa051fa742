"""A real model on real annotations: the accuracy that it is known for, and pycocotools' numbers on the same labels."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pyspark.sql import SparkSession

from visionlake.jobs._config import load_pipeline
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import run
from visionlake.udfs.average_precision import AVERAGES

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
COCO_FILE = SHARED / "data" / "coco-tiny" / "annotations" / "instances_val2017.json"
WEIGHTS = SHARED / "models" / "yolox_nano.pt2"
CARD = Path(__file__).resolve().parents[1] / "data" / "yolox_nano.toml"
EDGES = ("x_min", "y_min", "x_max", "y_max")
PIPELINE = """
lake = "lake"
[mlflow]
enabled = false
[ingest_media]
inputs = ["{data}/val2017"]
[extract_frames]
[detect_objects.nano]
backend = "exported"
weights = "yolox_nano.pt2"
score_threshold = 0.01
[import_annotations.people]
format = "coco"
inputs = ["{data}/annotations"]
[evaluate_labels.all]
truth = "people"
"""


@pytest.mark.long
@pytest.mark.skipif(not (COCO_FILE.is_file() and WEIGHTS.is_file()), reason="the weights or annotations are not here")
def test_average_precision_of_real_labels(tmp_path: Path, spark: SparkSession) -> None:
    shutil.copy(WEIGHTS, tmp_path)
    shutil.copy(CARD, tmp_path / "yolox_nano.toml")
    path = tmp_path / "p.toml"
    path.write_text(PIPELINE.format(data=COCO_FILE.parents[1]))
    result = run(load_pipeline(path), spark=spark)
    assert [each.status for each in result.stages] == ["done"] * 5
    lake = Lake(tmp_path / "lake", spark=spark)
    overall = lake.table("evaluations").where("label IS NULL AND kind = 'bbox'").collect()[0]
    assert overall["ap"] == pytest.approx(0.296, abs=0.003)
    assert overall["ap50"] == pytest.approx(0.455, abs=0.003)

    with redirect_stdout(io.StringIO()):
        truth: Any = COCO(str(COCO_FILE))
        ids = {category["name"]: category["id"] for category in truth.dataset["categories"]}
        names = {Path(row["uri"]).name: row["media_id"] for row in lake.table("sources").collect()}
        images = {names[image["file_name"]]: image["id"] for image in truth.dataset["images"]}
        found = []
        for row in lake.table("detections").collect():
            for each in row["instances"]:
                x, y, right, bottom = (each["box"][edge] for edge in EDGES)
                found.append({"image_id": images[row["media_id"]], "category_id": ids[each["label"]],
                              "bbox": [x, y, right - x, bottom - y], "score": each["score"]})  # fmt: skip
        judged = COCOeval(truth, truth.loadRes(found), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert [overall[name] for name in AVERAGES] == pytest.approx(list(judged.stats), abs=1e-6)
