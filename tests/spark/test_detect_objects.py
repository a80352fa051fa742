"""Labels: whose they are, what makes them due, and what becomes of a bad picture or a bad model."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import toy_backend
from pyspark.sql import DataFrame, SparkSession
from spark_session import KilledAt
from toy_world import World, picture

import visionlake
from visionlake.errors import UsageError
from visionlake.expectations import detections
from visionlake.jobs import _waves
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._pipeline import run


@pytest.fixture(scope="module", autouse=True)
def _backend_on_workers(spark: SparkSession) -> None:
    spark.sparkContext.addPyFile(toy_backend.__file__)


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path, spark)


def pictures_of(lines: list[str]) -> list[int]:
    return sorted(int(line.split()[1]) for line in lines if line.startswith("picture"))


def test_each_frame_is_evaluated_once_and_only_what_is_new(world: World) -> None:
    world.model("toy")
    world.put("a", "b", count=10)
    world.put("dark", value=0, count=2)
    result = world.run("toy", batch_size=4)
    assert result.exit_code == 0, result
    assert result.stages[0].stage == "detect_objects.toy" and result.stages[0].published == 22
    lines = world.evaluated("toy")
    assert pictures_of(lines) == sorted([*range(100, 110)] * 2 + [0, 1])
    assert max(int(line.split()[1]) for line in lines if line.startswith("batch")) == 4
    assert world.labelled() == {("toy", "a"): 10, ("toy", "b"): 10, ("toy", "dark"): 2}
    (first, *_), dark = world.rows("media_id = 'a'"), world.rows("media_id = 'dark'")
    (instance,) = first["instances"]
    assert (instance["label_id"], instance["label"], instance["score"]) == (0, "cat", 0.9)
    assert tuple(instance["box"]) == (0.0, 0.0, 20.0, 10.0)
    assert (first["frame_width_px"], first["frame_height_px"]) == (40, 20)
    assert [row["instances"] for row in dark] == [[], []]
    assert world.lake.table("instances").count() == 20

    assert world.run("toy").stages[0].status == "nothing_new" and world.evaluated("toy") == []
    world.put("c", count=1)
    assert world.run("toy", batch_size=1).stages[0].published == 1 and pictures_of(world.evaluated("toy")) == [100]


def test_labels_open_without_spark_as_the_readme_says(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.model("toy")
    world.put("a", count=2)
    world.run("toy")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "lake/detections" in b]
    monkeypatch.chdir(world.folder)
    exec(block, {})
    shown = capsys.readouterr().out
    assert shown.count("cat") == 2 and "x_max" in shown


@pytest.mark.long
def test_another_threshold_labels_again_beside_the_old_rows(world: World) -> None:
    world.model("toy", found=[[0.9, 0, [0, 0, 1, 1]], [0.4, 1, [0, 0, 0.5, 1]]])
    world.put("a")
    world.run("toy")
    world.run("toy", score_threshold=0.5)
    assert [len(row["instances"]) for row in world.rows()] in ([2, 2, 2, 1, 1, 1], [1, 1, 1, 2, 2, 2])
    world.evaluated("toy")
    world.run("toy", score_threshold=0.3)  # as declared
    assert world.evaluated("toy") == [] and len(world.rows()) == 6


def test_a_kill_evaluates_nothing_again(world: World) -> None:
    world.model("toy")
    world.put("a", count=4)
    with pytest.raises(KeyboardInterrupt):
        world.run("toy", reporter=KilledAt("staged"))
    assert len(pictures_of(world.evaluated("toy"))) == 4
    assert world.run("toy").exit_code == 0
    assert world.evaluated("toy") == [] and world.labelled() == {("toy", "a"): 4}


def test_bad_pictures_are_rows_with_their_reason(world: World) -> None:
    world.model("toy")
    world.put("good", count=40)
    world.put("torn", count=1, image=picture(9)[:-30])
    world.put("text", count=1, image=b"no picture")
    world.put("large", count=1, image=picture(9, width=4000, height=100))
    assert world.run("toy", max_pixels=10_000).exit_code == 0
    bad = world.lake.table("quarantine").collect()
    assert {row["input_key"].split("/")[0]: row["reason"] for row in bad} == {
        "torn": "image_unreadable", "text": "image_unreadable", "large": "image_too_large",
    }  # fmt: skip
    assert {row["stage"] for row in bad} == {"detect_objects"} and world.labelled() == {("toy", "good"): 40}


@pytest.mark.long
def test_bad_models_stop_at_the_gate(world: World) -> None:
    bad = {
        "high": ([1.5, 0, [0, 0, 1, 1]], "score_out_of_range"),
        "nan": ([float("nan"), 0, [0, 0, 1, 1]], "score_out_of_range"),
        "outside": ([0.9, 0, [0, 0, 1.2, 1]], "box_outside"),
        "empty": ([0.9, 0, [0.5, 0, 0.5, 1]], "box_empty"),
        "unknown": ([0.9, 7, [0, 0, 1, 1]], "label_unknown"),
    }
    for name, (found, _) in bad.items():
        world.model(name, found=[found])
    world.model("good")
    world.put("a")
    world.run("good")
    version = world.lake.version("detections")
    result = world.run("good", *bad)
    assert result.exit_code == 3
    assert [stage.status for stage in result.stages] == ["nothing_new", *["stopped"] * len(bad)]
    for stage, (name, (_, reason)) in zip(result.stages[1:], bad.items(), strict=True):
        (check,) = [check for check in stage.checks if check.stops]
        assert check.name == "row_rules" and check.keys and f"{name}@1" in check.keys[0]
        assert dict(stage.reasons) == {reason: 3}
    assert world.lake.version("detections") == version and world.labelled() == {("good", "a"): 3}
    waves = {(wave["status"], wave["producer"].partition("@")[0]) for wave in _waves.list_waves(world.lake)}
    assert waves == {("published", "good"), *(("stopped", name) for name in bad)}


def test_a_model_that_hangs_dies_or_fails_is_named(world: World) -> None:
    world.put("a")
    for mode, message in (("hang", "hangs: no answer within 1 s"), ("die", "crashed"), ("fail", "out of luck")):
        world.model("toy", mode=mode)
        (stage,) = world.run("toy", batch_limit_s=1.0).stages
        told = stage.error or ""
        assert stage.status == "failed" and "toy@1:" in told and message in told, (mode, stage)
        assert not world.rows()
    world.model("toy")
    assert world.run("toy").exit_code == 0 and len(world.rows()) == 3


@pytest.mark.long
@pytest.mark.parametrize("first", ["one", "two"])
def test_a_corrected_frame_renews_the_labels_of_all_models_and_of_no_other_frame(world: World, first: str) -> None:
    for name in ("one", "two"):
        world.model(name)
    world.put("a", "b", count=5)
    world.put("gone", count=2)
    world.run("one", "two")
    before = {tuple(row[:4]): row for row in world.rows()}
    world.correct("media_id = 'a' AND pts = 2", image=picture(200))
    world.correct("media_id = 'b'", brightness=1.0)  # labels do not depend on it
    world.spark.sql(f"DELETE FROM delta.`{world.lake.path('frames')}` WHERE media_id = 'gone' AND pts = 1")
    version = world.lake.version("frames")
    for name in ("one", "two"):
        world.evaluated(name)
    world.run(first)
    stale = {row["model_id"].partition("@")[0] for row in world.rows("media_id = 'a' AND pts = 2")}
    assert stale == {first}, "labels of what the frame showed before are gone, whoever runs first"
    assert len(world.rows("media_id = 'gone'")) == 2
    world.run("one", "two")
    assert [pictures_of(world.evaluated(name)) for name in ("one", "two")] == [[200], [200]]
    after = {tuple(row[:4]): row for row in world.rows()}
    assert {key for key in before if key not in after} == {key for key in before if key[0] == "gone" and key[2] == 1}
    renewed = {key for key, row in after.items() if row["input_version"] == version}
    assert renewed == {key for key in before if key[0] == "a" and key[2] == 2} and len(renewed) == 2
    assert all(after[key] == before[key] for key in after if key not in renewed)


@pytest.mark.long
def test_a_new_model_clears_what_an_old_one_can_no_longer_know(world: World) -> None:
    world.model("old")
    world.model("new")
    world.put("a")
    world.run("old")
    world.correct("pts = 2", image=picture(200))
    world.spark.sql(f"DELETE FROM delta.`{world.lake.path('frames')}` WHERE pts = 1")
    world.run("new")
    assert sorted((row["model_id"].partition("@")[0], row["pts"]) for row in world.rows()) == [
        ("new", 0), ("new", 2), ("old", 0),
    ]  # fmt: skip


@pytest.mark.long
def test_labels_that_came_out_equal_are_not_taken_for_stale(world: World) -> None:
    for name in ("one", "two"):
        world.model(name)
    world.put("dark", value=0, count=2)
    world.run("one", "two")
    world.correct("pts = 1", image=picture(0))  # nothing to be seen before, nothing after
    config = load_pipeline(world.folder / "p.toml")
    run(config, spark=world.spark, only=["detect_objects.one"], rebuild=True)
    for _ in range(2):
        world.run("one", "two")
        assert world.labelled() == {("one", "dark"): 2, ("two", "dark"): 2}


@pytest.mark.long
def test_replaced_weights_are_another_model_also_for_a_worker_that_is_warm(world: World) -> None:
    world.model("toy")
    world.put("a")
    world.run("toy")
    world.model("toy", found=[[0.5, 1, [0, 0, 0.5, 1]]])
    world.run("toy")
    scores = {row["model_id"]: {i["score"] for i in row["instances"]} for row in world.rows()}
    assert sorted(scores.values(), key=min) == [{0.5}, {0.9}]


@pytest.mark.long
def test_a_stopped_wave_of_a_model_that_is_gone_can_be_dropped(world: World) -> None:
    world.model("toy", found=[[1.5, 0, [0, 0, 1, 1]]])
    world.put("a")
    assert world.run("toy").exit_code == 3
    wave = _waves.list_waves(world.lake)[0]["wave_id"]
    assert world.run("toy", score_threshold=0.6).exit_code == 3
    config = load_pipeline(world.folder / "p.toml")
    with pytest.raises(UsageError, match=r"does not have; put back what made it .* or drop the wave"):
        _waves.release(world.lake, wave, who="me", why="test", pipeline=config)
    _waves.drop(world.lake, wave, who="me", why="test", pipeline=config)
    assert _waves.show_wave(world.lake, wave)["status"] == "dropped" and not world.rows()


def test_sections_without_a_name_or_a_model_are_refused(world: World) -> None:
    from visionlake.errors import ConfigError

    path = world.folder / "q.toml"
    path.write_text('lake = "lake"\n[detect_objects]\nbackend = "exported"\n')
    with pytest.raises(ConfigError, match=r"detect_objects\.backend = .*\[detect_objects\.<name>\]"):
        load_pipeline(path)
    path.write_text('lake = "lake"\n[detect_objects.x]\nscore_treshold = 0.1\n')
    with pytest.raises(ConfigError, match=r"detect_objects\.x\.score_treshold = 0.1: .*did you mean score_threshold"):
        load_pipeline(path)
    path.write_text('lake = "lake"\n[detect_objects.x]\nweights = "none.pt2"\n')
    with pytest.raises(ConfigError, match=r"none\.pt2: there is no such file"):
        run(load_pipeline(path), spark=world.spark)


def test_the_plain_function_needs_no_lake(world: World) -> None:
    world.model("toy")
    table = world.spark.createDataFrame([("x", picture(90)), ("y", None)], "name string, image binary")
    found = labelled_by_toy(table, world).orderBy("name").collect()
    assert [row["name"] for row in found] == ["x", "y"]
    assert found[0]["instances"][0]["label"] == "cat" and found[0]["error"] is None
    assert found[1]["instances"] is None and found[1]["error"]["reason"] == "image_missing"


def test_columns_pass_the_plain_function_as_they_are(world: World) -> None:
    world.model("toy")
    when = datetime(2026, 7, 1, 12, tzinfo=UTC)
    rows = [
        (2**53 + 1, float("nan"), when, "x", [1, None], {"a": 1}, True, picture(90)),
        (None, None, None, None, None, None, None, picture(91)),
        (3, 0.1, when, "y", [], {}, False, b"none"),
    ]
    ddl = "`n``o` bigint, d double, t timestamp, s string, l array<int>, m map<string,int>, b boolean, image binary"
    table = world.spark.createDataFrame(rows, ddl).coalesce(1)
    zone = world.spark.conf.get("spark.sql.session.timeZone") or "UTC"
    world.spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    try:
        found = labelled_by_toy(table, world)
        names = [name for name in table.columns if name != "image"]
        kept = found.select(*(f"`{name.replace('`', '``')}`" for name in names))
        assert [f.dataType for f in kept.schema] == [f.dataType for f in table.drop("image").schema]
        assert sorted(map(str, kept.collect())) == sorted(map(str, table.drop("image").collect()))
    finally:
        world.spark.conf.set("spark.sql.session.timeZone", zone)
    with pytest.raises(UsageError, match=r"column image of type binary.*its column image is string"):
        labelled_by_toy(table.selectExpr("s AS image"), world)


def labelled_by_toy(table: DataFrame, world: World) -> DataFrame:
    return visionlake.detect_objects(table, backend="toy_backend", weights=str(world.folder / "toy.json"))


def test_the_table_is_what_the_contract_says(world: World) -> None:
    names = [column.name for column in detections.TABLE.columns]
    assert names[:7] == [
        "media_id", "stream_index", "pts", "model_id", "frame_width_px", "frame_height_px", "instances",
    ]  # fmt: skip
