"""Tables, each declared once: columns, key, row rules and the checks of its gate."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._table import Table, View


@cache
def declared_names() -> tuple[str, ...]:
    """Names of all declared tables and views, found by module name."""
    return tuple(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def declaration(name: str) -> Table | View:
    """The declaration of a table or view; KeyError for an unknown name."""
    if name not in declared_names():
        raise KeyError(f"no table or view {name!r} is declared; there are {', '.join(declared_names())}")
    module = import_module(f".{name}", __name__)
    return module.TABLE if hasattr(module, "TABLE") else module.VIEW
