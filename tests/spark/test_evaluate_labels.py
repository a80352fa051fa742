"""Evaluation over tables: numbers, gates, versions, and what makes an evaluation due."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lake_by_hand import LakeByHand
from pyspark.sql import Row, SparkSession

from visionlake.errors import ConfigError
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._pipeline import run
from visionlake.jobs._results import RunResult
from visionlake.udfs.rle import encode_mask

MODEL = "nano@1:00"
EDGES = ("x_min", "y_min", "x_max", "y_max")


def box(place: int, *, shift: float = 0.0) -> dict[str, float]:
    return dict(zip(EDGES, (place + shift, 10.0, place + 20 + shift, 30.0), strict=True))


class World(LakeByHand):
    """A lake with annotations of `people` and labels of a model; a pipeline that imports nothing and evaluates."""

    def frame(self, name: str, *, there: Any = (), found: Any = (), annotator: str | None = None) -> None:
        """Objects are (label, x) and what was found (label, x, score)."""
        key = {"media_id": name * 64, "stream_index": 0, "pts": 0}
        truth = [{"label_id": 0, "label": label, "box": box(x), "iscrowd": False} for label, x in there]
        self.put(
            "annotations",
            {**key, "source": "people", "annotator": annotator, "full_width_px": 200, "full_height_px": 100,
             "instances": truth},
        )  # fmt: skip
        if found is not None:
            self.found(name, found)

    def found(self, name: str, found: Any, *, model: str = MODEL) -> None:
        key = {"media_id": name * 64, "stream_index": 0, "pts": 0}
        instances = [{"label_id": 0, "label": label, "score": score, "box": box(x)} for label, x, score in found]
        self.put(
            "detections",
            {**key, "model_id": model, "frame_width_px": 200, "frame_height_px": 100, "instances": instances},
        )

    def run(self, **settings: Any) -> RunResult:
        own = {"truth": "people", "models": [MODEL], **settings}
        versions = own.pop("versions", {})
        lines = [f"{key} = {json.dumps(value)}" for key, value in own.items()]
        lines += [f"versions.{name} = {version}" for name, version in versions.items()]
        empty = self.folder / "labels"
        empty.mkdir(exist_ok=True)
        path = self.folder / "p.toml"
        path.write_text(
            "\n".join(
                [
                    'lake = "lake"', "[mlflow]", "enabled = false", "[import_annotations.people]", 'format = "coco"',
                    'inputs = ["labels"]', "[evaluate_labels.all]", *lines,
                ]
            )
        )  # fmt: skip
        return run(load_pipeline(path), spark=self.lake.spark, only=["evaluate_labels"])

    def rows(self) -> dict[str | None, Row]:
        return {row["label"]: row for row in self.lake.table("evaluations").where("kind = 'bbox'").collect()}


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path, spark)


def status(result: RunResult) -> str:
    return result.stages[-1].status


def test_an_evaluation_is_made_again_when_labels_change_and_only_then(world: World) -> None:
    world.frame("a", there=[("ant", 10), ("bee", 60)], found=[("ant", 10, 0.9), ("bee", 60, 0.8)])
    world.frame("b", there=[("ant", 10)], found=[("ant", 100, 0.7)])
    world.frame("c", there=[("ant", 10)], found=None)
    result = world.run()
    assert status(result) == "done"
    rows = world.rows()
    assert {*rows} == {None, "ant", "bee"}
    assert rows["bee"]["ap"] == pytest.approx(1)
    assert rows["ant"]["ap"] == pytest.approx(51 / 101)
    assert rows[None]["ap"] == pytest.approx((1 + 51 / 101) / 2)
    assert (rows[None]["frames"], rows[None]["frames_not_labelled"]) == (2, 1)
    assert rows[None]["pins"] == {name: world.lake.version(name) for name in ("annotations", "detections")}
    assert result.stages[-1].figures["nano bbox ap"] == pytest.approx((1 + 51 / 101) / 2)

    assert status(world.run()) == "nothing_new"
    world.found("c", [("ant", 10, 0.9)])
    assert status(world.run()) == "done"
    assert (world.rows()[None]["frames"], world.rows()[None]["frames_not_labelled"]) == (3, 0)
    assert world.rows()["ant"]["ap_before"] == pytest.approx(51 / 101)
    # Other settings are no reason to ask for a rebuild, and versions may be those of before.
    assert status(world.run(versions={"detections": rows[None]["pins"]["detections"]})) == "done"
    assert (world.rows()[None]["frames"], world.rows()[None]["ap"]) == (2, rows[None]["ap"])


@pytest.mark.long
def test_a_gate_stops_what_is_too_bad_and_lets_better_labels_pass(world: World) -> None:
    world.frame("a", there=[("ant", 10), ("bee", 60)], found=[("ant", 10, 0.9)])
    result = world.run(min_ap=0.6)
    assert (status(result), result.exit_code) == ("stopped", 3)
    failed = next(check for check in result.stages[-1].checks if check.failed)
    assert (failed.name, failed.value, failed.keys) == ("min_ap", pytest.approx(0.5), (f"{MODEL} bbox",))
    assert result.stages[-1].figures["nano bbox ap"] == pytest.approx(0.5)
    assert world.lake.table("evaluations").isEmpty()
    assert status(world.run(min_ap=0.6)) == "stopped"
    assert status(world.run(min_ap=0.4)) == "done"

    # Labels of a newer version of the model are worse for one class, and better for the other.
    world.found("a", [("bee", 60, 0.9)], model="nano@2:00")
    result = world.run(models=["nano@2:00"], max_drop=0.02)
    assert (status(result), result.exit_code) == ("stopped", 3)
    failed = next(check for check in result.stages[-1].checks if check.failed)
    assert (failed.name, failed.keys) == ("max_drop", ("nano@2:00 bbox ant",))
    assert {row["model_id"] for row in world.rows().values()} == {MODEL}
    world.found("b", [("ant", 10, 0.9)], model="nano@2:00")
    world.frame("b", there=[("ant", 10)], found=None)
    assert status(world.run(models=["nano@2:00"], max_drop=0.6)) == "done"
    assert {row["model_id"] for row in world.rows().values()} == {"nano@2:00"}


@pytest.mark.long
def test_models_without_a_frame_to_compare_are_told(world: World) -> None:
    world.frame("a", there=[("ant", 10)], found=[("ant", 10, 0.9)])
    for models in ([MODEL, "other@1:00"], ["other@1:00"]):
        result = world.run(models=models, min_ap=0.0)
        assert (status(result), result.exit_code) == ("stopped", 3), "what was not compared is not good enough"
        assert [check.name for check in result.stages[-1].checks if check.stops] == ["all_compared"]
    assert status(world.run(models=[MODEL, "other@1:00"])) == "done"
    bad = world.lake.table("quarantine").collect()
    assert [(row["input_key"], row["reason"]) for row in bad] == [("all", "nothing_to_compare")]
    assert "other@1:00" in bad[0]["output_key"]
    assert {row["model_id"] for row in world.rows().values()} == {MODEL}


@pytest.mark.long
def test_a_class_that_nobody_looks_for_any_more_has_not_become_worse(world: World) -> None:
    world.frame("a", there=[("ant", 10), ("bee", 60)], found=[("ant", 10, 0.9), ("bee", 60, 0.8)])
    assert status(world.run()) == "done"
    world.found("b", [("bee", 10, 0.9)])
    world.frame("b", there=[("ant", 60)], found=None)
    world.lake.update("annotations", where="true", values={"instances": "filter(instances, i -> i.label = 'ant')"})
    result = world.run(max_drop=0.6)
    assert status(result) == "done"
    assert (world.rows()["bee"]["ap"], world.rows()["bee"]["ap_before"]) == (None, pytest.approx(1))


@pytest.mark.long
def test_splits_and_annotators_choose_what_counts(world: World) -> None:
    for name, split in (("a", "train"), ("b", "test")):
        world.put("splits", {"split_set": "main", "media_id": name * 64, "group_id": name, "split": split, "frames": 1})
    world.frame("a", there=[("ant", 10)], found=[])
    world.frame("b", there=[("ant", 10)], found=[("ant", 10, 0.9)], annotator="zoe")
    world.frame("b", there=[("ant", 90)], found=None, annotator="ada")
    world.run(split_set="main", annotator="zoe")
    assert (world.rows()[None]["frames"], world.rows()[None]["ap"]) == (1, pytest.approx(1))
    assert world.rows()[None]["splits"] == ["test"]
    world.run(split_set="main")  # of two annotators the first by name
    assert (world.rows()[None]["frames"], world.rows()[None]["ap"]) == (1, 0.0)


def stripe(first: int, last: int) -> dict[str, Any]:
    """A mask of the columns from first to before last, of a frame of 200 x 100 px."""
    pixels = np.zeros((100, 200), bool)
    pixels[:, first:last] = True
    return dict(encode_mask(pixels))


def test_classes_of_pixels_are_compared_by_their_overlap(world: World) -> None:
    key = {"stream_index": 0, "pts": 0}
    truth = [
        ("a", [("sky", 0, 100, False), ("road", 100, 150, False), ("road", 150, 180, False)]),
        ("b", [("sky", 0, 50, False), ("crowd", 50, 100, True)]),
    ]
    seen = {"a": [("sky", 0, 80), ("road", 80, 180)], "b": [("sky", 0, 100), ("tree", 150, 160)]}
    for name, shapes in truth:
        instances = [
            {"label_id": 0, "label": label, "box": box(10), "iscrowd": iscrowd, "mask": stripe(first, last)}
            for label, first, last, iscrowd in shapes
        ]
        size = {"full_width_px": 200, "full_height_px": 100}
        world.put("annotations", {**key, **size, "media_id": name * 64, "source": "people", "instances": instances})
        regions = [
            {"label_id": place, "label": label, "area_px": 100 * (last - first), "mask": stripe(first, last)}
            for place, (label, first, last) in enumerate(seen[name])
        ]
        own = {"frame_width_px": 200, "frame_height_px": 100, "regions": regions}
        for model in (MODEL, "seg@1:00"):
            world.put("semantic_masks", {**key, "media_id": name * 64, "model_id": model, **own})
    world.found("a", [])
    assert status(world.run(models=[MODEL, "seg@1:00"], min_ap=0.0)) == "done"
    kinds = {(row["model_id"], row["kind"]) for row in world.lake.table("evaluations").collect()}
    assert kinds == {(MODEL, "bbox"), ("seg@1:00", "semantic")}, "else only where it is asked for"
    result = world.run(kinds=["semantic"], min_ap=0.3)
    assert status(result) == "done"
    rows = {row["label"]: row for row in world.lake.table("evaluations").collect()}
    # What lies under a crowd counts for nothing: in b the sky is seen in 0 to 100, of which 50 to 100 are crowd.
    expected = {"sky": (80 + 50) / (100 + 50), "road": 80 / 100, "tree": 0.0}
    assert {label: row["iou"] for label, row in rows.items() if label} == pytest.approx(expected)
    assert rows[None]["iou"] == pytest.approx(sum(expected.values()) / 3)
    assert (rows[None]["kind"], rows[None]["frames"], rows[None]["ap"]) == ("semantic", 2, None)
    assert result.stages[-1].figures["nano semantic iou"] == pytest.approx(sum(expected.values()) / 3)
    assert status(world.run(kinds=["semantic"], min_ap=0.9)) == "nothing_new", "a gate alone makes nothing due"


def test_what_the_lake_does_not_have_yet_is_told(world: World) -> None:
    result = world.run()
    assert result.exit_code == 2
    assert "the lake has no table annotations yet" in str(result.stages[-1].error)


def test_names_have_to_mean_sections_that_label(world: World) -> None:
    with pytest.raises(ConfigError, match=r"truth = \"peple\": there is no section 'peple' that imports annotations"):
        world.run(truth="peple")
    with pytest.raises(ConfigError, match=r"there is no section 'people' of a model"):
        world.run(models=["people"])
    with pytest.raises(ConfigError, match="it is the section's own name"):
        world.run(name="x")
