"""Errors that are the user's to mend: the command line prints their message without a stack trace."""

from __future__ import annotations


class VisionlakeError(Exception):
    """Something went wrong that the message alone explains. ``exit_code`` is what the command line exits with."""

    exit_code = 1


class ConfigError(VisionlakeError):
    """A pipeline file, or an override of it, holds something that cannot be used."""

    exit_code = 2


class UsageError(VisionlakeError):
    """A command or function was called in a way that cannot work, whatever the lake holds."""

    exit_code = 2


class StageError(VisionlakeError):
    """A stage cannot go on, for example because its table has columns that the declaration does not know."""


_OWN = "visionlake.udfs._errors.ModelError: "  # it says all by itself


def summarise(error: BaseException) -> str:
    """One line that says what happened: a worker's own error, else that it crashed, else what the JVM says first."""
    lines = [line.strip().removeprefix("Caused by: ") for line in str(error).splitlines() if line.strip(" :")]
    errors = [line for line in lines if "Error: " in line and line[:1].isalpha()]
    python = [line for line in errors if not line.startswith(("at ", "java.", "org.", "scala."))]
    crashes = [line for line in lines if "Python worker exited" in line]
    jvm = [line for line in lines if not line.startswith("An error occurred while calling")]
    telling = [*python[-1:], *crashes[-1:], *jvm[:1], "no message"][0].lstrip(": ")[:500]
    if _OWN in telling:
        return telling.split(_OWN, 1)[1]
    name = type(error).__name__
    return telling if telling.startswith(name) else f"{name}: {telling}"
