"""Makes dist/visionlake.zip for `spark-submit --py-files` from the wheel, so that both hold the same files.

Spark ignores wheels, and a renamed wheel lacks the folder entries that importing from a zip needs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build_wheel(folder: Path) -> Path:
    """Builds the wheel into `folder` and returns its path. Raises CalledProcessError where the build fails."""
    with tempfile.TemporaryDirectory() as scratch:
        # From a copy: a left-over build/ in the checkout would put deleted modules into the wheel.
        source = Path(scratch, "source")
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        for name in ("visionlake", "jobs", "udfs", "expectations"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("visionlake-*.whl"))


def make_zip(target: Path) -> Path:
    """Writes the package as a zip that Python imports from; returns `target`."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(Path(scratch, "wheel"))
        unpacked = Path(scratch, "unpacked")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.make_archive(str(target.with_suffix("")), "zip", unpacked)
    return target


if __name__ == "__main__":
    print(make_zip(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist" / "visionlake.zip"))
