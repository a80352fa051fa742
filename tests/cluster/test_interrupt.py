"""Ctrl-C while frames are extracted: a clean end, and the next run goes on where this one was."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cluster._lakes import Driver, Project, add_variant, command, published, rows

import visionlake
from visionlake.jobs._results import Reporter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VIDEOS, COUNT = 3, 300


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Videos that take seconds each, one per wave."""
    project = Project(tmp_path, extract="max_wave_parents = 1\n")
    first = project.add_video("video0.mp4", count=COUNT)
    for number in range(1, VIDEOS):
        add_variant(first, project.media / f"video{number}.mp4", number)
    return project


@pytest.fixture
def driver(project: Project) -> Iterator[Driver]:
    """`visionlake run` with its second wave of frames at work."""
    driver = Driver(command("run", project.pipeline("lake")), folder=project.folder)
    try:
        seen: set[Path] = set()
        deadline = time.monotonic() + 240
        while len(seen) < 2:
            seen |= {*(project.folder / "lake" / "_staging" / "extract_frames").glob("*/rows/_temporary")}
            assert driver.process.poll() is None, driver.complaint
            assert time.monotonic() < deadline, driver.complaint
            time.sleep(0.05)
        yield driver
    finally:
        driver.close()


@pytest.mark.long
@pytest.mark.kill
def test_interrupt_stops_cleanly_and_the_next_run_goes_on(
    project: Project, driver: Driver, spark: SparkSession
) -> None:
    driver.signal_group(signal.SIGINT)
    assert driver.wait(timeout_s=60) == 130, driver.complaint
    assert driver.survivors() == []
    lines = driver.complaint.splitlines()
    assert lines[-1] == "visionlake: interrupted; run the same command again to go on"
    assert not [line for line in lines if "Traceback" in line or "Error" in line or "Exception" in line], lines
    assert driver.said == ""

    lake = project.folder / "lake"
    before = published(lake)["extract_frames"]
    assert len(before) == 1 and len(rows(lake, "frames")) == COUNT
    result = visionlake.run(project.pipeline("lake"), spark=spark, reporter=Reporter())
    assert result.exit_code == 0, result
    after = published(lake)["extract_frames"]
    assert len(after) == VIDEOS and after[:1] == before
    found = {(row["media_id"], row["stream_index"], row["pts"]) for row in rows(lake, "frames")}
    assert len(found) == VIDEOS * COUNT == len(rows(lake, "frames"))
