"""Makes dist/visionlake.zip, for `spark-submit --py-files`, from the wheel: both hold the same files.

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


def make_zip(wheel: Path, target: Path) -> Path:
    """Writes the wheel's content as a zip that Python imports from; returns `target`, whose name ends in `.zip`."""
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.make_archive(str(target.with_suffix("")), "zip", scratch))


def main() -> None:
    """Makes dist/visionlake.zip."""
    with tempfile.TemporaryDirectory() as scratch:
        print(make_zip(build_wheel(Path(scratch)), ROOT / "dist" / "visionlake.zip"))


if __name__ == "__main__":
    main()
