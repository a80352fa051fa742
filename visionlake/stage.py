"""What a stage of one's own is made of, in one import; see the README for a whole one."""

from __future__ import annotations

from visionlake.expectations import declaration
from visionlake.expectations._table import Check, Column, Rule, Table
from visionlake.jobs._stage import GatherConfig, Input, Observed, Observer, Settings, Stage, StageConfig, setting

__all__ = [
    "Check",
    "Column",
    "GatherConfig",
    "Input",
    "Observed",
    "Observer",
    "Rule",
    "Settings",
    "Stage",
    "StageConfig",
    "Table",
    "setting",
    "table",
]


def table(name: str) -> Table:
    """The declaration of one of visionlake's tables; KeyError for an unknown name, TypeError for a view."""
    found = declaration(name)
    if not isinstance(found, Table):
        raise TypeError(f"{name} is a view; a stage reads the tables under it: {', '.join(found.reads)}")
    return found
