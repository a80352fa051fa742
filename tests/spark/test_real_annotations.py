"""Annotations of real data sets, compared with what their own libraries read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pyspark.sql import SparkSession

from visionlake.jobs._config import load_pipeline
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import run

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
COCO_FILE = DATA / "coco-tiny" / "annotations" / "instances_val2017.json"
VOC = DATA / "bccd" / "BCCD"
PIPELINE = """
lake = "lake"
[mlflow]
enabled = false
[ingest_media]
inputs = ["{data}/coco-tiny/val2017", "{data}/bccd/BCCD/JPEGImages"]
[import_annotations.coco]
format = "coco"
inputs = ["{data}/coco-tiny/annotations"]
[import_annotations.bccd]
format = "voc"
inputs = ["{data}/bccd/BCCD/Annotations"]
"""


@pytest.mark.long
@pytest.mark.skipif(not (COCO_FILE.is_file() and VOC.is_dir()), reason="the data sets are not here")
def test_coco_and_voc_come_in_whole(tmp_path: Path, spark: SparkSession) -> None:
    path = tmp_path / "p.toml"
    path.write_text(PIPELINE.format(data=DATA))
    result = run(load_pipeline(path), spark=spark)
    assert [each.status for each in result.stages] == ["done"] * 3
    lake = Lake(tmp_path / "lake", spark=spark)
    rows = [row.asDict(recursive=True) for row in lake.table("annotations").collect()]
    assert lake.table("quarantine").isEmpty()
    cells = [each for row in rows if row["source"] == "bccd" for each in row["instances"]]
    assert (len([row for row in rows if row["source"] == "bccd"]), len(cells)) == (364, 4888)

    truth: Any = COCO(str(COCO_FILE))
    names = {category["id"]: category["name"] for category in truth.dataset["categories"]}
    found = {each["annotation_id"]: each for row in rows if row["source"] == "coco" for each in row["instances"]}
    assert len(found) == len(truth.anns) > 800
    for number, annotation in truth.anns.items():
        mine, (x, y, width, height) = found[str(number)], annotation["bbox"]
        assert (mine["label"], mine["label_id"]) == (names[annotation["category_id"]], annotation["category_id"])
        assert (mine["iscrowd"], mine["area"]) == (bool(annotation["iscrowd"]), annotation["area"])
        assert [*mine["box"].values()] == [x, y, x + width, y + height]
        assert mine["mask"]["counts"] == truth.annToRLE(annotation)["counts"].decode()
        if not annotation["iscrowd"]:
            assert mine["polygons"] == [[float(n) for n in polygon] for polygon in annotation["segmentation"]]
