"""An editable install, the wheel and the zip are the same package, and folders of the same names never get in."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging_helpers import ROOT, load_script, write_foreign_folders

FOLDERS = {"visionlake": "visionlake", "jobs": "visionlake/jobs", "udfs": "visionlake/udfs",
           "expectations": "visionlake/expectations"}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, unpacked as an installer does, and the zip."""
    folder = tmp_path_factory.mktemp("built")
    script = load_script("make_zip")
    wheel = script.build_wheel(folder)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    script.make_zip(wheel, folder / "visionlake.zip")
    return folder


def sources() -> dict[str, bytes]:
    return {
        f"{package}/{file.relative_to(ROOT / folder).as_posix()}": file.read_bytes()
        for folder, package in FOLDERS.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_wheel_holds_every_source_file_and_no_other(built: Path) -> None:
    package = built / "wheel" / "visionlake"
    packed = {f"visionlake/{f.relative_to(package).as_posix()}": f.read_bytes() for f in package.rglob("*.*")}
    assert packed == sources()


def test_zip_equals_the_wheel_and_lists_its_folders(built: Path) -> None:
    with zipfile.ZipFile(built / "visionlake.zip") as archive:
        names = archive.namelist()
        packed = {name: archive.read(name) for name in names if name.startswith("visionlake/") and name[-1] != "/"}
    assert packed == sources()
    assert {"visionlake/", "visionlake/jobs/", "visionlake/udfs/", "visionlake/expectations/"} <= set(names)


@pytest.mark.parametrize("form", ["editable", "wheel", "visionlake.zip"])
def test_foreign_folders_in_the_working_directory_are_not_imported(built: Path, form: str, tmp_path: Path) -> None:
    write_foreign_folders(tmp_path)
    program = (
        "import sys, visionlake, visionlake.udfs, visionlake.jobs, visionlake.expectations\n"
        "import visionlake.udfs._errors\n"
        "print(visionlake.__version__)\n"
        "for m in (visionlake, visionlake.udfs, visionlake.jobs, visionlake.expectations): print(m.__file__)\n"
    )
    environ = os.environ | ({} if form == "editable" else {"PYTHONPATH": str(built / form)})
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    version, *files = done.stdout.splitlines()
    assert version in (ROOT / "visionlake" / "__init__.py").read_text()
    home = ROOT if form == "editable" else built / form
    assert all(Path(file).is_relative_to(home) for file in files), files


def test_no_module_bears_a_name_of_the_standard_library() -> None:
    """Submitting jobs/<stage>.py puts that folder first on `sys.path`."""
    names = {file.stem for folder in FOLDERS for file in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
    assert not names & set(sys.stdlib_module_names)


def test_lock_pins_every_requirement_and_names_no_host() -> None:
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    assert all("==" in line and "/" not in line and "@" not in line for line in lines)
    pinned = {line.split("==")[0] for line in lines}
    assert {"pyspark", "delta-spark", "torch", "pillow-heif", "pytest", "uv"} <= pinned
