"""Formats of exported data sets: a module each, found by its name, as `export_types.ExportFormat` says."""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from ..export_types import ExportFormat


def format_names() -> tuple[str, ...]:
    """Names of the formats there are, sorted. Imports none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


def find_format(name: str) -> ExportFormat:
    """The format of that name. Raises ValueError where there is none."""
    if name not in format_names():
        raise ValueError(f"format {name!r} is not known; there are: {', '.join(format_names())}")
    return cast(ExportFormat, importlib.import_module(f"{__name__}.{name}"))
