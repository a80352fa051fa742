"""`visionlake tables --describe`: what the declarations say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from visionlake.errors import UsageError
from visionlake.expectations import declaration, declared_names
from visionlake.expectations._table import Table, View
from visionlake.jobs._stages import one_of

from ._terminal import clean, make_console, make_table, print_json

if TYPE_CHECKING:
    from visionlake.jobs._config import Pipeline


def print_declarations(pipeline: Pipeline | None, *, only: Sequence[str] = (), as_json: bool = False) -> None:
    """All declared tables and views, and those of the pipeline's own stages. Raises UsageError for unknown names."""
    found = {name: declaration(name) for name in declared_names()}
    for stage, _ in pipeline.stages if pipeline else ():
        found |= {table.name: table for table in stage.outputs if table.name not in found}
    for name in only:
        if name not in found:
            raise UsageError(f"no table {name!r}; {one_of(name, sorted(found))}")
    chosen = [declared for name, declared in found.items() if not only or name in only]
    if as_json:
        print_json([{k: v for k, v in asdict(d).items() if k != "sql"} for d in chosen])
        return
    console = make_console()
    for declared in chosen:
        console.print(Text.assemble((declared.name, "bold"), "  ", clean(declared.comment)))
        _print_view(console, declared) if isinstance(declared, View) else _print_table(console, declared)
        console.print()


def _print_view(console: Console, view: View) -> None:
    console.print(f"  view over {', '.join(view.reads)}")


def _print_table(console: Console, table: Table) -> None:
    columns = make_table("column", "type", "", "meaning")
    for column in table.columns:
        is_key = column.name in table.key
        marks = "key" if is_key else "volatile" if column.volatile else "" if column.nullable else "not null"
        # Structs would take the width of everything else; in JSON they are whole.
        before, struct, _ = column.type.partition("struct<")
        kind = before + struct.rstrip("<")
        columns.add_row(clean(column.name), Text(kind), Text(marks), Text(clean(column.comment)))
    console.print(columns)
    for title, items in (
        ("rows must have", [(rule.name, rule.message) for rule in table.rules]),
        ("a wave must have", [(f"{check.name} ({check.severity})", check.expected) for check in table.checks]),
    ):
        if items:
            rows = make_table(title, "")
            for name, meaning in items:
                rows.add_row(clean(name), Text(clean(meaning)))
            console.print(rows)
