"""Frames by reference: labelled without stored pictures, as if they were stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyspark.sql import SparkSession

import visionlake
from visionlake._show import write_picture
from visionlake.expectations import detections
from visionlake.jobs import _again, _report_facts
from visionlake.jobs._results import Reporter, RunResult
from visionlake.udfs.sample_media import make_sample

PIPELINE = """
lake = "lake"
[mlflow]
enabled = false
[ingest_media]
inputs = ["sample/media"]
min_age_s = 0.0
[extract_frames]
max_side_px = 400
fps = 6
max_error_share = 1.0
image_format = "none"
[detect_objects.builtin]
backend = "builtin"
score_threshold = 0.3
"""


class World:
    """A folder of sample media and a lake."""

    def __init__(self, folder: Path, spark: SparkSession, *, videos: int) -> None:
        make_sample(folder / "sample", videos=videos, seconds=2.0)
        self.folder, self.spark, self.media = folder, spark, folder / "sample" / "media"
        self.pipeline, self.lake = folder / "pipeline.toml", visionlake.Lake(folder / "lake", spark=spark)
        self.pipeline.write_text(PIPELINE)

    def run(self, *overrides: str, **options: Any) -> RunResult:
        return visionlake.run(self.pipeline, spark=self.spark, overrides=overrides, reporter=Reporter(), **options)

    def labels(self) -> dict[tuple[Any, ...], Any]:
        rows = self.lake.table("detections").drop("run_id", "input_version").collect()
        return {tuple(row[name] for name in detections.TABLE.key): row for row in rows}


def same(one: Any, other: Any) -> bool:
    """Equal but for the last bits of what a model computes."""
    if isinstance(one, float):
        return one == pytest.approx(other, rel=1e-4, abs=1e-3)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.long
def test_labels_are_those_of_stored_frames(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_again, "FRAMES_PER_PART", 5)  # several parts of every video
    world = World(tmp_path, spark, videos=2)
    assert world.run("extract_frames.image_format=png").exit_code == 0
    stored, before = world.labels(), world.lake.version("detections")
    world.lake.update("frames", where="true", values={"image": "null", "image_format": "null"})
    (stage,) = world.run(only=["detect_objects"]).stages
    again = world.labels()
    assert stage.parents == stage.published == len(again) == 26 and world.lake.version("detections") > before
    assert sum(len(row["instances"]) for row in again.values()) > 26
    assert {*stored} == {*again} and all(same(stored[key], again[key]) for key in stored)


@pytest.mark.long
def test_media_that_are_away_wait_in_quarantine_until_they_are_back(tmp_path: Path, spark: SparkSession) -> None:
    world = World(tmp_path, spark, videos=1)
    world.run(last="extract_frames")
    frames = world.lake.table("frames")
    assert frames.where("image IS NOT NULL OR image_format IS NOT NULL").isEmpty()
    os.rename(world.media / "video_00.mp4", tmp_path / "away.mp4")
    label: dict[str, Any] = {"only": ["detect_objects"]}
    (stage,) = world.run("detect_objects.builtin.max_error_share=1.0", **label).stages
    assert (stage.published, stage.quarantined, stage.reasons) == (2, 12, {"source_missing": 12})
    os.rename(tmp_path / "away.mp4", world.media / "back.mp4")
    assert world.run(**label).stages[0].status == "nothing_new", "the lake does not know yet that it is back"
    assert world.run().exit_code == 0
    assert len(world.labels()) == frames.count() == 14
    assert world.lake.table("quarantine").where("stage = 'detect_objects'").isEmpty()
    assert {stage.status for stage in world.run().stages} == {"nothing_new"}

    (media_id,) = {media_id for media_id, _, pts, _ in world.labels() if pts}
    found = write_picture(world.lake, media_id, stream=0, pts=None, model=None, models=(), out=tmp_path / "shown.png")
    with Image.open(found[0]) as shown:
        assert found[1] and max(shown.size) == 400
    keys = _report_facts.sheet_keys(world.lake, most=4)
    sheet = _report_facts.frames_of_keys(world.lake, keys, side_px=64, models=())
    assert len(sheet) == 4 and all(frame["image"] and frame["thumb_width_px"] <= 64 for frame in sheet)

    os.rename(world.media / "back.mp4", tmp_path / "away.mp4")
    world.lake.update("frames", where="pts_s = 1.0", values={"width_px": "399"})
    (stage,) = world.run("detect_objects.builtin.max_error_share=1.0", **label).stages
    assert (stage.published, stage.reasons) == (0, {"source_missing": 1})
    assert len(world.labels()) == 13, "what was said of the frame as it was is gone, and of the others it stays"
