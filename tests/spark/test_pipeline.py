"""Ingest and extraction over real files: what a second run does, and what happens to moved, replaced and bad files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import media_pictures
import media_video
import pytest
from media_video import Track
from pyspark.sql import DataFrame, SparkSession

import visionlake
from visionlake.errors import UsageError
from visionlake.expectations import frames, media, quarantine, sources
from visionlake.expectations._table import Table
from visionlake.jobs import _quarantine, extract_frames
from visionlake.jobs._results import Reporter, RunResult

PRESENT = "state = 'present'"


class World:
    """A folder of media with a pipeline over it; `run` runs it with `min_age_s = 0`."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.spark = folder, spark
        self.media = folder / "my media ü"
        self.media.mkdir(parents=True)
        self.pipeline = folder / "pipeline.toml"
        self.pipeline.write_text(
            'lake = "lake"\n[mlflow]\nenabled = false\n'
            f'[ingest_media]\ninputs = ["{self.media.name}"]\nmin_age_s = 0.0\n[extract_frames]\nfps = 5\n'
        )
        self.lake = visionlake.Lake(folder / "lake", spark=spark)

    def video(self, name: str, *, count: int = 25, rate: int = 25) -> Path:
        track = Track(pts=[i * 15360 // rate for i in range(count)])
        path = self.media / name
        media_video.write(path, track)
        return path

    def run(self, *overrides: str, **options: Any) -> RunResult:
        return visionlake.run(self.pipeline, spark=self.spark, overrides=overrides, reporter=Reporter(), **options)

    def rows(self, table: str, sql: str = "true") -> list[Any]:
        return self.lake.table(table).where(sql).collect()

    def versions(self) -> dict[str, int]:
        return {name: self.lake.version(name) for name in ("media", "sources", "frames", "quarantine", "waves")}

    def equality(self, table: Table) -> list[tuple[Any, ...]]:
        names = [c.name for c in table.columns if not c.volatile]
        return sorted((tuple(row) for row in self.lake.table(table.name).select(*names).collect()), key=repr)


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path, spark)


@pytest.fixture
def decoded() -> Iterator[list[str]]:
    """Names of the media whose frames were computed, in order."""
    names: list[str] = []
    plain = extract_frames.transform

    def counting(inputs: Mapping[str, DataFrame], config: Any) -> DataFrame:
        place = inputs["sources"].where(PRESENT).select("media_id", "uri")
        for row in inputs["media"].join(place, "media_id", "left").collect():
            names.append(Path(row["uri"]).name)
        return plain(inputs, config)

    object.__setattr__(extract_frames.STAGE, "transform", counting)
    yield names
    object.__setattr__(extract_frames.STAGE, "transform", plain)


def published(result: RunResult) -> dict[str, tuple[str, int, int]]:
    return {s.stage: (s.status, s.parents, s.published) for s in result.stages}


def test_only_what_is_new_is_processed(world: World, decoded: list[str]) -> None:
    world.video("a.mp4")
    world.video("b.mp4", count=50)
    (world.media / "notes.mp4").write_text("this is no video\n" * 100)
    first = world.run()
    assert published(first) == {"ingest_media": ("done", 3, 2), "extract_frames": ("done", 2, 5 + 10)}
    assert sorted(decoded) == ["a.mp4", "b.mp4"]
    (bad,) = world.rows("quarantine")
    assert (bad["stage"], bad["reason"]) == ("ingest_media", "not_media") and bad["input_key"].endswith("notes.mp4")

    decoded.clear()
    before = world.versions()
    assert {s.status for s in world.run().stages} == {"nothing_new"}
    assert world.versions() == before and decoded == []

    world.video("c.mp4", count=5)
    assert published(world.run()) == {"ingest_media": ("done", 1, 1), "extract_frames": ("done", 1, 1)}
    assert decoded == ["c.mp4"]


def test_copies_moves_and_touches_decode_nothing_and_what_is_replaced_or_deleted_is_kept(
    world: World, decoded: list[str]
) -> None:
    a, b = world.video("a.mp4"), world.video("b.mp4", count=50)
    world.video("old.mp4", count=10)
    gone = world.video("gone.mp4", count=15)
    world.run()
    decoded.clear()
    before = world.lake.version("frames")
    shutil.copy(a, world.media / "z copy of a.mp4")
    b.rename(world.media / "moved.mp4")
    os.utime(a, (1_700_000_000, 1_700_000_000))
    world.run()
    assert decoded == [] and world.lake.version("frames") == before and world.lake.table("media").count() == 4
    world.video("old.mp4", count=75)
    gone.unlink()
    world.run()
    assert decoded == ["old.mp4"] and world.lake.table("media").count() == 5
    states = sorted((Path(r["uri"]).name, r["state"]) for r in world.rows("sources"))
    assert states == [
        ("a.mp4", "present"), ("b.mp4", "missing"), ("gone.mp4", "missing"), ("moved.mp4", "present"),
        ("old.mp4", "present"), ("old.mp4", "replaced"), ("z%20copy%20of%20a.mp4", "present"),
    ]  # fmt: skip
    assert world.lake.table("frames").count() == 5 + 10 + 2 + 3 + 15
    current = world.lake.table("current_frames")
    assert current.count() == 5 + 10 + 15 == current.select("media_id", "stream_index", "pts").distinct().count()
    (copied,) = current.where("size(uris) = 2").select("uri").distinct().collect()
    assert copied["uri"].endswith("/a.mp4")
    for version in (-1, 99):
        with pytest.raises(UsageError, match=f"table 'frames' has no version {version}; the newest is "):
            world.lake.table("frames", version=version)


@pytest.mark.long
def test_another_rate_wants_rebuild_and_then_equals_a_fresh_lake(world: World, tmp_path: Path) -> None:
    world.video("a.mp4")
    world.run("extract_frames.fps=2")
    coarse = world.equality(frames.TABLE)
    with pytest.raises(UsageError, match=r"extract_frames: fps '2' -> '5'.*--rebuild"):
        world.run()
    fresh = visionlake.Lake(tmp_path / "fresh", spark=world.spark)
    visionlake.run(world.pipeline, spark=world.spark, overrides=[f'lake="{fresh.uri}"'], reporter=Reporter())
    version = world.lake.version("frames")
    assert published(world.run(rebuild=True))["extract_frames"][0] == "done"
    names = [c.name for c in frames.TABLE.columns if not c.volatile]
    made_fresh = sorted((tuple(r) for r in fresh.table("frames").select(*names).collect()), key=repr)
    assert world.equality(frames.TABLE) == made_fresh
    kept = {row[2] for row in coarse} & {row[2] for row in made_fresh}
    written = world.lake.changes("frames", first=version + 1, last=world.lake.version("frames")).collect()
    assert kept and not kept & {row["pts"] for row in written}, "rows that come out equal stay untouched"
    world.run("extract_frames.fps=2", rebuild=True)
    assert world.equality(frames.TABLE) == coarse


@pytest.mark.long
def test_a_planted_bad_batch_stops_then_is_judged_again_without_decoding(world: World, decoded: list[str]) -> None:
    for i in range(4):
        world.video(f"good{i}.mp4", count=10)
    world.run()
    version = world.lake.version("frames")
    for i in range(3):
        made = media_video.truncated_mp4(world.folder)
        made.path.rename(world.media / f"bad{i}.mp4")
        with (world.media / f"bad{i}.mp4").open("ab") as file:
            file.write(b"\0\0\0\x0cfree" + bytes([i] * 4))
    strict = ("extract_frames.max_error_share=0.01", "extract_frames.min_rows=2")
    decoded.clear()
    stopped = world.run(*strict)
    assert stopped.exit_code == 3 and len(decoded) == 3
    bad_ids = {row["media_id"] for row in world.rows("sources", "uri LIKE '%/bad%'")}
    told = [check for check in stopped.stages[-1].checks if check.status == "stopped"]
    assert told and all({key.split("/")[0] for key in check.keys} == bad_ids for check in told)
    named = {Path(stopped.place_of(key) or "").name for check in told for key in check.keys}
    assert named == {"bad0.mp4", "bad1.mp4", "bad2.mp4"}
    assert world.lake.version("frames") == version and not world.rows("quarantine", "stage = 'extract_frames'")
    decoded.clear()
    assert world.run(*strict).exit_code == 3 and decoded == []
    assert world.run().exit_code == 0 and decoded == []
    bad = world.rows("quarantine", "stage = 'extract_frames'")
    assert len(bad) == 3 and {row["reason"] for row in bad} == {"truncated"}


@pytest.mark.long
def test_replay_after_the_cause_is_mended(world: World, decoded: list[str]) -> None:
    made = media_video.truncated_mp4(world.folder)
    made.path.rename(world.media / "bad.mp4")
    world.run()
    assert {r["reason"] for r in world.rows("quarantine")} == {"truncated"}
    decoded.clear()
    assert _quarantine.replay(world.lake, stage="extract_frames", reason="truncated") == 1
    world.run()
    assert decoded == ["bad.mp4"] and len(world.rows("quarantine")) == 1
    world.run()
    assert decoded == ["bad.mp4"]


@pytest.mark.long
def test_what_could_not_be_read_is_tried_again_once_it_lies_elsewhere_even_after_a_kill(world: World) -> None:
    class KilledAfterTheFirstWave(Reporter):
        def step(self, stage: str, wave_id: str, step: str) -> None:
            if (stage, step) == ("extract_frames", "progress"):
                raise KeyboardInterrupt

    a = world.video("a.mp4")
    world.video("b.mp4", count=50)
    world.run(only=["ingest_media"])
    away = a.rename(world.folder / "a.mp4")
    world.run(only=["extract_frames"])
    assert [row["reason"] for row in world.rows("quarantine")] == ["source_missing"]
    away.rename(world.media / "found.mp4")
    world.video("c.mp4", count=75)
    with pytest.raises(KeyboardInterrupt):
        visionlake.run(world.pipeline, spark=world.spark, reporter=KilledAfterTheFirstWave())
    assert world.lake.table("frames").count() == 10 + 15
    assert world.run().exit_code == 0
    assert world.lake.table("frames").count() == 5 + 10 + 15 and not world.rows("quarantine")


@pytest.mark.long
def test_bad_files_that_are_gone_stop_nothing(world: World) -> None:
    for number in range(21):
        (world.media / f"{number}.mp4").write_text(f"text {number}")
    assert world.run("ingest_media.max_error_share=1.0", only=["ingest_media"]).exit_code == 0
    assert len(world.rows("quarantine")) == 21
    for path in world.media.iterdir():
        path.unlink()
    world.video("a.mp4")
    assert world.run(only=["ingest_media"]).exit_code == 0 and not world.rows("quarantine")
    missing = world.run('ingest_media.inputs=["vidoes"]', only=["ingest_media"])
    assert missing.exit_code == 2 and "vidoes" in (missing.stages[0].error or "")


def test_generated_files_come_out_of_the_tables_with_their_times(world: World) -> None:
    made = [
        media_video.variable_rate(world.folder), media_video.edit_list(world.folder),
        media_video.matroska_ticks(world.folder), media_video.joined_transport(world.folder),
        media_video.avi(world.folder), media_video.two_streams(world.folder),
    ]  # fmt: skip
    for video in made:
        shutil.copy(video.path, world.media)
    pictures = media_pictures.all_pictures(world.media)
    text = world.pipeline.read_text()
    world.pipeline.write_text(re.sub(r"fps = 5\n", "", text))
    result = world.run()
    assert result.exit_code == 0, result
    ids = {Path(r["uri"]).name: r["media_id"] for r in world.rows("sources", PRESENT)}
    found: dict[tuple[str, int], list[tuple[int, Fraction]]] = {}
    for row in world.lake.table("frames").orderBy("media_id", "stream_index", "pts").collect():
        base = Fraction(row["time_base_num"], row["time_base_den"])
        found.setdefault((row["media_id"], row["stream_index"]), []).append((row["pts"], base))
    for video in made:
        for stream in video.streams:
            expected = [(pts, stream.time_base) for pts in stream.pts]
            assert found[ids[video.path.name], stream.index] == expected, video.path.name
    stills = {row["media_id"] for row in world.rows("media", "kind = 'image'")}
    assert len(stills) == len({p.path.read_bytes() for p in pictures})
    assert all(len(found[media_id, 0]) == 1 for media_id in stills)


def test_the_plain_function_needs_no_lake(world: World) -> None:
    path = world.video("a.mp4")
    files = world.spark.createDataFrame([(str(path),), (str(world.folder / "none.mp4"),)], "uri string")
    rows = visionlake.extract_frames(files, fps=5).collect()
    assert [r["pts"] for r in rows if r["error"] is None] == [i * 15360 // 5 for i in range(5)]
    (lost,) = [r for r in rows if r["error"] is not None]
    assert lost["error"]["reason"] == "source_missing" and lost["uri"].endswith("none.mp4")
    with pytest.raises(UsageError, match="fps"):
        visionlake.extract_frames(files, fps=-1)


def test_tables_are_as_declared_and_open_without_spark_as_the_readme_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.video("a.mp4")
    world.run()
    tables: Sequence[Table] = (media.TABLE, sources.TABLE, frames.TABLE, quarantine.TABLE)
    for table in tables:
        fields = {f.name: f for f in world.lake.table(table.name).schema.fields}
        assert tuple(fields) == table.column_names
        assert all(fields[c.name].metadata["comment"] == c.comment for c in table.columns)
    monkeypatch.chdir(world.folder)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = [
        b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "lake/frames" in b and "deltalake" in b
    ]
    assert len(blocks) == 2
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["frames"].count_rows() == 5


def test_the_readmes_own_stage_runs_with_gate_and_quarantine(world: World) -> None:
    world.video("a.mp4")
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "STAGE =" in b]
    (world.folder / "mean_colour.py").write_text(block)
    text = world.pipeline.read_text()
    world.pipeline.write_text('stage_files = ["mean_colour.py"]\n' + text + "[mean_colour]\n")
    result = world.run()
    assert published(result)["mean_colour"] == ("done", 5, 5), result
    (row,) = world.lake.table("colours").where("pts = 0").collect()
    corners = media_video.CORNERS
    assert row["red"] == pytest.approx(sum(c[0] for c in corners) / 4, abs=30)
    assert {s.status for s in world.run().stages} == {"nothing_new"}


@pytest.mark.long
def test_a_corrected_and_a_deleted_frame_touch_only_their_children(world: World) -> None:
    for i in range(8):
        world.video(f"{i}.mp4", count=10 + 5 * i)
    world.run("extract_frames.max_wave_parents=1")
    assert len(_files(world, "frames")) >= 8
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "STAGE =" in b]
    (world.folder / "mean_colour.py").write_text(block)
    text = world.pipeline.read_text()
    settings = "[mean_colour]\nmax_wave_parents = 1\n"
    world.pipeline.write_text('stage_files = ["mean_colour.py"]\n' + text + settings)
    world.run()
    children = _files(world, "colours")
    assert len(children) >= 8
    chosen = sorted(r["media_id"] for r in world.rows("media"))
    table = f"delta.`{world.lake.path('frames')}`"
    other = world.rows("frames", f"media_id = '{chosen[1]}' AND pts = 0")[0]["image"]
    world.spark.sql(f"UPDATE {table} SET image = X'{bytes(other).hex()}' WHERE media_id = '{chosen[0]}' AND pts > 0")
    world.spark.sql(f"DELETE FROM {table} WHERE media_id = '{chosen[2]}' AND pts = 0")
    version, count = world.lake.version("colours"), world.lake.table("colours").count()
    world.run()
    changes = world.lake.changes("colours", first=version + 1, last=world.lake.version("colours")).collect()
    touched = {(r["media_id"], r["pts"]) for r in changes}
    assert {m for m, _ in touched} <= {chosen[0], chosen[2]} and (chosen[2], 0) in touched
    assert [r["_change_type"] for r in changes if r["media_id"] == chosen[2]] == ["delete"]
    assert world.lake.table("colours").count() == count - 1
    assert len(children - _files(world, "colours")) <= 2


def _files(world: World, table: str) -> set[str]:
    return set(world.lake.table(table).inputFiles())
