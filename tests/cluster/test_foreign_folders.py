"""Workers, too, run our package and not folders of the same names in the working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging_helpers import ROOT, load_script, write_foreign_folders

pytestmark = pytest.mark.cluster

PROGRAM = """
import visionlake.udfs
from visionlake.jobs._session import get_session

def where(batches):
    import pyarrow as pa
    import visionlake.expectations, visionlake.jobs, visionlake.udfs
    for _ in batches:
        yield pa.RecordBatch.from_pydict({"file": [visionlake.udfs.__file__]})

spark = get_session()
print("DRIVER", visionlake.udfs.__file__)
print("WORKER", spark.range(1).mapInArrow(where, "file string").first().file)
spark.stop()
"""


def run(command: list[str], folder: Path) -> dict[str, str]:
    write_foreign_folders(folder)
    (folder / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = os.environ | {"PATH": path, "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(
        [*command, "program.py"], cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("DRIVER", "WORKER")))


def test_editable_install_in_a_local_session(tmp_path: Path) -> None:
    files = run([sys.executable], tmp_path)
    assert files == dict.fromkeys(("DRIVER", "WORKER"), str(ROOT / "udfs" / "__init__.py"))


@pytest.mark.long
def test_zip_on_a_cluster(tmp_path: Path) -> None:
    script = load_script("make_zip")
    archive = script.make_zip(script.build_wheel(tmp_path / "wheel"), tmp_path / "visionlake.zip")
    files = run(["spark-submit", "--master", "local-cluster[1,1,1024]", "--py-files", str(archive)], tmp_path)
    assert all(file.endswith("visionlake.zip/visionlake/udfs/__init__.py") for file in files.values()), files
