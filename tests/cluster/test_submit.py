"""The jobs on a cluster of real processes, submitted as Spark applications, with the package from its zip alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import media_pictures
import pyspark
import pytest
from cluster._lakes import DETECT, Project, contents, published
from packaging_helpers import ROOT, load_script

import visionlake
from visionlake.jobs._java import find_java
from visionlake.jobs._results import Reporter
from visionlake.jobs._session import local_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.cluster

SPARK = Path(pyspark.__file__).parent
MASTER = "local-cluster[2,1,1500]"  # two executors with a core and 1,500 MiB each


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Drivers and workers whose Python has all the dependencies, but no visionlake: that comes from the zip."""
    # The interpreter beneath the virtual environment does not read the .pth file of an editable install.
    python = os.path.realpath(sys.executable)
    java = find_java()
    environ = os.environ | {
        "SPARK_HOME": str(SPARK),
        "PYSPARK_PYTHON": python,
        "PYTHONPATH": os.pathsep.join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}),
    }
    if java.home is not None:
        environ["JAVA_HOME"] = str(java.home)
    tried = subprocess.run([python, "-c", "import visionlake"], cwd=tmp_path, env=environ, capture_output=True)
    if tried.returncode == 0:
        pytest.skip("visionlake is installed as a wheel: its dependencies are nowhere without it")
    return environ


def submit(job: str, *, archive: Path, project: Project, environ: dict[str, str]) -> None:
    # A local session's settings, since they are quick; but its daemon is a module, which zips reach too late for.
    settings = local_settings({"spark.master": MASTER, "spark.executor.defaultJavaOptions": "-XX:TieredStopAtLevel=1"})
    del settings["spark.python.daemon.module"]
    command = [str(SPARK / "bin" / "spark-submit"), "--py-files", str(archive)]
    for name, value in settings.items():
        command += ["--conf", f"{name}={value}"]
    command += [str(ROOT / "jobs" / f"{job}.py"), "--config", str(project.pipeline("cluster"))]
    done = subprocess.run(command, cwd=project.folder, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


@pytest.mark.long
def test_submitted_jobs_write_the_tables_of_local_mode(
    tmp_path: Path, spark: SparkSession, environ: dict[str, str]
) -> None:
    script = load_script("make_zip")
    archive = script.make_zip(script.build_wheel(tmp_path / "wheel"), tmp_path / "visionlake.zip")
    project = Project(tmp_path, more=f"{DETECT}batch_size = 8\n[report]\n")
    project.add_sample(1, videos=3)
    project.add_video("a.mp4")
    project.add_video("b.mp4", count=50)
    project.add_bad_ones(1)
    for picture in media_pictures.all_pictures(project.media)[2:]:
        picture.path.unlink()
    for job in ("ingest_media", "extract_frames", "detect_objects", "report"):
        submit(job, archive=archive, project=project, environ=environ)
    assert "builtin@1" in (tmp_path / "cluster" / "report.html").read_text()
    overrides = ["detect_objects.builtin.batch_size=1"]
    result = visionlake.run(project.pipeline("local"), spark=spark, reporter=Reporter(), overrides=overrides)
    assert result.exit_code == 0, result
    local, cluster = contents(tmp_path / "local"), contents(tmp_path / "cluster")
    assert all(local.values()) and sum(len(row[-1]) for row in local["detections"]) > 20
    assert cluster == local
    waves = {stage: len(ids) for stage, ids in published(tmp_path / "cluster").items()}
    assert waves == {"ingest_media": 1, "extract_frames": 1, "detect_objects": 1}
