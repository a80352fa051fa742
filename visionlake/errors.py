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
