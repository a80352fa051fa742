"""Finds the Java that Spark will run on, and refuses one that Spark would crash on.

Standard library only: the set-up script runs it before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from visionlake.errors import VisionlakeError

SUPPORTED = (17, 21)
# Spark loads this module at start; run-time images trimmed for size lack it.
NEEDED_MODULE = "jdk.incubator.vector"
# The set-up links the Java it installed here, for machines where another one comes first on PATH.
INSTALLED = Path(sys.prefix) / "share" / "visionlake" / "java"


@dataclass(frozen=True, kw_only=True)
class Java:
    """A Java found on this machine. `home` is None where only the command is known (a shim on PATH)."""

    origin: str
    command: Path
    home: Path | None
    version: int | None
    complete: bool = True

    @property
    def fits(self) -> bool:
        """Whether Spark runs on it."""
        return self.version in SUPPORTED and self.complete

    def __str__(self) -> str:
        where = f"at {self.home or self.command} ({self.origin})"
        if self.version is None:
            return f"no working Java {where}"
        return f"Java {self.version} {where}" + ("" if self.complete else f", which lacks the module {NEEDED_MODULE}")


def find_java(environ: Mapping[str, str] | None = None, *, installed: Path = INSTALLED) -> Java:
    """The Java to run Spark on: JAVA_HOME if set, else `java` on PATH, else the one that the set-up installed.

    A JAVA_HOME that does not fit is an error, never overruled. Raises VisionlakeError saying what was found and what to
    install.
    """
    environ = os.environ if environ is None else environ
    found: list[Java] = []
    if home := environ.get("JAVA_HOME"):
        found.append(_inspect(Path(home) / "bin" / "java", origin="JAVA_HOME", environ=environ))
    else:
        if command := shutil.which("java", path=environ.get("PATH", os.defpath)):
            found.append(_inspect(Path(command), origin="first on PATH", environ=environ))
        if installed.exists():
            found.append(_inspect(installed / "bin" / "java", origin="installed by the set-up", environ=environ))
    for java in found:
        if java.fits:
            return java
    raise VisionlakeError(_refusal(found))


def main() -> int:
    """Prints the Java that Spark will run on, or why there is none; returns the exit status."""
    try:
        print(find_java())
    except VisionlakeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _refusal(found: list[Java]) -> str:
    what = " and ".join(map(str, found)) or "none: JAVA_HOME is not set and there is no `java` on PATH"
    wanted = " or ".join(map(str, SUPPORTED))
    return (
        f"Spark 4.1 needs Java {wanted}; found {what}.\n"
        "Install one: `apt-get install openjdk-17-jre-headless` (Debian 12, Ubuntu), "
        "`apt-get install openjdk-21-jre-headless` (Debian 13, Ubuntu), `dnf install java-21-openjdk-headless` "
        "(Fedora, RHEL) or `brew install openjdk@21` (macOS), and set JAVA_HOME to its folder if another Java comes "
        "first on PATH."
    )


def _inspect(command: Path, *, origin: str, environ: Mapping[str, str]) -> Java:
    real = command.resolve()
    home = real.parent.parent if real.name == "java" and real.parent.name == "bin" else None
    release = home / "release" if home else None
    if release and release.is_file() and os.access(real, os.X_OK):  # half a second faster than starting Java
        facts = dict(re.findall(r'^(\w+)="([^"]*)"', release.read_text(errors="replace"), re.MULTILINE))
        if version := _major(facts.get("JAVA_VERSION", "")):
            complete = NEEDED_MODULE in facts.get("MODULES", NEEDED_MODULE).split()
            return Java(origin=origin, command=command, home=home, version=version, complete=complete)
    try:
        answer = subprocess.run(
            [command, "-version"],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            env=environ,
        )
        text = answer.stderr + answer.stdout if answer.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    quoted = re.search(r'version "([^"]+)"', text)
    return Java(
        origin=origin,
        command=command,
        home=Path(environ["JAVA_HOME"]) if environ.get("JAVA_HOME") else None,
        version=_major(quoted[1]) if quoted else None,
    )


def _major(version: str) -> int | None:
    numbers = re.match(r"(?:1\.)?(\d+)", version)  # "1.8.0_392" is Java 8
    return int(numbers[1]) if numbers else None
