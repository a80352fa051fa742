"""What the set-up says where it cannot go on. That it works is seen on fresh machines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging_helpers import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without an environment, in a folder with a space and a letter that is not ASCII."""
    folder = tmp_path / "my vidéos"
    for name in ("scripts", "requirements", "visionlake", "jobs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def make(checkout: Path, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": str(checkout), **variables}  # no LANG
    command = ["make", "--no-print-directory", target]
    return subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)


def test_python_that_does_not_fit_is_named(checkout: Path) -> None:
    done = make(checkout, "setup", PYTHON="/nonexistent dir/python3")
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13, and none of these is one: /nonexistent dir/python3" in done.stderr
    assert not (checkout / ".venv").exists()


def test_java_that_does_not_fit_stops_before_anything_is_installed(checkout: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    done = make(checkout, "setup", JAVA_HOME="/nonexistent/jvm")
    assert done.returncode != 0
    assert "needs Java 17 or 21; found no working Java at /nonexistent/jvm" in done.stderr


def test_help_lists_the_targets(checkout: Path) -> None:
    assert {"quickstart", "test", "test-long", "zip"} <= {
        line.split()[1] for line in make(checkout, "help").stdout.splitlines()
    }
