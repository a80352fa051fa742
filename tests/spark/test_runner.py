"""The runner on a stage of a few lines: waves, progress, quarantine, gates, corrections, kills and decisions."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from spark_session import KilledAt

from visionlake.errors import UsageError
from visionlake.expectations._table import Check, Column, Rule, Table
from visionlake.jobs import _histories, _quarantine, _waves
from visionlake.jobs._config import Pipeline, TrackingConfig
from visionlake.jobs._histories import Histories
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import plan, run
from visionlake.jobs._record import History, Progress, Wave, read_history, write_row
from visionlake.jobs._results import Reporter, RunResult
from visionlake.jobs._schemas import to_spark
from visionlake.jobs._stage import Input, Stage, StageConfig, setting

THINGS = Table(
    name="things",
    comment="what the test puts in",
    columns=(
        Column(name="media_id", type="string", comment="key", nullable=False),
        Column(name="size", type="int", comment="how many children; negative: an error"),
        Column(name="remark", type="string", comment="nothing depends on it"),
    ),
    key=("media_id",),
    cluster_by=("media_id",),
)
PARTS = Table(
    name="parts",
    comment="what the stage makes of it",
    columns=(
        Column(name="media_id", type="string", comment="key", nullable=False),
        Column(name="place", type="bigint", comment="key", nullable=False),
        Column(name="value", type="bigint", comment="place * factor"),
        Column(name="input_version", type="bigint", comment="version seen", volatile=True),
    ),
    key=("media_id", "place"),
    rules=(Rule(name="value_too_large", holds="value < 1000", message="value < 1000"),),
    checks=(Check(name="mean_value", metric="avg(value)", maximum=400, expected="a mean value of at most 400"),),
    properties={"delta.dataSkippingStatsColumns": "media_id,place,input_version"},
)
COMPUTED: list[str] = []


class Config(StageConfig):
    factor: int = setting(1, description="multiplies places")


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    COMPUTED.extend(sorted(row["media_id"] for row in inputs["things"].select("media_id").collect()))
    bad = F.struct(
        F.lit("negative").alias("reason"),
        F.lit("size < 0").alias("message"),
        F.lit(None).cast("string").alias("payload"),
    )
    things = inputs["things"].withColumn("error", F.when(F.col("size") < 0, bad))
    places = F.when(F.col("size") > 0, F.sequence(F.lit(1), F.col("size"))).otherwise(F.array(F.lit(None).cast("int")))
    rows = things.withColumn("place", F.explode(places)).withColumn("place", F.col("place").cast("bigint"))
    return rows.select("media_id", "place", (F.col("place") * config.factor).alias("value"), "error")


STAGE = Stage(
    name="make_parts", summary="parts of things", config=Config,
    inputs=(Input(table=THINGS, depends_on=("size",)),), outputs=(PARTS,), transform=transform,
)  # fmt: skip


class World:
    """A lake with `things`, and the pipeline over it."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.spark = folder, spark
        self.lake = Lake(folder / "lake", spark=spark)
        self.lake.ensure(THINGS)

    def pipeline(self, **settings: Any) -> Pipeline:
        settings.setdefault("max_wave_parents", 3)
        return Pipeline(
            path=self.folder / "p.toml", folder=self.folder, lake=str(self.folder / "lake"),
            stages=((STAGE, Config(**settings)),), tracking=TrackingConfig(enabled=False),
        )  # fmt: skip

    def put(self, sizes: dict[str, int]) -> None:
        found = [{"media_id": k, "size": v, "remark": ""} for k, v in sizes.items()]
        rows = to_spark(self.spark, found, THINGS.arrow_schema())
        rows.coalesce(1).write.format("delta").mode("append").save(self.lake.path("things"))

    def run(self, reporter: Reporter | None = None, *, rebuild: bool = False, **settings: Any) -> RunResult:
        COMPUTED.clear()
        return run(self.pipeline(**settings), spark=self.spark, reporter=reporter, rebuild=rebuild)

    def parts(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for row in self.lake.table("parts").orderBy("media_id", "place").collect():
            found.setdefault(row["media_id"], []).append(row["value"])
        return found

    def quarantined(self) -> dict[str, str]:
        return {row["input_key"]: row["reason"] for row in self.lake.table("quarantine").collect()}

    def version(self) -> int:
        return self.lake.version("parts")


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path / "a lake ü", spark)


def test_waves_publish_everything_once_and_a_second_run_does_nothing(world: World) -> None:
    world.put({"a": 2, "b": 1, "c": 3, "d": 1, "e": -1})
    result = world.run()
    assert result.exit_code == 0 and result.stages[0].waves == 2 and result.stages[0].parents == 5
    assert world.parts() == {"a": [1, 2], "b": [1], "c": [1, 2, 3], "d": [1]}
    assert world.quarantined() == {"e": "negative"}
    before = world.version()
    again = world.run()
    assert again.stages[0].status == "nothing_new" and COMPUTED == [] and world.version() == before
    waves = world.lake.table("waves").orderBy("sequence").collect()
    assert [w["status"] for w in waves] == ["published", "published"]
    assert waves[-1]["inputs"][0]["is_complete"] and waves[0]["inputs"][0]["last_key"] == "c"
    assert {c["name"] for c in waves[0]["checks"]} >= {"error_share", "parents_accounted", "mean_value"}


def test_only_what_changed_is_computed_and_only_its_rows_are_touched(world: World) -> None:
    world.put({"a": 2, "b": 1, "c": 3})
    first = world.run()
    world.put({"d": 2})
    world.run()
    assert COMPUTED == ["d"]
    assert Lake(world.lake.uri, spark=world.spark, as_of=first.run_id).table("parts").count() == 6
    things = f"delta.`{world.lake.path('things')}`"
    world.spark.sql(f"UPDATE {things} SET remark = 'x'")
    before = world.version()
    world.run()
    assert COMPUTED == [] and world.version() == before
    world.spark.sql(f"UPDATE {things} SET size = 1 WHERE media_id = 'c'")
    world.spark.sql(f"DELETE FROM {things} WHERE media_id = 'a'")
    world.run()
    assert COMPUTED == ["c"]
    assert world.parts() == {"b": [1], "c": [1], "d": [1, 2]}


def test_a_mended_input_clears_its_quarantine(world: World) -> None:
    world.put({"a": -1})
    world.run()
    assert world.quarantined() == {"a": "negative"}
    world.spark.sql(f"UPDATE delta.`{world.lake.path('things')}` SET size = 1")
    world.run()
    assert world.quarantined() == {} and world.parts() == {"a": [1]}


@pytest.mark.parametrize(
    "step",
    ["staged", "quarantine", *(pytest.param(step, marks=pytest.mark.long) for step in ("judged", "table", "progress"))],
)
def test_stopping_after_a_step_loses_and_doubles_nothing(world: World, step: str) -> None:
    world.put({"a": 2, "b": -1})
    with pytest.raises(KeyboardInterrupt):
        world.run(KilledAt(step))
    assert COMPUTED == ["a", "b"]
    world.run()
    assert COMPUTED == []
    assert world.parts() == {"a": [1, 2]} and world.quarantined() == {"b": "negative"}
    assert world.lake.table("waves").count() == 1


def test_a_gate_stops_then_release_and_drop_do_what_they_say(world: World) -> None:
    world.put({"a": 2, "b": 3})
    stopped = world.run(factor=500)
    assert stopped.exit_code == 3 and world.lake.table("parts").isEmpty()
    version = world.version()
    again = world.run(factor=500)
    assert again.exit_code == 3 and COMPUTED == [] and world.version() == version
    failed = next(c for c in again.stages[0].checks if c.name == "mean_value")
    assert failed.status == "stopped" and failed.observed == "500"
    (wave,) = _waves.list_waves(world.lake)
    assert wave["status"] == "stopped"
    _waves.release(world.lake, wave["wave_id"], who="me", why="looked at it", pipeline=world.pipeline(factor=500))
    assert world.parts() == {"a": [500], "b": [500]}
    (wave,) = _waves.list_waves(world.lake)
    assert (wave["status"], wave["decided_by"], wave["decided_why"]) == ("released", "me", "looked at it")
    world.put({"c": 1})
    assert world.run(factor=500).exit_code == 3
    newest = _waves.list_waves(world.lake)[0]["wave_id"]
    _waves.drop(world.lake, newest, who="me", why="bad", pipeline=world.pipeline(factor=500))
    assert world.quarantined()["c"] == "wave_dropped" and set(world.parts()) == {"a", "b"}
    assert world.run(factor=500).stages[0].status == "nothing_new"


def test_changed_settings_want_rebuild_and_leave_equal_rows_alone(world: World) -> None:
    from visionlake.errors import UsageError

    world.put({"a": 1, "b": 2})
    world.run(factor=1)
    with pytest.raises(UsageError, match=r"factor 1 -> 2.*--rebuild"):
        world.run(factor=2)
    world.run(factor=2, rebuild=True)
    assert world.parts() == {"a": [2], "b": [2, 4]}
    before = world.version()
    world.run(factor=2, rebuild=True)
    assert COMPUTED == [] and world.version() == before


def test_replay_processes_chosen_parents_again(world: World) -> None:
    world.put({"a": -1, "b": -1, "c": 1})
    world.run()
    assert _quarantine.replay(world.lake, input_key="a") == 1
    world.run()
    assert COMPUTED == ["a"] and world.quarantined() == {"a": "negative", "b": "negative"}
    world.run()
    assert COMPUTED == []


def test_limit_bounds_a_run_and_the_next_goes_on(world: World) -> None:
    world.put({"a": 1, "b": 1, "c": 1})
    COMPUTED.clear()
    run(world.pipeline(), spark=world.spark, limit=2)
    assert COMPUTED == ["a", "b"]
    world.run()
    assert COMPUTED == ["c"]


@pytest.mark.long
def test_a_run_goes_on_from_the_rest_of_an_interrupted_one_to_what_came_after_it(world: World) -> None:
    world.put(dict.fromkeys("abcde", 1))
    run(world.pipeline(), spark=world.spark, limit=2)
    world.put({"aa": 1, "f": 1})
    world.run()
    assert [*world.parts()] == ["a", "aa", "b", "c", "d", "e", "f"]
    world.put({"g": 1, "h": 1})
    run(world.pipeline(), spark=world.spark, limit=1)  # of changes, this time
    world.put({"aaa": 1})
    world.run()
    assert [*world.parts()] == ["a", "aa", "aaa", "b", "c", "d", "e", "f", "g", "h"]
    assert world.run().stages[0].status == "nothing_new"


def test_plan_counts_without_doing(world: World) -> None:
    world.put({"a": 2, "b": 1})
    (planned,) = plan(world.pipeline(), spark=world.spark)
    assert (planned.parents, planned.replays, world.lake.exists("waves")) == (2, 0, False)
    weighed = dataclasses.replace(STAGE, weight=lambda _: "size")
    pipeline = dataclasses.replace(world.pipeline(), stages=((weighed, Config()),))
    (planned,) = plan(pipeline, spark=world.spark)
    assert (planned.parents, planned.estimated_rows) == (2, 3)
    (planned,) = plan(pipeline, spark=world.spark, limit=1)
    assert (planned.parents, planned.estimated_rows) == (1, 2)


def test_plan_counts_what_is_to_be_replayed(world: World) -> None:
    world.put({"a": 1, "b": -1})
    world.run()
    _quarantine.replay(world.lake)
    (planned,) = plan(world.pipeline(), spark=world.spark)
    assert (planned.parents, planned.replays) == (0, 1)


def test_bad_rows_of_one_key_are_one_row_that_counts_them(world: World) -> None:
    def thrice(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
        return transform(inputs, config).withColumn("_again", F.explode(F.array(*map(F.lit, range(3))))).drop("_again")

    world.put({"a": 1, "b": 2})
    pipeline = world.pipeline(max_error_share=1.0)
    stage = dataclasses.replace(STAGE, transform=thrice)
    result = run(dataclasses.replace(pipeline, stages=((stage, pipeline.stages[0][1]),)), spark=world.spark)
    assert result.stages[0].reasons == {"duplicate_key": 6} and world.parts() == {"a": [1], "b": [1, 2]}
    bad = world.lake.table("quarantine").collect()
    assert {row["output_key"] for row in bad} == {"a/1", "b/1", "b/2"}
    assert {row["message"] for row in bad} == {"allowed: one row per key (and 1 more like it)"}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("taken", "taken cannot be a folder: File exists"),
        ("taken/lake", "taken/lake cannot be a folder: Not a directory"),
        ("nowhere://bucket/lake", "nowhere://bucket/lake cannot be reached"),
    ],
)
def test_a_place_where_no_lake_can_be_is_the_users_to_mend(world: World, place: str, words: str) -> None:
    (world.folder / "taken").write_text("a file")
    there = place if "://" in place else str(world.folder / place)
    with pytest.raises(UsageError, match=words):
        run(dataclasses.replace(world.pipeline(), lake=there), spark=world.spark)


def test_users_own_expectations_judge_the_rows(world: World) -> None:
    world.put({"a": 3})
    own = ({"type": "expect_column_values_to_be_between", "column": "value", "max_value": 2, "severity": "stop"},)
    result = world.run(expectations=own)
    assert result.exit_code == 3
    assert [c.status for c in result.stages[0].checks][-1] == "stopped"
    assert world.run(expectations=()).exit_code == 0


def test_an_added_column_comes_by_itself_and_another_difference_is_an_error(world: World) -> None:
    world.lake.ensure(PARTS)
    wider = PARTS.with_columns([Column(name="extra", type="string", comment="it's new")])
    Lake(world.lake.uri, spark=world.spark).ensure(wider)
    assert "extra" in world.lake.table("parts").columns
    other = dataclasses.replace(PARTS, columns=(*PARTS.columns[:2], Column(name="value", type="string", comment="")))
    from visionlake.errors import StageError

    with pytest.raises(StageError, match="value is bigint, declared string"):
        Lake(world.lake.uri, spark=world.spark).ensure(other)


def test_only_a_table_that_the_lake_itself_made_is_known_to_be_untouched(world: World) -> None:
    other = Lake(world.lake.uri, spark=world.spark)
    other.ensure(THINGS)
    assert world.lake.is_untouched("things")
    assert not other.is_untouched("things")  # whoever made it may have put something in
    world.put({"a": 1})
    assert not world.lake.is_untouched("things")


def test_histories_are_read_again_only_once_others_have_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, other = world.lake, Lake(world.lake.uri, spark=world.spark)
    asked: list[str] = []

    def counting(*arguments: Any, **named: Any) -> History:
        asked.append(named["producer"])
        return read_history(*arguments, **named)

    monkeypatch.setattr(_histories, "read_history", counting)

    def write(by: Lake, producer: str) -> None:
        wave = Wave(
            wave_id=f"{producer}-1", run_id="r", stage="s", producer=producer, sequence=1, mode="changes",
            started_at="2026-01-01T00:00:00+00:00", progress=Progress(table="t"), config={}, settings_digest="",
            parent_key=[],
        )  # fmt: skip
        write_row(by, wave, known=False, status="published")

    histories = Histories(lake)
    mark = lake.mark("waves")
    assert histories.of("s", "mine", staged=()) == History()
    write(lake, "mine")
    assert lake.is_own_since("waves", mark) and not lake.is_untouched("waves")
    assert histories.of("s", "new", staged=()) == History() and asked == []
    assert histories.of("s", "mine", staged=()).sequence == 1, "whoever was given it has written since"
    assert not other.is_own_since("waves", mark)
    write(other, "theirs")
    assert not lake.is_own_since("waves", mark)
    assert histories.of("s", "theirs", staged=()).sequence == 1
    assert histories.at_begin("s", "theirs") == History()

    asked.clear()
    histories, mark = Histories(lake), lake.mark("waves")
    assert histories.of("s", "mine", staged=["mine-1"]).statuses == {"mine-1": "published"}
    lake.update("waves", where="producer = 'mine'", values={"sequence": "2"})
    assert lake.is_own_since("waves", mark) and histories.of("s", "theirs", staged=()).sequence == 1
    assert asked == ["mine"]
    assert histories.of("s", "mine", staged=()).sequence == 2
    shutil.rmtree(lake.path("waves"))
    assert not lake.is_own_since("waves", mark)
    write(lake, "mine")
    assert not lake.is_own_since("waves", mark), "it was made anew"


@pytest.mark.long
def test_checks_that_compare_waves_know_those_before(world: World) -> None:
    check = Check(name="usual_value", metric="avg(value)", factor=1.5, severity="warn", expected="as usual")
    stage = dataclasses.replace(STAGE, outputs=(dataclasses.replace(PARTS, checks=(check,)),))

    def run_it(size: int, name: str) -> str:
        world.put({name: size})
        pipeline = dataclasses.replace(world.pipeline(), stages=((stage, Config()),))
        (result,) = run(pipeline, spark=world.spark).stages
        (found,) = [one for one in result.checks if one.name == "usual_value"]
        return found.status

    assert [run_it(3, "a"), run_it(3, "b"), run_it(30, "c")] == ["skipped", "passed", "warned"]


def test_a_struct_gains_fields_at_its_end_and_old_rows_have_nothing_there(world: World) -> None:
    lake, key = world.lake, Column(name="media_id", type="string", comment="", nullable=False)
    kinds = ("array<struct<a int, b struct<c int>>>", "array<struct<a int, b struct<c int, d array<int>>, e string>>")
    before, after = (
        Table(name="nested", comment="", columns=(key, Column(name="v", type=kind, comment="")), key=("media_id",))
        for kind in kinds
    )
    lake.ensure(before)
    world.spark.sql(f"INSERT INTO delta.`{lake.path('nested')}` SELECT 'm', array(struct(1, struct(2)))")
    Lake(lake.uri, spark=world.spark).ensure(after)
    (row,) = lake.table("nested").collect()
    assert row["v"][0].asDict(recursive=True) == {"a": 1, "b": {"c": 2, "d": None}, "e": None}
    Lake(lake.uri, spark=world.spark).ensure(after)  # there is nothing to add any more
    from visionlake.errors import StageError

    with pytest.raises(StageError, match="column v is array"):
        Lake(lake.uri, spark=world.spark).ensure(before)


def test_a_rebuild_deletes_the_children_of_parents_that_are_gone(world: World) -> None:
    world.put({"a": 2, "b": 1})
    world.run()
    world.spark.sql(f"DELETE FROM delta.`{world.lake.path('things')}` WHERE media_id = 'a'")
    world.run(factor=2, rebuild=True)
    assert world.parts() == {"b": [2]}


@pytest.mark.long
def test_a_killed_rebuild_goes_on_from_its_staged_wave_without_asking_again(world: World) -> None:
    world.put({"a": 1, "b": 1, "c": 1, "d": 1})
    world.run(factor=1)
    with pytest.raises(KeyboardInterrupt):
        world.run(KilledAt("staged"), factor=2, rebuild=True)
    assert COMPUTED == ["a", "b", "c"]
    world.run(factor=2)
    assert COMPUTED == ["d"] and world.parts() == {"a": [2], "b": [2], "c": [2], "d": [2]}


@pytest.mark.long
def test_a_table_that_was_lost_is_made_again(world: World) -> None:
    world.put({"a": 2, "b": 3})
    world.run()
    world.put({"c": 1})
    world.run()
    shutil.rmtree(world.lake.path("parts"))
    assert world.run().exit_code == 0 and COMPUTED == ["a", "b", "c"]
    assert world.parts() == {"a": [1, 2], "b": [1, 2, 3], "c": [1]}
    assert world.run().stages[0].status == "nothing_new"


@pytest.mark.long
def test_a_stopped_wave_that_other_settings_replace_is_told_as_superseded(world: World) -> None:
    world.put({"a": 2})
    assert world.run(factor=500).exit_code == 3
    assert world.run(factor=1).exit_code == 0
    assert [wave["status"] for wave in _waves.list_waves(world.lake)] == ["published", "superseded"]


def test_a_column_that_the_stage_forgets_is_an_error_and_not_null(world: World) -> None:
    def forgetful(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
        return transform(inputs, config).drop("value")

    world.put({"a": 2})
    stage = dataclasses.replace(STAGE, transform=forgetful)
    result = run(dataclasses.replace(world.pipeline(), stages=((stage, Config()),)), spark=world.spark)
    assert result.exit_code == 1 and "make_parts returns no column value" in (result.stages[0].error or "")
    assert world.parts() == {}


def test_a_stage_that_fails_leaves_a_row_and_the_next_run_mends_it(world: World) -> None:
    world.put({"a": 1})
    broken = dataclasses.replace(STAGE, transform=lambda inputs, config: inputs["things"].select("nothing_like_it"))
    pipeline = dataclasses.replace(world.pipeline(), stages=((broken, Config()),))
    result = run(pipeline, spark=world.spark)
    assert result.exit_code == 1 and "nothing_like_it" in (result.stages[0].error or "")
    (wave,) = _waves.list_waves(world.lake)
    assert wave["status"] == "failed" and "nothing_like_it" in wave["error"]
    assert world.run().exit_code == 0 and world.parts() == {"a": [1]}
