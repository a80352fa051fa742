"""Exports over tables: what goes into them, the same bytes every time, and never a part taken for the whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from lake_by_hand import LakeByHand, picture
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from visionlake.errors import ConfigError
from visionlake.jobs import export_dataset
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._pipeline import run
from visionlake.jobs._results import RunResult

MODEL = "nano@1:00"


class World(LakeByHand):
    """Frames of 64 x 48 px with annotations of `people`, at twice that size, and labels of a model."""

    def frame(self, name: str, *, people: Any = None, model: Any = None, **more: Any) -> None:
        """What people said and what the model found, as (label, x), which is in pixels of the stored frame."""
        key = {"media_id": name * 64, "stream_index": 0, "pts": 512}
        self.put(
            "frames",
            {**key, "time_base_num": 1, "time_base_den": 1024, "pts_s": 0.5, "width_px": 64, "height_px": 48,
             "full_width_px": 128, "full_height_px": 96, "image": picture(), "image_format": "jpeg",
             "brightness": 100.0, **more},
        )  # fmt: skip
        if people is not None:
            truth = [{"label_id": 5, "label": label, "box": box(x, scale=2), "iscrowd": False} for label, x in people]
            self.put("annotations", {**key, "source": "people", "full_width_px": 128, "full_height_px": 96,
                                     "instances": truth})  # fmt: skip
        if model is not None:
            found = [{"label_id": 0, "label": label, "score": x / 100, "box": box(x, scale=1)} for label, x in model]
            self.put("detections", {**key, "model_id": MODEL, "frame_width_px": 64, "frame_height_px": 48,
                                    "instances": found})  # fmt: skip

    def run(self, **settings: Any) -> RunResult:
        own = {"format": "coco", "to": "out", "labels": ["people", MODEL], **settings}
        versions = own.pop("versions", {})
        lines = [f"{key} = {json.dumps(value)}" for key, value in own.items()]
        lines += [f"versions.{name} = {version}" for name, version in versions.items()]
        (self.folder / "labels").mkdir(exist_ok=True)
        path = self.folder / "p.toml"
        path.write_text(
            "\n".join(
                [
                    'lake = "lake"', "[mlflow]", "enabled = false", "[import_annotations.people]", 'format = "coco"',
                    'inputs = ["labels"]', "[export_dataset.set]", *lines,
                ]
            )
        )  # fmt: skip
        return run(load_pipeline(path), spark=self.lake.spark, only=["export_dataset"])

    def row(self) -> Row:
        return self.lake.table("exports").collect()[0]

    def set(self) -> Path:
        return Path(self.row()["uri"].removeprefix("file://"))

    def coco(self, split: str = "train") -> dict[str, Any]:
        return json.loads((self.set() / f"annotations/instances_{split}.json").read_text())


def box(x: float, *, scale: int) -> dict[str, float]:
    return {"x_min": x * scale, "y_min": 5.0 * scale, "x_max": (x + 10) * scale, "y_max": 20.0 * scale}


def status(result: RunResult) -> str:
    return result.stages[-1].status


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    world = World(tmp_path, spark)
    world.frame("a", people=[("ant", 10), ("bee", 40)], model=[("ant", 30)])
    world.frame("b", people=[], model=[("ant", 30)])
    world.frame("c", model=[("ant", 30), ("cow", 50)])
    world.frame("d", brightness=3.0)
    return world


def test_people_go_before_models_and_pixels_are_those_of_the_pictures(world: World) -> None:
    assert status(world.run(min_score=0.4)) == "done"
    content = world.coco()
    assert [(each["visionlake"]["media_id"][0], each["visionlake"]["labelled_by"]) for each in content["images"]] == [
        ("a", "people"), ("b", "people"), ("c", MODEL),
    ]  # fmt: skip
    names = {each["id"]: each["name"] for each in content["categories"]}
    found = [(each["image_id"], names[each["category_id"]], each["bbox"]) for each in content["annotations"]]
    assert found == [
        (1, "ant", [10, 5, 10, 15]), (1, "bee", [40, 5, 10, 15]), (3, "cow", [50, 5, 10, 15]),
    ]  # fmt: skip
    row = world.row()
    assert (row["frames"], row["objects"], row["splits"][0].asDict()) == (
        3, 3, {"split": "train", "frames": 3, "objects": 3},
    )  # fmt: skip
    manifest = json.loads((world.set() / "manifest.json").read_text())
    named = {each["path"]: each["sha256"] for each in manifest["files"]}
    assert digests(world.set()) == named | {
        name: hashlib.sha256((world.set() / name).read_bytes()).hexdigest() for name in ("manifest.json", "_SUCCESS")
    }
    assert manifest["pins"] == {name: world.lake.version(name) for name in ("annotations", "detections", "frames")}

    result = world.run(labels=[MODEL], classes=["cow", "ant", "emu"], where="brightness > 10", unlabelled=True)
    assert [each["name"] for each in world.coco()["categories"]] == ["cow", "ant", "emu"]
    assert [(check.name, check.status, check.keys) for check in result.stages[-1].checks if check.failed] == [
        ("empty_classes", "warned", ("emu",))
    ]
    assert result.stages[-1].delivered == str(world.set())
    assert [each["visionlake"]["labelled_by"] for each in world.coco()["images"]] == [MODEL] * 3
    world.run(unlabelled=True)
    found = [each["visionlake"]["labelled_by"] for each in world.coco()["images"]]
    assert found == ["people", "people", MODEL, "nobody"]


@pytest.mark.long
def test_the_same_versions_give_the_same_bytes(world: World) -> None:
    world.run(shard_frames=2)
    first, before = world.set(), digests(world.set())
    pins = world.row()["pins"]
    assert status(world.run(shard_frames=2)) == "nothing_new"
    world.frame("e", people=[("ant", 20)])
    for table in ("frames", "annotations"):
        world.lake.spark.sql(f"OPTIMIZE delta.`{world.lake.path(table)}`")
    assert status(world.run(shard_frames=2)) == "done"
    assert world.set() != first
    assert len(world.coco()["images"]) == 4
    name = "spark.sql.shuffle.partitions"
    partitions = world.lake.spark.conf.get(name)
    world.lake.spark.conf.set(name, "5")
    try:
        assert status(world.run(shard_frames=2, versions=pins)) == "done"
    finally:
        world.lake.spark.conf.set(name, str(partitions))
    assert world.set() == first
    assert digests(first) == before


@pytest.mark.long
def test_a_data_set_that_was_lost_or_left_half_is_written_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(export_dataset, "_head", dies)
        assert status(world.run()) == "failed"
    assert not [*world.folder.glob("out/*/_SUCCESS")]
    assert status(world.run()) == "done"
    before = digests(world.set())
    assert "_SUCCESS" in before
    (world.set() / "_SUCCESS").unlink()
    (world.set() / "annotations/instances_train.json").write_text("{")
    assert status(world.run()) == "done"
    assert digests(world.set()) == before


@pytest.mark.long
def test_splits_have_folders_of_their_own(world: World) -> None:
    for name, split in (("a", "train"), ("b", "test"), ("c", "test")):
        world.put("splits", {"split_set": "main", "media_id": name * 64, "group_id": name, "split": split, "frames": 1})
    world.run(split_set="main")
    assert [len(world.coco(split)["images"]) for split in ("train", "test")] == [1, 2]
    world.run(split_set="main", splits=["test"], format="yolo")
    assert sorted(path.name for path in (world.set() / "labels").iterdir()) == ["test"]


@pytest.mark.long
def test_frames_without_a_picture_are_told_and_left_out(world: World) -> None:
    world.frame("e", people=[("ant", 10)], image=None, image_format=None)
    assert status(world.run()) == "done"
    bad = world.lake.table("quarantine").collect()
    assert [(row["stage"], row["output_key"], row["reason"]) for row in bad] == [
        ("export_dataset", f"{'e' * 64}/0/512", "picture_missing")
    ]
    content = world.coco()
    assert [each["visionlake"]["media_id"][0] for each in content["images"]] == ["a", "b", "c"]
    on_disk = {path.name for path in (world.set() / "images/train").iterdir()}
    assert {each["file_name"] for each in content["images"]} == on_disk
    row, manifest = world.row(), json.loads((world.set() / "manifest.json").read_text())
    found = len(content["annotations"])
    assert (row["frames"], row["objects"]) == (manifest["frames"], manifest["objects"]) == (3, found)
    assert row["splits"][0].asDict() == {"split": "train", "frames": 3, "objects": found}
    assert {each["labels"]: each["frames"] for each in manifest["labelled_by"]} == {"people": 2, MODEL: 1}


@pytest.mark.long
def test_a_split_of_which_no_picture_can_be_had_is_none(world: World) -> None:
    world.frame("e", people=[("ant", 10)], image=None, image_format=None)
    for name, split in (("a", "train"), ("e", "test")):
        world.put("splits", {"split_set": "main", "media_id": name * 64, "group_id": name, "split": split, "frames": 1})
    assert status(world.run(split_set="main", format="huggingface")) == "done"
    assert [each["split"] for each in world.row()["splits"]] == ["train"]
    assert "test" not in (world.set() / "README.md").read_text()


def test_nothing_to_hand_over_stops(world: World) -> None:
    result = world.run(where="brightness > 200")
    assert (status(result), result.exit_code) == ("stopped", 3)
    assert "frames_exported" in {check.name for check in result.stages[-1].checks if check.failed}
    assert not [*world.folder.glob("out/*/_SUCCESS")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "cocoa"}, "format 'cocoa' is not known; there are: coco"),
        ({"labels": ["nobody"]}, "there is no section 'nobody' that labels"),
        ({"where": "rand() > 0.5"}, "rand"),
        ({"to": "s3://user:secret@bucket/x"}, "holds a secret"),
        ({"format": "voc", "task": "segmentation"}, "voc holds detection"),
    ],
)
def test_wrong_settings_are_told_before_any_work(world: World, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        world.run(**settings)


def test_pictures_are_never_broadcast(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> None:
    """By their files, equal pictures look small enough; in the memory of one process they may be gigabytes."""
    frames = spark.createDataFrame([("a", 0, 0, b"jpeg")], "media_id string, stream_index int, pts long, image binary")
    found = export_dataset._join_pictures(frames.drop("image").withColumn("split", F.lit("train")), frames)
    assert found.collect()[0]["image"] == b"jpeg"
    capsys.readouterr()
    found.explain()
    plan = capsys.readouterr().out
    assert "SortMergeJoin" in plan and "Broadcast" not in plan
