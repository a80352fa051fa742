"""Masks in tables: whose they are, that they come through bit for bit, and what becomes of those that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import toy_backend
from pyspark.sql import SparkSession
from spark_session import KilledAt
from toy_world import World

from visionlake.errors import ConfigError
from visionlake.expectations._table import arrow_type
from visionlake.jobs._schemas import to_spark
from visionlake.udfs.rle import decode_mask

TWO = [[0.9, 0, [0.0, 0.0, 0.5, 1.0]], [0.8, 1, [0.5, 0.0, 1.0, 0.5]]]


@pytest.fixture(scope="module", autouse=True)
def _backend_on_workers(spark: SparkSession) -> None:
    spark.sparkContext.addPyFile(toy_backend.__file__)


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    found = World(tmp_path, spark)
    found.model("masks", tasks=["panoptic", "instance", "semantic"], found=TWO)
    return found


def rows(world: World, table: str) -> list[dict[str, Any]]:
    found = world.lake.table(table).orderBy("model_id", "media_id", "pts").collect()
    return [row.asDict(recursive=True) for row in found]


def test_objects_and_classes_go_to_their_tables_bit_for_bit(world: World) -> None:
    world.put("a", count=2)
    world.put("dark", value=0, count=1)
    result = world.run("segment.masks")
    assert result.exit_code == 0, result
    assert (result.stages[0].stage, result.stages[0].published) == ("segment_objects.masks", 3)
    left, right = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    left[:, :20], right[:10, 20:] = True, True
    for mask, x in ((left, 0), (right, 20)):
        for y, columns in enumerate(((0, 1, 2), (0, 1), (0,))):
            mask[y, [x + column for column in columns]] = False
    *seen, dark = rows(world, "detections")
    for row in seen:
        assert [(one["label"], one["score"]) for one in row["instances"]] == [("cat", 0.9), ("dog", 0.8)]
        for one, expected in zip(row["instances"], (left, right), strict=True):
            assert np.array_equal(decode_mask(one["mask"]), expected) and one["area_px"] == expected.sum()
        assert tuple(row["instances"][1]["box"].values()) == (20.0, 0.0, 40.0, 10.0)
    *semantic, nothing = rows(world, "semantic_masks")
    assert dark["instances"] == nothing["regions"] == []  # it was looked at
    for row in semantic:
        assert (row["frame_width_px"], row["frame_height_px"]) == (40, 20)
        assert [region["label"] for region in row["regions"]] == ["cat", "dog"]
        assert [region["area_px"] for region in row["regions"]] == [left.sum(), right.sum()]
    (region,) = world.lake.table("regions").where("pts = 0 AND label = 'cat'").collect()
    assert region["share"] == left.sum() / 800 and np.array_equal(decode_mask(region["mask"].asDict()), left)
    boxes = world.lake.table("instances").where("pts = 0").orderBy("instance_index").collect()
    assert [row["area_px"] for row in boxes] == [left.sum(), right.sum()]
    assert world.run("segment.masks").stages[0].status == "nothing_new"


@pytest.mark.long
def test_a_task_of_one_kind_writes_rows_of_that_kind(world: World) -> None:
    world.put("a", count=1)
    for task, written in (("instance", (1, 0)), ("semantic", (1, 1))):
        result = world.run("segment.masks", task=task)
        assert result.exit_code == 0 and result.stages[0].published == 1
        assert not [check for check in result.stages[0].checks if check.failed]
        assert (len(rows(world, "detections")), len(rows(world, "semantic_masks"))) == written


def test_masks_that_do_not_fit_their_frame_stop_the_wave(world: World) -> None:
    world.put("a", count=1)
    world.model("bad", tasks=["panoptic"], found=TWO, mode="small")
    result = world.run("segment.bad")
    assert result.stages[0].status == "stopped" and result.stages[0].reasons == {"mask_misfit": 2}
    assert rows(world, "detections") == [] and rows(world, "semantic_masks") == []


@pytest.mark.long
def test_a_changed_frame_takes_all_that_models_said_of_it_before(world: World) -> None:
    world.model("toy")
    world.put("a", "b", count=1)
    assert world.run("toy", "segment.masks").exit_code == 0
    world.correct("media_id = 'a'", width_px=41)
    assert world.run("toy").stages[0].published == 1  # the other one is no longer in the pipeline
    (mine,) = (row["model_id"] for row in rows(world, "detections") if row["media_id"] == "a")
    assert mine.startswith("toy@")
    assert [row["media_id"] for row in rows(world, "semantic_masks")] == ["b"]
    assert len([row for row in rows(world, "detections") if row["media_id"] == "b"]) == 2
    result = world.run("toy", "segment.masks")
    assert sum(stage.published for stage in result.stages) == 1
    assert len(rows(world, "detections")) == 4 and len(rows(world, "semantic_masks")) == 2


@pytest.mark.long
def test_frames_that_are_gone_leave_both_tables_once_another_model_comes(world: World) -> None:
    world.put("a", "b", count=1)
    assert world.run("segment.masks").exit_code == 0
    world.lake.update("frames", where="media_id = 'a'", values={"width_px": "41"})
    world.spark.sql(f"DELETE FROM delta.`{world.lake.path('frames')}` WHERE media_id = 'a'")
    world.model("other", tasks=["panoptic"], found=TWO)
    result = world.run("segment.other")
    assert result.exit_code == 0, result
    for table in ("detections", "semantic_masks"):
        assert [row["media_id"] for row in rows(world, table)] == ["b", "b"]


@pytest.mark.long
def test_a_wave_that_was_staged_before_there_were_masks_is_finished(world: World) -> None:
    world.model("toy")
    world.put("a", count=2)
    with pytest.raises(KeyboardInterrupt):
        world.run("toy", reporter=KilledAt("staged"))
    (staged,) = (world.folder / "lake" / "_staging").rglob("rows")
    with_masks = world.spark.read.parquet(str(staged)).toArrow()
    before = [{**row, "instances": [{k: v for k, v in one.items() if k not in ("area_px", "mask")}
              for one in row["instances"]]} for row in with_masks.to_pylist()]  # fmt: skip
    kind = "array<struct<label_id int, label string, score double, box struct<x_min double, y_min double, "
    kind += "x_max double, y_max double>>>"
    older = with_masks.schema.set(
        with_masks.schema.get_field_index("instances"), pa.field("instances", arrow_type(kind))
    )
    to_spark(world.spark, before, older).write.mode("overwrite").parquet(str(staged))
    assert world.run("toy").stages[0].published == 2
    assert [row["instances"][0]["mask"] for row in rows(world, "detections")] == [None, None]


def test_the_views_of_a_lake_from_before_masks_can_be_read(world: World) -> None:
    kind = "array<struct<label_id:int,label:string,score:double,box:struct<x_min:double,y_min:double,x_max:double,"
    columns = "media_id string, stream_index int, pts bigint, model_id string, frame_width_px int, frame_height_px int"
    place = world.lake.path("detections")
    world.spark.sql(f"CREATE TABLE delta.`{place}` ({columns}, instances {kind}y_max:double>>>) USING delta")
    one = "named_struct('label_id', 1, 'label', 'cat', 'score', 0.5D, 'box', "
    one += "named_struct('x_min', 0D, 'y_min', 0D, 'x_max', 1D, 'y_max', 1D))"
    world.spark.sql(f"INSERT INTO delta.`{place}` SELECT 'old', 0, 0L, 'm@1:0', 9, 9, array({one})")
    (row,) = world.lake.table("instances").collect()
    assert (row["label"], row["x_max"], row["area_px"], row["mask"]) == ("cat", 1.0, None, None)


def test_a_model_of_boxes_cannot_segment(world: World) -> None:
    world.model("toy")
    with pytest.raises(ConfigError, match=r"\[segment_objects.toy\] task 'segmentation': model toy does detection"):
        world.run("segment.toy")
