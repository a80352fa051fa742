"""Values as SQL writes them."""

from __future__ import annotations

from typing import Any


def quoted(value: Any) -> str:
    """A value as a SQL literal."""
    if not isinstance(value, str):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
