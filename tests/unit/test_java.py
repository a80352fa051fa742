"""Which Java is taken, and what is said where none fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionlake.errors import VisionlakeError
from visionlake.jobs._java import find_java

NOWHERE = Path("/nonexistent")


def make_java(
    home: Path, version: str, *, modules: str = "java.base jdk.incubator.vector", release: bool = True
) -> Path:
    """A folder that looks like a Java installation and answers `java -version`."""
    (home / "bin").mkdir(parents=True)
    command = home / "bin" / "java"
    command.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    command.chmod(0o755)
    if release:
        (home / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return home


@pytest.mark.parametrize("version", ["17.0.15", "17", "21.0.2"])
@pytest.mark.parametrize("release", [True, False])
def test_fitting_java_home_is_taken(tmp_path: Path, version: str, release: bool) -> None:
    home = make_java(tmp_path / "jvm ü", version, release=release)
    java = find_java({"JAVA_HOME": str(home), "PATH": ""}, installed=NOWHERE)
    assert (java.home, java.version) == (home, int(version[:2]))


@pytest.mark.parametrize(("version", "shown"), [("25", "Java 25"), ("1.8.0_392", "Java 8"), ("25-ea", "Java 25")])
@pytest.mark.parametrize("release", [True, False])
def test_java_home_that_does_not_fit_is_refused_whatever_else_is_there(
    tmp_path: Path, version: str, shown: str, release: bool
) -> None:
    home = make_java(tmp_path / "unfit", version, release=release)
    other = make_java(tmp_path / "fit", "21.0.2")
    with pytest.raises(VisionlakeError, match=shown) as refused:
        find_java({"JAVA_HOME": str(home), "PATH": str(other / "bin")}, installed=other)
    assert str(home) in str(refused.value)
    assert "needs Java 17 or 21" in str(refused.value)
    assert "apt-get install openjdk-17-jre-headless" in str(refused.value)


def test_java_on_path_is_taken_through_a_link(tmp_path: Path) -> None:
    home = make_java(tmp_path / "java-21", "21.0.2")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").symlink_to(home / "bin" / "java")
    assert find_java({"PATH": str(tmp_path / "bin")}, installed=NOWHERE).home == home


def test_java_of_the_set_up_serves_where_the_one_on_path_does_not_fit(tmp_path: Path) -> None:
    unfit, fit = make_java(tmp_path / "25", "25.0.1"), make_java(tmp_path / "21", "21.0.2")
    assert find_java({"PATH": str(unfit / "bin")}, installed=fit).home == fit


def test_trimmed_runtime_is_refused(tmp_path: Path) -> None:
    home = make_java(tmp_path / "jre", "17.0.15", modules="java.base")
    with pytest.raises(VisionlakeError, match=r"lacks the module jdk\.incubator\.vector"):
        find_java({"JAVA_HOME": str(home)}, installed=NOWHERE)


@pytest.mark.parametrize("environ", [{"PATH": ""}, {"JAVA_HOME": "/nonexistent/jvm", "PATH": ""}])
def test_no_java_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(VisionlakeError, match="needs Java 17 or 21; found no"):
        find_java(environ, installed=NOWHERE)
