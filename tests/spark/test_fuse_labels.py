"""Fused rows in `detections`: which frames get one, what makes it due again, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy_backend
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from spark_session import KilledAt
from toy_world import World, picture

from visionlake.expectations import detections
from visionlake.jobs import _quarantine, _waves, fuse_labels
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._pipeline import plan, run
from visionlake.jobs._results import Reporter, RunResult

CAT = [0.8, 0, [0.0, 0.0, 0.5, 0.5]]
TABLES = ("frames", "detections", "quarantine", "waves")


@pytest.fixture(scope="module", autouse=True)
def _backend_on_workers(spark: SparkSession) -> None:
    spark.sparkContext.addPyFile(toy_backend.__file__)


class Hearing(Reporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Fusing(World):
    """Models `one` and `two` and their fusion; further models may stand beside them."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        super().__init__(folder, spark)
        self.model("one", found=[CAT])
        self.model("two", found=[[0.4, 0, [0.0, 0.0, 0.5, 0.5]], [0.6, 1, [0.5, 0.5, 1.0, 1.0]]])

    def fuse(
        self,
        *models: str,
        only: list[str] | None = None,
        limit: int | None = None,
        reporter: Reporter | None = None,
        sources: tuple[str, ...] = ("one", "two"),
        **settings: Any,
    ) -> RunResult:
        lines = ['lake = "lake"', "[mlflow]", "enabled = false"]
        for model in models or ("one", "two"):
            kind, name = "segment" if "." in model else "detect", model.rpartition(".")[2]
            lines += [f"[{kind}_objects.{name}]", 'backend = "toy_backend"', f'weights = "{name}.json"']
        own = {"sources": sources, **settings}
        lines += ["[fuse_labels.both]", *(f"{key} = {json.dumps(value)}" for key, value in own.items())]
        (self.folder / "f.toml").write_text("\n".join(lines))
        return run(self.pipeline(), spark=self.spark, only=only, limit=limit, reporter=reporter)

    def pipeline(self) -> Any:
        return load_pipeline(self.folder / "f.toml")

    def fused(self, where: str = "true") -> dict[tuple[str, int], Any]:
        found = self.rows(f"model_id LIKE 'fusion@%' AND {where}")
        return {(row["media_id"], row["pts"]): row for row in found}

    def versions(self) -> list[int]:
        return [self.lake.version(name) for name in TABLES if self.lake.exists(name)]

    def delete(self, table: str, where: str) -> None:
        self.spark.sql(f"DELETE FROM delta.`{self.lake.path(table)}` WHERE {where}")


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> Fusing:
    return Fusing(tmp_path, spark)


def labels_of(row: Any) -> list[Any]:
    return [(one["label"], pytest.approx(one["score"])) for one in row["instances"]]


def test_frames_that_all_sources_have_seen_are_fused_once(world: Fusing) -> None:
    world.put("a", "b", count=2)
    result = world.fuse()
    assert result.exit_code == 0, result
    assert [(one.stage, one.published) for one in result.stages][-1] == ("fuse_labels.both", 4)
    assert result.stages[-1].tally == {"cat": 4, "dog": 4}
    assert not [check for check in result.stages[-1].checks if check.failed]
    models = {row["model_id"].partition("@")[0]: row["model_id"] for row in world.rows()}
    assert world.labelled() == {(name, media): 2 for name in ("one", "two", "fusion") for media in "ab"}
    for row in world.fused().values():
        assert labels_of(row) == [("cat", 0.6), ("dog", 0.3)]
        cat, dog = row["instances"]
        assert [tuple(parent) for parent in cat["parents"]] == [(models["one"], 0), (models["two"], 0)]
        assert [tuple(parent) for parent in dog["parents"]] == [(models["two"], 1)]
        assert tuple(dog["box"]) == (20.0, 10.0, 40.0, 20.0) and row["frame_width_px"] == 40
        assert row["input_version"] == world.lake.version("frames")
    assert {row["parents"] is None for row in world.lake.table("instances").collect()} == {True, False}
    (told,) = world.lake.table("models").where("name = 'fusion'").collect()
    assert (told["backend"], told["version"]) == ("fuse_labels", "wbf-1")
    assert json.loads(told["card"])["sources"] == [models["one"], models["two"]]
    before = world.versions()
    assert {one.status for one in world.fuse().stages} == {"nothing_new"} and world.versions() == before
    assert [one.parents for one in plan(world.pipeline(), spark=world.spark)] == [0, 0, 0]


@pytest.mark.long
def test_frames_are_due_once_all_sources_have_seen_them(world: Fusing) -> None:
    world.put("a", count=2)
    world.fuse()
    world.model("three")
    assert world.fuse("one", "two", "three").stages[-1].published == 0, "it is no source"
    world.put("c", count=2)
    world.fuse(only=["detect_objects.one"])
    assert world.fuse(only=["fuse_labels"]).stages[-1].published == 0 and not world.fused("media_id = 'c'")
    hearing = Hearing()
    world.fuse(only=["fuse_labels"], sources=("one", "nobody@1:0123456789abcdef"), reporter=hearing)
    assert hearing.notes == ["fuse_labels.both: there is no row of nobody@1:0123456789abcdef in detections yet"]
    before = world.rows("media_id <> 'c'")
    assert world.fuse().stages[-1].published == 2 and len(world.fused("media_id = 'c'")) == 2
    assert world.rows("media_id <> 'c'") == before


@pytest.mark.long
def test_changed_frames_and_labels_renew_their_fused_rows_and_no_others(world: Fusing) -> None:
    world.put("a", "b", count=3)
    world.fuse()
    before = world.fused()
    world.correct("media_id = 'a' AND pts = 1", image=picture(0))
    world.delete("frames", "media_id = 'b' AND pts = 2")
    version = world.lake.version("frames")
    world.fuse(only=["detect_objects.one"])
    assert {*before} - {*world.fused()} == {("a", 1), ("b", 2)}, "what was fused of old pictures goes with their labels"
    result = world.fuse()
    assert result.exit_code == 0 and result.stages[-1].published == 1
    after = world.fused()
    assert {*before} - {*after} == {("b", 2)} and after["a", 1]["instances"] == []
    assert {key for key, row in after.items() if row["input_version"] == version or row != before[key]} == {("a", 1)}
    # The same again where the labels come out equal: the row is gone with the change, and is there again after it.
    # And one source's row is made anew for an unchanged frame.
    world.correct("media_id = 'a' AND pts = 1", image=picture(1))
    one = next(row["model_id"] for row in world.rows("model_id LIKE 'one@%'"))
    world.lake.update(
        "detections",
        where=f"model_id = '{one}' AND media_id = 'b' AND pts = 0",
        values={"instances": "transform(instances, i -> struct(i.label_id, i.label, 0.5D AS score, i.box, i.area_px, "
                "i.mask, i.parents))"},
    )  # fmt: skip
    world.fuse(only=["detect_objects"])
    others = world.rows("model_id NOT LIKE 'fusion@%'")
    assert world.fuse(only=["fuse_labels"]).stages[-1].parents == 2
    again = world.fused()
    assert {*again} == {*after} and again["a", 1]["input_version"] == world.lake.version("frames")
    assert labels_of(again["b", 0])[0] == ("cat", 0.45)
    world.delete("detections", f"model_id = '{one}' AND media_id = 'b' AND pts = 0")
    world.fuse(only=["fuse_labels"])
    assert {*again} - {*world.fused()} == {("b", 0)}, "a source has no word on this frame any more"
    assert [row for row in others if (row[0], row[2], row[3]) != ("b", 0, one)] == world.rows(
        "model_id NOT LIKE 'fusion@%'"
    )


@pytest.mark.long
@pytest.mark.parametrize("step", ["staged", "table"])
def test_a_killed_fusion_goes_on(world: Fusing, step: str) -> None:
    world.put("a", "b", count=2)
    world.fuse(only=["detect_objects"])
    with pytest.raises(KeyboardInterrupt):
        world.fuse(only=["fuse_labels"], reporter=KilledAt(step))
    world.correct("media_id = 'a' AND pts = 0", image=picture(0))  # in between
    world.delete("frames", "media_id = 'b' AND pts = 0")
    assert world.fuse().exit_code == 0
    fused = world.fused()
    assert {*fused} == {("a", 0), ("a", 1), ("b", 1)} and fused["a", 0]["instances"] == []
    before = world.versions()
    assert {one.status for one in world.fuse().stages} == {"nothing_new"} and world.versions() == before


@pytest.mark.long
def test_waves_are_limited_and_a_stopped_source_holds_them(world: Fusing) -> None:
    world.put("a", "b", count=2)
    world.fuse(only=["detect_objects"])
    for _ in range(2):
        assert world.fuse(limit=1, only=["fuse_labels"]).stages[-1].published == 2  # a wave a run

    world.model("two", found=[[1.5, 0, [0.0, 0.0, 1.0, 1.0]]])
    world.model("three", mode="fail")
    stages = {one.stage: one for one in world.fuse("one", "two", "three").stages}
    assert stages["detect_objects.two"].status == "stopped" and stages["detect_objects.three"].status == "failed"
    assert (stages["fuse_labels.both"].status, stages["fuse_labels.both"].error) == (
        "skipped", "waits for detect_objects.two",
    )  # fmt: skip
    world.model("two", found=[CAT])
    assert world.fuse("one", "two", "three").stages[-1].published == 4, "a failed model that is no source is no matter"


@pytest.mark.long
def test_a_model_that_comes_late_takes_no_fused_row_for_stale_whose_sources_have_looked_since(world: Fusing) -> None:
    world.model("late")
    world.put("a", count=2)
    world.fuse("one", "two", "late")
    world.correct("pts = 1", image=picture(50))
    world.fuse()
    world.lake.update("detections", where="true", values={"input_version": "0"})  # as equal rows may have it
    world.fuse("one", "two", "late")
    assert world.labelled() == {(name, "a"): 2 for name in ("one", "two", "late", "fusion")}


@pytest.mark.long
def test_masks_bad_rows_and_decisions(world: Fusing) -> None:
    world.model("masks", tasks=["instance"], found=[CAT])
    models, sources = ("one", "segment.masks"), ("one", "masks")
    world.put("a", count=2)
    world.fuse(*models, sources=sources, only=["detect_objects", "segment_objects"])
    world.lake.update("detections", where="pts = 1 AND model_id LIKE 'one@%'", values={"frame_width_px": "80"})
    stage = world.fuse(*models, sources=sources).stages[-1]
    assert (stage.status, stage.published, stage.reasons) == ("done", 1, {"sizes_differ": 1})
    (cat,) = world.fused()["a", 0]["instances"]
    (parent,) = world.rows("pts = 0 AND model_id LIKE 'masks@%'")[0]["instances"]
    assert (cat["mask"], cat["area_px"], cat["box"]) == (parent["mask"], parent["area_px"], parent["box"])
    assert cat["mask"] is not None
    (bad,) = world.lake.table("quarantine").collect()
    assert (bad["stage"], bad["reason"], bad["input_key"]) == ("fuse_labels", "sizes_differ", "a/0/1")
    _quarantine.replay(world.lake, stage="fuse_labels", reason=None, input_key=None)
    assert world.fuse(*models, sources=sources).stages[-1].reasons == {"sizes_differ": 1}, "tried, and bad as before"
    _quarantine.replay(world.lake, stage="fuse_labels", reason=None, input_key=None)
    world.delete("detections", "pts = 1 AND model_id LIKE 'one@%'")
    world.fuse(*models, sources=sources, only=["fuse_labels"])
    assert world.lake.table("quarantine").isEmpty() and len(world.fused()) == 1, (
        "nothing to fuse, nothing to complain of"
    )
    run(world.pipeline(), spark=world.spark, only=["detect_objects.one"], rebuild=True)
    world.fuse(*models, sources=sources)
    assert len(world.fused()) == 2

    # A wave that a gate stops is decided on by a pipeline file whose sections have not been looked up yet.
    world.put("dark", value=0, count=20)
    strict: dict[str, Any] = {"severity.nothing_found_share": "stop"}
    assert world.fuse(*models, sources=sources, **strict).exit_code == 3 and len(world.fused()) == 2
    (wave,) = (one["wave_id"] for one in _waves.list_waves(world.lake) if one["status"] == "stopped")
    _waves.release(world.lake, wave, who="me", why="it is night", pipeline=world.pipeline())
    assert len(world.fused()) == 22
    assert world.fuse(*models, sources=sources, **strict).stages[-1].status == "nothing_new"


def test_labels_with_several_ids_are_told_of(spark: SparkSession) -> None:
    (check,) = fuse_labels.STAGE.checks
    cats = "array(named_struct('label_id', 0, 'label', 'cat'))"
    both = "array(named_struct('label_id', 7, 'label', 'cat'), named_struct('label_id', 1, 'label', 'dog'))"
    for rows, surplus in (
        (f"({cats}), ({cats})", 0),
        (f"({cats}), ({both}), ({cats})", 1),
        (f"(slice({cats}, 1, 0))", 0),
    ):
        found = spark.sql(f"SELECT {check.metric} AS surplus FROM VALUES {rows} AS t(instances)").collect()
        assert found[0]["surplus"] == surplus


@pytest.mark.long
def test_a_lake_from_before_there_were_parents_gains_them(world: Fusing) -> None:
    world.put("a", count=2)
    world.fuse(only=["detect_objects"])
    box = "struct<x_min double, y_min double, x_max double, y_max double>"
    kind = f"array<struct<label_id int, label string, score double, box {box}, area_px bigint, "
    kind += "mask struct<size array<int>, counts string>>>"
    (world.folder / "old").mkdir()
    old = Fusing(world.folder / "old", world.spark)
    place, columns = old.lake.path("detections"), [(c.name, c.type) for c in detections.TABLE.columns]
    ddl = ", ".join(f"{name} {kind if name == 'instances' else of}" for name, of in columns)
    world.spark.sql(
        f"CREATE TABLE delta.`{place}` ({ddl}) USING delta TBLPROPERTIES (delta.enableChangeDataFeed = true)"
    )
    before = "transform(instances, i -> struct(i.label_id, i.label, i.score, i.box, i.area_px, i.mask))"
    rows = world.lake.table("detections").withColumn("instances", F.expr(f"CAST({before} AS {kind})"))
    rows.write.format("delta").mode("append").save(place)
    sources = tuple(sorted({row["model_id"] for row in world.rows()}))
    assert old.lake.table("instances").where("parents IS NULL").count() == 6
    assert old.fuse(only=["fuse_labels"], sources=sources).stages[-1].published == 2
    assert [len(row["instances"][0]["parents"]) for row in old.fused().values()] == [2, 2]
