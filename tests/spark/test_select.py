"""`select`: which frames a model looks at, again only where it must, and never twice at the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_backend
from pyspark.sql import SparkSession
from spark_session import KilledAt
from toy_world import World, picture

import visionlake
from visionlake.errors import ConfigError, UsageError
from visionlake.jobs._config import Pipeline, load_pipeline
from visionlake.jobs._pipeline import plan, run
from visionlake.jobs._results import Reporter, RunResult


@pytest.fixture(scope="module", autouse=True)
def _backend_on_workers(spark: SparkSession) -> None:
    spark.sparkContext.addPyFile(toy_backend.__file__)


class SelectWorld(World):
    """Models that are asked with predicates."""

    def pipeline(self, head: str = "", /, **selects: str | None) -> Pipeline:
        lines = ['lake = "lake"', head, "[mlflow]", "enabled = false"]
        for name, select in selects.items():
            if not (self.folder / f"{name}.json").exists():
                self.model(name)
            lines += [f"[detect_objects.{name}]", 'backend = "toy_backend"', f'weights = "{name}.json"']
            lines += [f"select = {json.dumps(select)}"] * (select is not None)
        path = self.folder / "select.toml"
        path.write_text("\n".join(lines))
        return load_pipeline(path)

    def label(self, reporter: Reporter | None = None, limit: int | None = None, **selects: str | None) -> RunResult:
        return run(self.pipeline(**selects), spark=self.spark, reporter=reporter, limit=limit)

    def seen(self, model: str) -> list[int]:
        """Pictures (by their grey) that a model was shown since the last call."""
        return sorted(int(line.split()[1]) for line in self.evaluated(model) if line.startswith("picture"))

    def forget(self, *models: str) -> None:
        for model in models:
            self.evaluated(model)

    def versions(self) -> list[int]:
        return [self.lake.version(name) for name in ("frames", "detections", "waves")]


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> SelectWorld:
    return SelectWorld(tmp_path, spark)


@pytest.mark.long
def test_only_selected_frames_are_looked_at_and_each_once_whatever_becomes_of_the_predicate(world: SelectWorld) -> None:
    world.put("a", "b", value=100, count=3)
    world.put("dark", value=10, count=2)
    assert world.label(toy="brightness > 50 AND pts < 2").exit_code == 0
    assert world.seen("toy") == [100, 100, 101, 101]
    before = world.versions()
    (again,) = world.label(toy="brightness > 50 AND pts < 2").stages
    assert again.status == "nothing_new" and world.evaluated("toy") == [] and world.versions() == before
    world.label(toy="brightness > 50")
    assert world.seen("toy") == [102, 102], "the rest of what is selected now"
    world.label(toy="pts = 0")
    assert world.seen("toy") == [10] and world.labelled() == {("toy", "a"): 3, ("toy", "b"): 3, ("toy", "dark"): 1}
    world.put("late", value=60, count=2)
    (planned,) = plan(world.pipeline(toy="pts = 0"), spark=world.spark)
    assert planned.parents == 1
    world.label(toy="pts = 0")
    assert world.seen("toy") == [60]
    world.label(toy=None)
    assert world.seen("toy") == [11, 61], "a run that is narrowed no longer catches up"
    world.put("later", value=70, count=1)
    world.label(toy=None)
    assert world.seen("toy") == [70]
    modes = [row["mode"] for row in world.lake.table("waves").orderBy("sequence").collect()]
    assert modes[-2:] == ["rest", "changes"] and {*modes[:-2]} == {"selected"}


@pytest.mark.long
def test_a_run_without_a_predicate_is_narrowed_and_widened_again(world: SelectWorld) -> None:
    world.put("a", value=100, count=2)
    world.label(toy=None)
    world.put("b", value=120, count=3)
    world.label(toy="pts > 1")
    assert world.seen("toy") == [100, 101, 122]
    world.put("c", value=140, count=3)
    for _ in range(2):
        world.label(toy=None)
    assert world.seen("toy") == [120, 121, 140, 141, 142] and len(world.rows()) == 8


@pytest.mark.long
def test_what_changes_is_labelled_again_if_it_is_selected_and_loses_its_labels_else(world: SelectWorld) -> None:
    world.put("a", value=100, count=4)
    world.put("gone", value=90, count=2)
    select = "brightness > 50"
    world.label(other=None, toy=select)
    world.forget("toy", "other")
    world.correct("media_id = 'a' AND pts = 1", image=picture(200))
    world.correct("media_id = 'a' AND pts = 2", image=picture(30), brightness=30.0)
    world.correct("media_id = 'a' AND pts = 3", brightness=20.0)  # labels do not depend on it
    world.spark.sql(f"DELETE FROM delta.`{world.lake.path('frames')}` WHERE media_id = 'gone' AND pts = 1")
    world.label(toy=select)
    assert world.seen("toy") == [200]
    left = {(row["model_id"].partition("@")[0], row["media_id"], row["pts"]) for row in world.rows()}
    assert left == {
        *(("toy", "a", pts) for pts in (0, 1, 3)), ("toy", "gone", 0),
        *(("other", "a", pts) for pts in (0, 3)), ("other", "gone", 0),
    }, "older labels of any model are gone"  # fmt: skip
    world.label(other=None, toy=select)
    assert world.seen("other") == [30, 200] and world.seen("toy") == []
    before = world.versions()
    world.label(other=None, toy=select)
    assert world.versions() == before


@pytest.mark.long
def test_what_other_models_found_selects(world: SelectWorld) -> None:
    world.model("nano", found=[[0.5, 0, [0, 0, 1, 1]]])
    world.put("a", value=100, count=2)
    world.put("dark", value=0, count=2)
    select = "models['nano'].top_score BETWEEN 0.3 AND 0.6 AND array_contains(models['nano'].labels, 'cat')"
    world.label(big=select, nano=None)
    assert world.seen("big") == [100, 101], "it runs after the model that it asks, and that found nothing in the dark"
    world.label(big=select, nano=None)
    before = world.versions()
    world.label(big=select, nano=None)
    assert world.versions() == before and world.evaluated("big") == []
    old = world.rows("model_id LIKE 'nano%'")[0]["model_id"]
    world.model("nano", found=[[0.5, 0, [0, 0, 1, 1]], [0.55, 1, [0, 0, 1, 1]]], mode="fail")
    (nano, big) = world.label(big=select, nano=None).stages
    assert (nano.status, big.status) == ("failed", "skipped") and "waits for detect_objects.nano" in (big.error or "")
    world.label(big=f"models['{old}'].instance_count = 0")
    assert world.seen("big") == [0, 1]
    with pytest.raises(ConfigError, match=rf"\[detect_objects\.big\] select = .*no model 'x@1:0'.*nano.*{old}"):
        world.label(big="models['x@1:0'] IS NULL", nano=None)


@pytest.mark.long
def test_facts_of_the_media_select_and_what_a_frame_cannot_answer_is_told(world: SelectWorld) -> None:
    from visionlake.expectations import media
    from visionlake.jobs._schemas import to_spark

    world.put("a", "b", value=100, count=2)
    select = "media.duration_s > 5 AND media.camera_make = 'x'"
    world.label(toy=select)
    assert world.seen("toy") == []
    world.lake.ensure(media.TABLE)
    rows = to_spark(
        world.spark,
        [{"media_id": "a", "duration_s": 9.0, "camera_make": "x"}, {"media_id": "b", "duration_s": 1.0}],
        media.TABLE.arrow_schema(),
    )
    rows.write.format("delta").mode("append").save(world.lake.path("media"))
    world.label(toy=select)
    assert world.seen("toy") == [100, 101]
    (stage,) = world.label(toy="1 / pts > 0").stages
    assert stage.status == "failed" and stage.exit_code == 2
    assert "select fails on a frame" in (stage.error or "") and "DIVIDE_BY_ZERO" in (stage.error or ""), stage.error


def test_a_predicate_that_spark_cannot_read_stops_before_any_stage(world: SelectWorld) -> None:
    world.put("a")
    for select, said in (
        ("brightness <", "PARSE_SYNTAX_ERROR"),
        ("brightness", "gives double; allowed is a condition"),
        ("media.camera > 3", "FIELD_NOT_FOUND"),
        ("array_contains(brightness, 3)", "DATATYPE_MISMATCH"),
        ("models['toy'].top_score + 1", "gives double"),
    ):
        for start in (run, plan):
            with pytest.raises(ConfigError) as raised:
                start(world.pipeline(first=None, toy=select), spark=world.spark)
            text = str(raised.value)
            assert text.startswith("[detect_objects.toy] select = ") and said in text and "JVM" not in text, text
    assert world.evaluated("first") == [] and not world.has_labels()
    with pytest.raises(UsageError, match="choose among the rows of the table"):
        visionlake.detect_objects(world.lake.table("frames"), backend="toy_backend", select="pts = 0")


@pytest.mark.parametrize("step", ["staged", pytest.param("quarantine", marks=pytest.mark.long)])
def test_a_kill_loses_doubles_and_repeats_nothing(world: SelectWorld, step: str) -> None:
    world.put("a", "b", value=100, count=2)
    world.put("torn", value=80, count=1, image=picture(80)[:-30])
    select = "pts = 0"
    with pytest.raises(KeyboardInterrupt):
        world.label(KilledAt(step), toy=select)
    assert world.seen("toy") == [100, 100]
    world.label(toy=select)
    world.label(toy=select)
    assert world.seen("toy") == [] and world.labelled() == {("toy", "a"): 1, ("toy", "b"): 1}
    assert world.lake.table("quarantine").count() == 1
    world.label(toy="pts < 9")
    assert world.seen("toy") == [101, 101], "what is in quarantine stays there"


@pytest.mark.long
def test_a_limited_run_goes_on_also_with_another_predicate_and_after_changes(world: SelectWorld) -> None:
    world.put("a", "b", "c", value=100, count=2)
    world.label(toy="pts = 0", limit=1)
    world.label(toy="pts = 0", limit=1)
    assert world.labelled() == {("toy", "a"): 1, ("toy", "b"): 1}
    world.seen("toy")
    world.put("aa", value=60, count=2)
    world.correct("media_id = 'a' AND pts = 0", image=picture(200))
    world.label(toy="pts < 2", limit=2)
    assert world.seen("toy") == [60, 61, 101, 200]
    world.label(toy="pts < 2")
    assert world.seen("toy") == [100, 101, 101] and len(world.rows()) == 8
    world.label(toy="pts < 2")
    assert world.seen("toy") == []


@pytest.mark.long
def test_rebuild_and_lost_tables(world: SelectWorld) -> None:
    import shutil

    world.put("a", value=100, count=3)
    world.label(toy="pts < 2")
    world.label(toy="pts = 1")
    world.seen("toy")
    pipeline = world.pipeline(toy="pts = 1")
    run(pipeline, spark=world.spark, only=["detect_objects"], rebuild=True)
    assert world.seen("toy") == [100, 101], "the selected and what has labels"
    shutil.rmtree(world.lake.path("detections"))
    run(pipeline, spark=world.spark)
    assert world.seen("toy") == [101] and world.labelled() == {("toy", "a"): 1}


@pytest.mark.long
@pytest.mark.parametrize("then", ["pts = 0", "pts < 5"])
def test_a_rebuild_that_was_cut_off_goes_on_to_its_end(world: SelectWorld, then: str) -> None:
    world.put("a", "b", value=100, count=1)
    world.label(toy="pts = 0")
    world.seen("toy")
    pipeline = world.pipeline(toy="pts = 0")
    run(pipeline, spark=world.spark, only=["detect_objects"], rebuild=True, limit=1)
    assert world.seen("toy") == [100]
    world.label(toy=then)
    assert world.seen("toy") == [100], "the other one, whose label looks as fresh as that of the first"
    world.label(toy=then)
    assert world.seen("toy") == []


@pytest.mark.long
def test_a_rebuild_tries_again_what_is_in_quarantine(world: SelectWorld) -> None:
    world.put("torn", value=80, count=1, image=picture(80)[:-30])
    pipeline = world.pipeline(toy="pts = 0")
    for rebuild in (False, True):
        result = run(pipeline, spark=world.spark, only=["detect_objects"], rebuild=rebuild)
        assert result.stages[0].quarantined == 1


@pytest.mark.long
def test_changes_that_are_vacuumed_away_cost_a_second_look_and_no_label(world: SelectWorld) -> None:
    import shutil

    world.put("a", value=100, count=3)
    world.label(other=None, toy="pts < 2")
    world.correct("pts = 2", image=picture(200))
    shutil.rmtree(world.lake.path("frames", "_change_data"))
    world.forget("toy", "other")
    assert world.label(other=None, toy="pts = 1").exit_code == 0
    assert world.seen("toy") == [100, 101] and world.seen("other") == [100, 101, 200]
    assert world.labelled() == {("other", "a"): 3, ("toy", "a"): 2}
