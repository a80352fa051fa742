"""Where a label came from, what the models were, and the lake as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import toy_backend
from pyspark.sql import SparkSession
from spark_session import KilledAt
from toy_world import World, picture

from visionlake import cli
from visionlake._explain import print_explanation
from visionlake.errors import UsageError
from visionlake.expectations import declaration, waves
from visionlake.expectations._table import Table
from visionlake.jobs import _waves
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._explain import explain
from visionlake.jobs._lake import Lake
from visionlake.jobs._schemas import to_spark

MEDIA = ("aaaaaaaa", "bbbbbbbb")
FILES = {name: f"file:///films/{name[0]}%1B%5B2J.mp4" for name in (*MEDIA, "torn0000")}


def put_rows(lake: Lake, name: str, *rows: dict[str, Any], table: Table | None = None) -> None:
    declared = table or declaration(name)
    assert isinstance(declared, Table)
    Lake(lake.uri, spark=lake.spark).ensure(declared)
    found = to_spark(lake.spark, rows, declared.arrow_schema())
    found.write.format("delta").mode("append").save(lake.path(name))


class Story:
    """Three runs: `old` labels, `new` finds nothing and is released, a frame is corrected and `old` labels it again."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.world = world = World(folder, spark)
        self.lake = world.lake
        self.old_lake()
        self.before = datetime.now(UTC)
        world.model("old")
        world.model("new", found=[])
        world.put(*MEDIA)
        world.put("torn0000", count=1, image=picture(9)[:-30])
        put_rows(
            self.lake, "sources", *({"uri": uri, "media_id": name, "state": "present"} for name, uri in FILES.items())
        )
        self.first = world.run("old", max_wave_rows=4).run_id
        silent: dict[str, Any] = {"severity.nothing_found_share": "stop", "min_rows": 1}
        self.second = world.run("new", **silent).run_id
        (stopped,) = [wave for wave in _waves.list_waves(world.lake) if wave["status"] == "stopped"]
        pipeline = load_pipeline(folder / "p.toml")
        _waves.release(world.lake, stopped["wave_id"], who="ann", why="it is night", pipeline=pipeline)
        world.correct("media_id = 'bbbbbbbb' AND pts = 0", width_px=41)
        world.correct("true", pts_s=0.25)
        self.third = world.run("old", max_wave_rows=4).run_id
        (self.old,) = {row["model_id"] for row in world.rows("model_id LIKE 'old@%'")}
        (self.new,) = {row["model_id"] for row in world.rows("model_id LIKE 'new@%'")}

    def old_lake(self) -> None:
        """A wave of before there was a column for facts of its model."""
        before = replace(waves.TABLE, columns=tuple(c for c in waves.TABLE.columns if c.name != "model"))
        at = datetime(2026, 1, 2, tzinfo=UTC)
        put_rows(
            self.lake,
            "waves",
            {
                "wave_id": "w0", "run_id": "r0", "stage": "detect_objects", "producer": "ancient@1:00",
                "status": "published", "sequence": 1, "started_at": at, "finished_at": at, "rows_in": 2,
                "rows_published": 2, "code_version": "0.0.1", "outputs": [{"table": "detections", "version": 1}],
                "inputs": [{"table": "frames", "table_id": "gone", "version": 9, "is_complete": True}], "config": "{}",
            },
            table=before,
        )  # fmt: skip
        (row,) = self.lake.table("models").collect()
        assert (row["model_id"], row["name"], row["labels"], row["rows_published"]) == ("ancient@1:00", None, None, 2)
        assert (row["stages"], row["code_version"]) == (["detect_objects"], "0.0.1")

    def explain(self, media: str, pts: int | None = 1, **options: Any) -> dict[str, Any]:
        return explain(options.pop("lake", self.lake), media, pts=pts, **options)

    def past(self, when: str | datetime) -> Lake:
        return Lake(self.lake.uri, spark=self.world.spark, as_of=when)


@pytest.fixture(scope="module")
def story(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    spark.sparkContext.addPyFile(toy_backend.__file__)
    yield Story(tmp_path_factory.mktemp("story"), spark)


@pytest.mark.long
def test_the_view_models_has_a_row_for_each_model(story: Story) -> None:
    rows = {row["model_id"]: row.asDict(recursive=True) for row in story.lake.table("models").collect()}
    assert rows.keys() == {"ancient@1:00", story.old, story.new}
    old = rows[story.old]
    assert (old["backend"], old["name"], old["version"], old["labels"]) == ("toy_backend", "old", "1", ["cat", "dog"])
    assert old["source"] == (story.world.folder / "old.json").as_uri() and old["licence"] is None
    assert old["digests"].keys() == {"weights"} and json.loads(old["card"])["declared"]["max_instances"] == 9
    assert (old["stages"], old["run_count"], old["wave_count"]) == (["detect_objects"], 2, 3)
    assert old["rows_published"] == 7 and old["first_used_at"] < old["last_used_at"]
    assert (rows[story.new]["wave_count"], rows[story.new]["rows_published"]) == (1, 6)


@pytest.mark.long
def test_a_label_is_told_of_the_wave_that_wrote_it(story: Story) -> None:
    for media, pts, run, sequence, version in (
        ("aaaaaaaa", 1, story.first, 1, 2),
        ("bbbbbbbb", 1, story.first, 2, 2),
        ("bbbbbbbb", 0, story.third, 3, 4),
    ):
        (model,) = story.explain(media, pts, model="old")["models"]
        (label,) = model["labels"]
        wave = label["wave"]
        assert (label["run_id"], wave["run_id"], wave["sequence"]) == (run, run, sequence), (media, pts)
        assert (label["input_version"], wave["inputs"][0]["table"]) == (version, "frames")
        assert wave["inputs"][0]["version"] == version and wave["outputs"][0]["table"] == "detections"
        assert label["count_by_label"] == {"cat": 1} and label["top_score"] == 0.9
        assert wave["settings"]["backend"] == "toy_backend" and "max_wave_rows" not in wave["settings"]
        judged = {check["name"]: check["status"] for check in wave["checks"]}
        assert judged["error_share"] == ("warned" if sequence == 2 else "passed"), "the second one has the torn picture"


@pytest.mark.long
def test_all_of_a_frame_at_once_with_who_released_what_and_as_json(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    found = story.explain("a\x1b[2J.mp4", None, at_s=0.3)
    assert (found["pts"], found["media"]["media_id"]) == (0, "aaaaaaaa")
    assert [file["uri"] for file in found["files"]] == [FILES["aaaaaaaa"]]
    assert found["frame"]["wave"] is None and "no wave in `waves`" in found["frame"]["wave_note"]
    assert [model["model_id"] for model in found["models"]] == [story.new, story.old]
    (label,) = found["models"][0]["labels"]
    wave = label["wave"]
    assert (label["count"], label["top_score"], label["run_id"]) == (0, None, story.second)
    assert (wave["status"], wave["decided_by"], wave["decided_why"]) == ("released", "ann", "it is night")
    (check,) = [check for check in wave["checks"] if check["name"] == "nothing_found_share"]
    assert check["status"] == "stopped" and check["observed"]
    print_explanation(found)
    text = capsys.readouterr().out
    assert "released by ann: it is night" in text and "nothing_found_share" in text and "cat 1" in text
    assert "\x1b" not in text
    print_explanation(found, as_json=True)
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.long
def test_a_quarantined_frame_says_why_and_what_is_not_there_says_what_is(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    found = story.explain("torn0000", 0, model="detect_objects.x", sections={"detect_objects.x": story.old})
    (model,) = found["models"]
    (bad,) = model["quarantined"]
    assert (bad["reason"], bad["run_id"], model["labels"]) == ("image_unreadable", story.first, [])
    assert bad["wave"]["sequence"] == 2 and bad["wave"]["rows_quarantined"] == 1
    print_explanation(found)
    assert "image_unreadable" in capsys.readouterr().out
    (model,) = story.explain("aaaaaaaa", model="ancient")["models"]
    assert model["note"] == "it has not looked at this frame" and model["code_version"] == "0.0.1"
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("aaaaaaaa", {"pts": 7}, "no frame at pts 7; the nearest are: 2, 1, 0"),
        ("aaaaaaaa", {"stream": 3}, "no frames in stream 3 of this media; there are some in 0"),
        ("aaaaaaaa", {"model": "other"}, f"no model other; those that looked at this frame: {story.new}"),
        ("d.mp4", {}, "no media d.mp4"),
    )
    for media, options, said in cases:
        with pytest.raises(UsageError, match=said):
            story.explain(media, **options)
    key = "file:///films/d.mp4"
    put_rows(story.lake, "quarantine", {
        "stage": "ingest_media", "producer": "ingest_media", "input_key": key, "reason": "truncated", "message": "cut",
    })  # fmt: skip
    with pytest.raises(UsageError, match=r"d\.mp4 is in quarantine: truncated: cut"):
        story.explain("d.mp4")


@pytest.mark.long
def test_the_lake_as_a_run_left_it(story: Story) -> None:
    first = story.past(story.first)
    assert {row["model_id"] for row in first.table("detections").collect()} == {story.old}
    assert first.table("waves").where(f"run_id = '{story.first}'").count() == 2
    assert first.table("waves").where(f"run_id IN ('{story.second}', '{story.third}')").isEmpty()
    assert {row["model_id"] for row in first.table("models").collect()} == {"ancient@1:00", story.old}
    assert first.table("quarantine").count() == 1 and first.version("frames") == 2
    assert first.table("frames", version=4).where("width_px = 41").count() == 1, "a version says it all"
    (model,) = story.explain("bbbbbbbb", 0, lake=first)["models"]
    assert model["labels"][0]["run_id"] == story.first and model["last_used_at"] < story.third[:4] + "~"
    assert [wave["run_id"] for wave in _waves.list_waves(first)] == [story.first] * 2 + ["r0"]
    second = story.past(story.second)
    assert second.table("waves").where("status = 'released'").count() == 1
    assert {row["run_id"] for row in second.table("detections").collect()} == {story.first, story.second}
    assert {row["run_id"] for row in story.past(story.third).table("detections").collect()} > {story.third}


@pytest.mark.long
def test_the_lake_at_a_time_and_at_versions(story: Story, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    future, before = story.past(datetime.now(UTC) + timedelta(days=1)), story.past(story.before)
    assert future.names() == story.lake.names() and future.version("frames") == story.lake.version("frames")
    assert before.names() == ["frames", "models", "runs", "waves"] and before.table("frames").isEmpty()
    assert not before.exists("detections") and not before.exists("instances")
    with pytest.raises(UsageError, match=r"no table 'detections' in lake .* as of 20"):
        before.table("detections")
    with pytest.raises(UsageError, match="no table 'frames'"):
        story.past("2001-01-01").table("frames")
    chosen = story.past("frames=2,detections=1")
    assert chosen.table("frames").where("width_px = 41").isEmpty() and chosen.version("detections") == 1
    assert chosen.version("waves") == story.lake.version("waves")
    assert chosen.table("instances").count() == chosen.table("detections").count() > 0
    for when, said in (
        ("frames=99", "the newest version of frames is 4"),
        ("fames=1", "no table 'fames' in lake"),
        ("20010101T000000-abcdef", f"no such run wrote a wave; the latest that did are {story.third}"),
    ):
        with pytest.raises(UsageError, match=said):
            story.past(when)
    rows = story.lake.table("frames").limit(0)
    for write in (
        lambda: before.ensure(waves.TABLE),
        lambda: before.append("frames", rows, transaction="x"),
        lambda: before.update("frames", where="true", values={"pts": "1"}),
        lambda: before.write_file("x", "y"),
    ):
        with pytest.raises(UsageError, match="can be read only"):
            write()
    assert cli.main(["tables", "--lake", story.lake.uri, "--as-of", story.first, "--json"]) == 0
    listed = {row["table"]: row for row in json.loads(capsys.readouterr().out)}
    assert (listed["frames"]["version"], listed["detections"]["rows"]) == (2, 6)
    page, pipeline = tmp_path / "past.html", str(story.world.folder / "p.toml")
    asked = ["report", pipeline, "--as-of", story.first, "--set", "report.max_pictures=0"]  # frames made by hand
    assert cli.main([*asked, "--out", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert story.first in text and story.third not in text and "6 frames" in re.sub("<[^>]*>", "", text)
    assert not Path(story.lake.path("report.html")).exists()
    assert cli.main([*asked, "--rebuild"]) == 2


def test_the_row_of_a_killed_wave_has_no_wave_until_it_is_finished(tmp_path: Path, spark: SparkSession) -> None:
    world = World(tmp_path, spark)
    world.model("toy")
    world.put("aaaaaaaa", count=1)
    put_rows(world.lake, "sources", {"uri": "file:///a.mp4", "media_id": "aaaaaaaa", "state": "present"})
    with pytest.raises(KeyboardInterrupt):
        world.run("toy", reporter=KilledAt("table"))
    (model,) = explain(world.lake, "a.mp4")["models"]
    assert model["labels"][0]["wave"] is None and "no wave in `waves`" in model["labels"][0]["wave_note"]
