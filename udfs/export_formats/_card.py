"""The card of a data set for Hugging Face: which files are of which split."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..export_types import ExportPlan
from ._yaml import quoted


def card(plan: ExportPlan, *, path: str) -> bytes:
    """README.md. `path` is a pattern of files with {split} in it."""
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, name in split_names(plan.splits).items():
        lines += [f"  - split: {quoted(name)}", f"    path: {quoted(path.format(split=split))}"]
    lines += ["---", "", f"# {plan.name}", "", f"Classes: {', '.join(each.name for each in plan.categories)}", ""]
    return "\n".join(lines).encode()


def split_names(splits: Sequence[str]) -> dict[str, str]:
    """Splits with the names that `datasets` allows them: of words alone, and `all` means every one."""
    found: dict[str, str] = {}
    for split in splits:
        name = re.sub(r"\W", "_", split, flags=re.ASCII)
        while name == "all" or name in found.values():
            name += "_"
        found[split] = name
    return found
