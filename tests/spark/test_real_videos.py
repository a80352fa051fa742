"""The main job on real videos with a real model, where they are at hand: what is in them is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import visionlake
from visionlake.jobs._results import Reporter

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CARD = Path(__file__).resolve().parents[1] / "data" / "yolox_nano.toml"

pytestmark = pytest.mark.long


def test_persons_and_bottles_are_where_they_are_known_to_be(tmp_path: Path, spark: SparkSession) -> None:
    videos, weights = SHARED / "data" / "videos", SHARED / "models" / "yolox_nano.pt2"
    if not (videos.is_dir() and weights.is_file()):
        pytest.skip(f"{videos.name} or {weights.name} are not here")
    shutil.copy(weights, tmp_path)
    shutil.copy(CARD, tmp_path)
    (tmp_path / "pipeline.toml").write_text(
        f'lake = "lake"\n[mlflow]\nenabled = false\n[ingest_media]\ninputs = ["{videos}"]\n[extract_frames]\nfps = 5\n'
        f'[detect_objects.yolox]\nweights = "{weights.name}"\nscore_threshold = 0.3\n'
    )
    result = visionlake.run(tmp_path / "pipeline.toml", spark=spark, reporter=Reporter())
    assert result.exit_code == 0, result
    lake = visionlake.Lake(tmp_path / "lake", spark=spark)
    names = {row["media_id"]: Path(row["uri"]).stem for row in lake.table("sources").collect()}
    labelled = lake.table("instances").select("media_id", "label", "stream_index", "pts").distinct()
    counted = labelled.groupBy("media_id", "label").count().collect()
    frames_with = {(names[row["media_id"]], row["label"]): row["count"] for row in counted}
    assert lake.table("detections").count() == 151 + 697 + 200
    # What the model's authors' way of running it gives for these frames.
    assert frames_with["one-by-one-person-detection", "person"] == pytest.approx(526, rel=0.02)
    assert frames_with["bottle-detection", "bottle"] == pytest.approx(200, rel=0.02)
