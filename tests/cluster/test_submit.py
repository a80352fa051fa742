"""The jobs on a cluster of real processes, submitted as Spark applications, with the package from its zip alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import media_pictures
import psutil
import pyspark
import pytest
from cluster._lakes import DETECT, Project, contents, published
from packaging_helpers import ROOT, load_script

import visionlake
from visionlake.jobs._results import Reporter

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.cluster
SPARK = Path(pyspark.__file__).parent


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Drivers and workers whose Python has all the dependencies, but no visionlake: that comes from the zip."""
    # The interpreter beneath the virtual environment does not read the .pth file of an editable install.
    python = os.path.realpath(sys.executable)
    environ = os.environ | {
        "PYSPARK_PYTHON": python,
        "PYTHONPATH": os.pathsep.join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}),
    }
    tried = subprocess.run([python, "-c", "import visionlake"], cwd=tmp_path, env=environ, capture_output=True)
    if tried.returncode == 0:
        pytest.skip("visionlake is installed as a wheel: its dependencies are nowhere without it")
    return environ


@pytest.fixture
def cluster(tmp_path: Path, environ: dict[str, str]) -> Iterator[Any]:
    folder = tmp_path / "spark"
    folder.mkdir()
    with load_script("cluster").Cluster(folder, workers=2, memory="1500m", environ=environ) as running:
        yield running


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    script = load_script("make_zip")
    return script.make_zip(script.build_wheel(tmp_path / "wheel"), tmp_path / "visionlake.zip")


class Submitter:
    """Sends jobs of a project to a cluster."""

    def __init__(self, cluster: Any, *, archive: Path, project: Project) -> None:
        self._environ, self._project, self._log = cluster.environ, project, project.folder / "driver.log"
        settings = cluster.settings({"spark.executor.defaultJavaOptions": "-XX:TieredStopAtLevel=1"})
        options = [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]
        self._command = [str(SPARK / "bin" / "spark-submit"), "--py-files", str(archive), *options]

    def start(self, job: str) -> subprocess.Popen[bytes]:
        """The job on its way. What it says goes to a file: a pipe that nobody reads would stop it."""
        command = [*self._command, str(ROOT / "jobs" / f"{job}.py"), "--config", str(self._project.pipeline("cluster"))]
        with self._log.open("wb") as log:
            return subprocess.Popen(command, cwd=self._project.folder, env=self._environ, stdout=log, stderr=log)

    def finish(self, running: subprocess.Popen[bytes]) -> None:
        """Wait until the job has ended well."""
        assert running.wait(timeout=300) == 0, self._log.read_text(errors="replace")[-9000:]

    def run(self, *jobs: str) -> None:
        for job in jobs:
            self.finish(self.start(job))


@pytest.mark.long
def test_submitted_jobs_write_the_tables_of_local_mode(
    tmp_path: Path, spark: SparkSession, cluster: Any, archive: Path
) -> None:
    project = Project(tmp_path, more=f"{DETECT}batch_size = 8\n[report]\n")
    project.add_sample(1, videos=3)
    project.add_video("a.mp4")
    project.add_video("b.mp4", count=50)
    project.add_bad_ones(1)
    for picture in media_pictures.all_pictures(project.media)[2:]:
        picture.path.unlink()
    submitter = Submitter(cluster, archive=archive, project=project)
    submitter.run("ingest_media", "extract_frames", "detect_objects", "report")
    assert "builtin@1" in (tmp_path / "cluster" / "report.html").read_text()
    overrides = ["detect_objects.builtin.batch_size=1"]
    result = visionlake.run(project.pipeline("local"), spark=spark, reporter=Reporter(), overrides=overrides)
    assert result.exit_code == 0, result
    local, found = contents(tmp_path / "local"), contents(tmp_path / "cluster")
    assert all(local.values()) and sum(len(row[-1]) for row in local["detections"]) > 20
    assert found == local
    waves = {stage: len(ids) for stage, ids in published(tmp_path / "cluster").items()}
    assert waves == {"ingest_media": 1, "extract_frames": 1, "detect_objects": 1}
    assert all(any(cluster.work(number).glob("app-*/*/stderr")) for number in (0, 1)), "both workers had executors"


@pytest.mark.long
def test_a_worker_that_is_killed_takes_nothing_with_it(
    tmp_path: Path, spark: SparkSession, cluster: Any, archive: Path
) -> None:
    project = Project(tmp_path, more=DETECT)
    project.add_sample(1, videos=4)
    for number in range(4):
        project.add_video(f"{number}.mp4", count=250 + number)
    submitter = Submitter(cluster, archive=archive, project=project)
    submitter.run("ingest_media", "extract_frames")
    before = set(cluster.work(0).glob("app-*/*/stderr"))
    running = submitter.start("detect_objects")
    try:
        _wait_for_tasks(cluster.work(0), running, known=before)
        assert running.poll() is None, "the job goes on"
        _kill_with_executors(cluster.workers[0])
        submitter.finish(running)
    finally:
        running.kill()
    assert visionlake.run(project.pipeline("local"), spark=spark, reporter=Reporter()).exit_code == 0
    local = contents(tmp_path / "local")
    assert len(local["detections"]) > 200
    assert contents(tmp_path / "cluster") == local
    assert len(published(tmp_path / "cluster")["detect_objects"]) == 1


def _wait_for_tasks(work: Path, running: subprocess.Popen[bytes], *, known: set[Path], count: int = 3) -> None:
    """Until an executor of a worker has finished some tasks of the job: their shuffled rows will be lost with it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running.poll() is None:
        logs = [path.read_text(errors="replace") for path in work.glob("app-*/*/stderr") if path not in known]
        if sum(log.count("Finished task") for log in logs) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no executor in {work} finished {count} tasks")


def _kill_with_executors(worker: subprocess.Popen[bytes]) -> None:
    """As when a machine goes: nothing of it can say anything any more."""
    family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
    for process in family:
        with suppress(psutil.Error):
            process.kill()
    worker.wait()
