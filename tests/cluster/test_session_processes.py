"""The processes of a local session: quiet, alive through Ctrl-C, and gone when the driver is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from visionlake.jobs._session import CHANGES_CLASS_PATH, CLASS_ARCHIVE

PROGRAM = """
import sys, time
from pathlib import Path
from visionlake._spark import command_session

working = sys.argv[1]

def slow(batches):
    Path(working).touch()
    for batch in batches:
        time.sleep(120)
        yield batch

with command_session({}) as spark:
    try:
        spark.range(1).mapInArrow(slow, "id bigint").collect()
    except KeyboardInterrupt:
        print("interrupted, counted", spark.range(5).count())
"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process whose Spark job sleeps in a worker, in a process group of its own like a command of a shell."""
    working = tmp_path / "working"
    command = [sys.executable, "-c", PROGRAM, str(working)]
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 120
        while not working.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no worker started"
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    names = [child.name() for child in children]
    assert "java" in names and any(name.startswith("python") for name in names), names
    return children


@pytest.mark.kill
def test_nothing_outlives_a_driver_that_is_killed(driver: subprocess.Popen[str]) -> None:
    children = family(driver)
    driver.kill()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.kill
def test_interrupt_reaches_python_alone_and_spark_still_works(driver: subprocess.Popen[str], tmp_path: Path) -> None:
    children = family(driver)
    os.killpg(driver.pid, signal.SIGINT)
    said, complaint = driver.communicate(timeout=60)
    assert (said, driver.returncode) == ("interrupted, counted 5\n", 0)
    assert len(complaint.splitlines()) <= 2, complaint  # that it stops, and no trace or log
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert [file.name for file in tmp_path.iterdir()] == ["working"]  # no metastore, no warehouse


def test_classes_come_from_the_archive_of_the_set_up(tmp_path: Path) -> None:
    if not CLASS_ARCHIVE.exists():
        pytest.skip("the set-up made no archive of Java classes in this environment")
    log = tmp_path / "classes.log"
    settings = {"spark.driver.extraJavaOptions": f"-Xlog:class+load:file={log}"}
    program = f"from visionlake.jobs._session import get_session; get_session(settings={settings}).range(5).count()"
    environ = {name: value for name, value in os.environ.items() if name not in CHANGES_CLASS_PATH}
    subprocess.run([sys.executable, "-c", program], check=True, env=environ, cwd=tmp_path, timeout=120)
    classes = log.read_text()
    archived, loaded = classes.count("source: shared objects file (top)"), classes.count("source: file:")
    assert archived > 10 * loaded and archived > 1000, (archived, loaded)
