"""A driver's process group is killed at any point: nothing is lost, doubled, computed again or left running."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cluster._lakes import DETECT, STAGES, Driver, Project, command, contents, published, rows, staged

import visionlake
from visionlake.jobs._results import Reporter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.kill, pytest.mark.long]

# In this order one wave is killed at two steps and ends in a third, and two more are killed once.
STEPS = ("quarantine", "table", "progress", "judged", "staged")
DRIVER = """
import json, os, signal, sys
from contextlib import suppress

import psutil

import visionlake
from visionlake.jobs._results import Reporter
from visionlake.jobs._session import get_session

pipeline, told, stages, *moment = sys.argv[1:]


class KillAt(Reporter):
    children = set()

    def step(self, stage, wave_id, step):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                self.children.add(" ".join(child.cmdline()))
        if [stage, step] == moment:
            with open(told, "w") as file:
                json.dump({"wave_id": wave_id, "children": [*self.children]}, file)
            os.killpg(0, signal.SIGKILL)


spark = get_session()
print("ready", flush=True)
result = visionlake.run(pipeline, spark=spark, only=stages.split(), reporter=KillAt())
print(result, file=sys.stderr)
sys.exit(result.exit_code)
"""


WHOLE = (
    DETECT
    + """
[import_annotations.truth]
format = "coco"
inputs = ["labels"]
[split_dataset.main]
shares = { train = 0.6, test = 0.4 }
stratify = "truth"
[evaluate_labels.all]
truth = "truth"
[export_dataset.coco]
format = "coco"
to = "out/LAKE"
labels = ["truth"]
split_set = "main"
"""
)


class Lakes(Project):
    """One lake whose drivers are killed, and one that nobody disturbs, made of the same files."""

    def __init__(self, folder: Path, spark: SparkSession, *, more: str = "") -> None:
        super().__init__(folder, extract="fps = 5\nmax_wave_parents = 2\n", more=more)
        self.spark, self.told, self.rounds = spark, folder / "told.json", 0
        self.lake, self.undisturbed = folder / "lake", folder / "undisturbed"
        (folder / "driver.py").write_text(DRIVER)

    def add_media(self) -> None:
        self.rounds += 1
        self.add_video(f"video{self.rounds}.mp4", count=15 + 5 * self.rounds)
        self.add_bad_ones(self.rounds)

    def run(self, lake: Path, *only: str, limit: int | None = None) -> None:
        # The size of the waves changes no row: the undisturbed lake has them all in one.
        overrides = ["extract_frames.max_wave_parents=1000"] if lake == self.undisturbed else []
        options = {"spark": self.spark, "reporter": Reporter(), "overrides": overrides}
        result = visionlake.run(self.pipeline(lake.name), **options, only=only or None, limit=limit)
        assert result.exit_code == 0, result

    def driver(self, *moment: str, stages: str = "ingest_media extract_frames") -> Driver:
        arguments = [str(self.pipeline("lake")), str(self.told), stages, *moment]
        return Driver([sys.executable, "driver.py", *arguments], folder=self.folder)

    def assert_equal(self) -> None:
        assert contents(self.lake) == contents(self.undisturbed)
        assert staged(self.lake) == set()


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    """Drivers put in here do not outlive the test."""
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.close()


def test_kills_at_random_times(tmp_path: Path, spark: SparkSession, drivers: list[Driver]) -> None:
    lakes, chance = Lakes(tmp_path, spark), random.Random(20)
    took_s, killed, staged_by_killed = 0.0, 0, set[str]()
    for kill in range(6):  # the first run is not killed: it shows how long one takes
        for _ in range(2):
            lakes.add_media()
        driver = lakes.driver()
        drivers.append(driver)
        while "ready" not in driver.said:
            assert driver.process.poll() is None, driver.complaint
            time.sleep(0.05)
        started = time.monotonic()
        if kill == 0:
            assert driver.wait() == 0, driver.complaint
            took_s = time.monotonic() - started
            continue
        time.sleep((kill - chance.random()) / 5 * took_s)
        driver.signal_group(signal.SIGKILL)
        killed += driver.wait() == -signal.SIGKILL
        assert driver.survivors() == []
        staged_by_killed |= staged(lakes.lake)
    assert killed >= 4  # the last one may be too fast
    drivers.append(Driver(command("run", lakes.pipeline("lake")), folder=lakes.folder))
    assert drivers[-1].wait() == 0, drivers[-1].complaint
    waves = published(lakes.lake)
    assert staged_by_killed <= {*waves["ingest_media"], *waves["extract_frames"]}
    lakes.run(lakes.undisturbed)
    lakes.assert_equal()


def test_kills_at_every_step_of_every_stage(tmp_path: Path, spark: SparkSession, drivers: list[Driver]) -> None:
    lakes, begun = Lakes(tmp_path, spark, more=DETECT), defaultdict[str, set[str]](set)
    lakes.add_bad_ones(1)
    labels = ("ingest_media", "extract_frames", "detect_objects.builtin")
    for number, (stage, step) in enumerate((label, step) for label in labels for step in STEPS):
        lakes.add_sample(number)
        name = stage.partition(".")[0]
        if before := STAGES[: STAGES.index(name)]:
            lakes.run(lakes.lake, *before)
        drivers.append(lakes.driver(stage, step, stages=name))
        assert drivers[-1].wait() == -signal.SIGKILL, drivers[-1].complaint
        assert drivers[-1].survivors() == []
        told = json.loads(lakes.told.read_text())
        begun[name].add(told["wave_id"])
        assert told["wave_id"] in staged(lakes.lake)
        assert (told["wave_id"] in published(lakes.lake)[name]) == (step == "progress")
        if (stage, step) == ("extract_frames", "staged"):
            for kind in ("java", "daemon", "_decoder_child"):  # they were there, and are gone
                assert any(kind in child for child in told["children"]), told
            away = lakes.media.rename(lakes.folder / "away")
            lakes.run(lakes.lake, "extract_frames", limit=2)  # what is staged is finished without its videos
            away.rename(lakes.media)
            assert published(lakes.lake)["extract_frames"][-1] == told["wave_id"] and not staged(lakes.lake)
    assert len(begun["extract_frames"]) >= 2 and len(begun["detect_objects"]) >= 2
    lakes.run(lakes.lake)
    lakes.run(lakes.undisturbed)
    lakes.assert_equal()
    assert sum(len(row[-1]) for row in contents(lakes.lake)["detections"]) > 20
    for stage, waves in begun.items():  # what was staged is published as it was
        assert waves <= {*published(lakes.lake)[stage]}


def test_kills_of_stages_that_tell_of_whole_tables(tmp_path: Path, spark: SparkSession, drivers: list[Driver]) -> None:
    lakes = Lakes(tmp_path, spark, more=WHOLE)
    (tmp_path / "labels").mkdir()
    moments = [
        ("import_annotations.truth", "staged"), ("split_dataset.main", "table"), ("evaluate_labels.all", "judged"),
        ("export_dataset.coco", "staged"), ("export_dataset.coco", "table"),
    ]  # fmt: skip
    # All of it at once: splits depend on what was there before.
    lakes.add_sample(0, videos=5)
    (tmp_path / "sample0" / "annotations.json").rename(tmp_path / "labels" / "truth.json")
    for stage, step in moments:
        before = ["ingest_media", "extract_frames", "detect_objects", "import_annotations", "split_dataset",
                  "evaluate_labels", "export_dataset"]  # fmt: skip
        name = stage.partition(".")[0]
        lakes.run(lakes.lake, *before[: before.index(name)])
        drivers.append(lakes.driver(stage, step, stages=name))
        assert drivers[-1].wait() == -signal.SIGKILL, drivers[-1].complaint
        if name == "export_dataset":  # what is written is whole once its tables are published, and not before
            written = [path for path in (tmp_path / "out" / "lake").rglob("*") if path.is_file()]
            assert len(written) > 10
            assert any(path.name == "_SUCCESS" for path in written) == (step == "table")
    lakes.run(lakes.lake)
    lakes.run(lakes.undisturbed)
    lakes.assert_equal()
    for table in ("annotations", "splits", "evaluations", "exports", "export_files"):
        mine, others = (told_by(lake, table) for lake in (lakes.lake, lakes.undisturbed))
        assert mine == others and mine, table
    assert exported(lakes.lake) == exported(lakes.undisturbed)


def told_by(lake: Path, table: str) -> list[str]:
    """Rows without what differs from lake to lake: versions, folders, runs, and the last bits of a model's figures."""
    wanted = {
        "annotations": ("media_id", "stream_index", "pts", "source", "image_name", "instances"),
        "splits": ("split_set", "media_id", "group_id", "split", "frames", "near"),
        "evaluations": ("evaluation", "model_id", "kind", "label", "frames", "truths", "crowds"),
        "exports": ("export", "format", "task", "splits", "classes", "frames", "objects", "labelled_by"),
        "export_files": ("export", "path", "size_bytes", "sha256"),
    }[table]
    return sorted(repr([row[name] for name in wanted]) for row in rows(lake, table))


def exported(lake: Path) -> dict[str, bytes]:
    """The files of a whole data set, without the manifest, which names versions."""
    [row] = rows(lake, "exports")
    folder = Path(row["uri"].removeprefix("file://"))
    assert (folder / "_SUCCESS").exists() and (folder / "manifest.json").exists()
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert not [path for path in found if path.endswith(".partial")]
    return {path: data for path, data in found.items() if path != "manifest.json"}
