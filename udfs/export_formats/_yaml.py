"""Text for YAML."""

from __future__ import annotations

import yaml


def quoted(text: str) -> str:
    """Any text as a YAML scalar on one line: JSON's escapes of what lies beyond 16 bits are none of YAML's."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf")).rstrip("\n")
