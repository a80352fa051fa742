"""A driver's process group is killed at any point: nothing is lost, doubled, computed again or left running."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cluster._lakes import DETECT, STAGES, Driver, Project, command, contents, published, staged

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


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Lakes:
    """Files for a wave of frames per kill and one more; the lake that is going to be killed knows them."""
    lakes = Lakes(tmp_path_factory.mktemp("kills"), spark)
    for _ in range(3):
        lakes.add_media()
    lakes.run(lakes.lake, "ingest_media")
    lakes.run(lakes.undisturbed)
    return lakes


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    """Drivers put in here do not outlive the test."""
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.close()


def wave_of_killed(driver: Driver, lakes: Lakes) -> str:
    """Wait until the driver has killed itself and see that all its processes are gone; returns the wave at work."""
    assert driver.wait() == -signal.SIGKILL, driver.complaint
    assert driver.survivors() == []
    told = json.loads(lakes.told.read_text())
    for kind in ("java", "daemon", "_decoder_child"):
        assert any(kind in child for child in told["children"]), told
    return told["wave_id"]


@pytest.mark.parametrize("step", ["table", "progress"])  # the others: below
def test_a_kill_while_frames_are_extracted(ingested: Lakes, drivers: list[Driver], step: str) -> None:
    lakes, before = ingested, published(ingested.lake)["extract_frames"]
    drivers.append(lakes.driver("extract_frames", step, stages="extract_frames"))
    wave_id = wave_of_killed(drivers[0], lakes)
    if step == "progress":
        assert published(lakes.lake)["extract_frames"] == [*before, wave_id]
        assert staged(lakes.lake) == {wave_id}
    else:
        assert published(lakes.lake)["extract_frames"] == before and staged(lakes.lake) == {wave_id}
        away = lakes.media.rename(lakes.folder / "away")  # what is staged is finished without its videos
        lakes.run(lakes.lake, "extract_frames", limit=2)
        away.rename(lakes.media)
        assert published(lakes.lake)["extract_frames"] == [*before, wave_id] and staged(lakes.lake) == set()
    found, expected = contents(lakes.lake), contents(lakes.undisturbed)
    done = {row[0] for row in found["frames"]}
    assert found["frames"] == [row for row in expected["frames"] if row[0] in done]
    assert len(found["quarantine"]) == len({*found["quarantine"]} & {*expected["quarantine"]})


def test_after_all_the_kills_the_tables_equal_those_of_an_undisturbed_run(ingested: Lakes) -> None:
    ingested.run(ingested.lake)
    ingested.assert_equal()
    assert len(published(ingested.lake)["ingest_media"]) == 1


def test_kills_at_random_times(tmp_path: Path, spark: SparkSession, drivers: list[Driver]) -> None:
    lakes, chance = Lakes(tmp_path, spark), random.Random(20)
    took_s, killed, staged_by_killed = 0.0, 0, set[str]()
    for kill in range(5):  # the first run is not killed: it shows how long one takes
        for _ in range(3):
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
        time.sleep((kill - chance.random()) / 4 * took_s)
        driver.signal_group(signal.SIGKILL)
        killed += driver.wait() == -signal.SIGKILL
        assert driver.survivors() == []
        staged_by_killed |= staged(lakes.lake)
    assert killed >= 3  # the last one may be too fast
    drivers.append(Driver(command("run", lakes.pipeline("lake")), folder=lakes.folder))
    assert drivers[-1].wait() == 0, drivers[-1].complaint
    waves = published(lakes.lake)
    assert staged_by_killed <= {*waves["ingest_media"], *waves["extract_frames"]}
    lakes.run(lakes.undisturbed)
    lakes.assert_equal()


def test_kills_at_every_step_of_every_stage(tmp_path: Path, spark: SparkSession, drivers: list[Driver]) -> None:
    lakes, stages = Lakes(tmp_path, spark, more=DETECT), " ".join(STAGES)
    moments = [
        (stage, step) for stage in ("ingest_media", "extract_frames", "detect_objects.builtin") for step in STEPS
    ]
    begun: dict[str, set[str]] = {}
    for number, moment in enumerate(moments):
        lakes.add_sample(number)
        drivers.append(lakes.driver(*moment, stages=stages))
        assert drivers[-1].wait() == -signal.SIGKILL, drivers[-1].complaint
        assert drivers[-1].survivors() == []
        wave_id = json.loads(lakes.told.read_text())["wave_id"]
        begun.setdefault(moment[0].partition(".")[0], set()).add(wave_id)
    lakes.run(lakes.lake)
    lakes.run(lakes.undisturbed)
    lakes.assert_equal()
    assert sum(len(row[-1]) for row in contents(lakes.lake)["detections"]) > 20
    for stage, waves in begun.items():  # what was staged is published as it was
        assert len(waves) == 3 and waves <= {*published(lakes.lake)[stage]}
