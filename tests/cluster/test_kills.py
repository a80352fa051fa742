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
from cluster._lakes import Driver, Project, contents, published, staged
from cluster._lakes import visionlake as command

import visionlake
from visionlake.jobs._report import Reporter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.kill

DRIVER = """
import json, os, signal, sys
import psutil
import visionlake
from visionlake.jobs._report import Reporter
from visionlake.jobs._session import get_session

pipeline, told, *moment = sys.argv[1:]

class KillAt(Reporter):
    def step(self, stage, wave_id, step):
        if [stage, step] == moment:
            children = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
            with open(told, "w") as file:
                json.dump({"wave_id": wave_id, "children": children}, file)
            os.killpg(0, signal.SIGKILL)

spark = get_session()
print("ready", flush=True)
result = visionlake.run(pipeline, spark=spark, reporter=KillAt())
print(result, file=sys.stderr)
sys.exit(result.exit_code)
"""


class Lakes(Project):
    """One lake that is killed and mended again and again, and one that nobody disturbs."""

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        super().__init__(folder)
        self.spark, self.rounds, self.told = spark, 0, folder / "told.json"
        self.lake, self.undisturbed = folder / "lake", folder / "undisturbed"
        (folder / "driver.py").write_text(DRIVER)

    def add_media(self) -> None:
        self.rounds += 1
        self.add_video(f"video{self.rounds}.mp4", count=20 + 5 * self.rounds)
        self.add_bad_ones(self.rounds)

    def run(self, lake: Path, *, only: list[str] | None = None) -> None:
        result = visionlake.run(self.pipeline(lake.name), spark=self.spark, reporter=Reporter(), only=only)
        assert result.exit_code == 0, result

    def driver(self, *moment: str) -> Driver:
        arguments = [str(self.pipeline("lake")), str(self.told), *moment]
        return Driver([sys.executable, "driver.py", *arguments], folder=self.folder)


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Lakes:
    return Lakes(tmp_path_factory.mktemp("kills"), spark)


@pytest.fixture
def drivers() -> Iterator[list[Driver]]:
    """Drivers put in here do not outlive the test."""
    started: list[Driver] = []
    yield started
    for driver in started:
        driver.close()


@pytest.mark.parametrize(
    ("stage", "step"),
    [
        *(("extract_frames", step) for step in ("staged", "judged", "table", "quarantine", "progress")),
        *(pytest.param("ingest_media", step, marks=pytest.mark.long) for step in ("staged", "table", "progress")),
    ],
)
def test_a_kill_right_after_a_step(lakes: Lakes, drivers: list[Driver], stage: str, step: str) -> None:
    lakes.add_media()
    driver = lakes.driver(stage, step)
    drivers.append(driver)
    assert driver.wait() == -signal.SIGKILL, driver.complaint
    assert driver.survivors() == []
    told = json.loads(lakes.told.read_text())
    for kind in ("java", "pyspark.daemon", "_decoder_child"):
        assert any(kind in child for child in told["children"]), told

    if stage == "extract_frames":  # what is staged is finished without its videos
        assert (told["wave_id"] in published(lakes.lake)[stage]) == (step == "progress")
        away = lakes.media.rename(lakes.folder / "away")
        lakes.run(lakes.lake, only=[stage])
        away.rename(lakes.media)
        assert published(lakes.lake)[stage][-1] == told["wave_id"]
    lakes.run(lakes.lake)
    lakes.run(lakes.undisturbed)
    assert published(lakes.lake)[stage][-1] == told["wave_id"]
    assert staged(lakes.lake) == set()
    waves, expected = published(lakes.lake), published(lakes.undisturbed)
    assert {name: len(ids) for name, ids in waves.items()} == {name: len(ids) for name, ids in expected.items()}
    assert contents(lakes.lake) == contents(lakes.undisturbed)


@pytest.mark.long
def test_kills_at_random_times(tmp_path: Path, spark: SparkSession, drivers: list[Driver]) -> None:
    lakes, chance = Lakes(tmp_path, spark), random.Random(20)
    took_s, killed, finished_later = 0.0, 0, set[str]()
    for kill in range(6):  # the first run is not killed: it shows how long one takes
        lakes.add_media()
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
        finished_later |= staged(lakes.lake)
    assert killed >= 4  # the last may come too late
    assert Driver(command("run", lakes.pipeline("lake")), folder=tmp_path).wait() == 0
    waves = published(lakes.lake)
    assert finished_later <= {*waves["ingest_media"], *waves["extract_frames"]} and staged(lakes.lake) == set()
    lakes.run(lakes.undisturbed)
    assert contents(lakes.lake) == contents(lakes.undisturbed)
