"""Writing to people: plain where nobody watches, and safe whatever a file is called."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._text import clean

PLAIN_WIDTH = 200
ROOMY_WIDTH = 120


def make_console(*, stderr: bool = False) -> Console:
    """A console for standard output or standard error.

    In a file or pipe it is wide, so that nothing is cut, unless `COLUMNS` says how wide.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = PLAIN_WIDTH
    return console


def cell(value: object, *, style: str = "") -> Text:
    """A value as it stands in a table."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no", style=style)
    if isinstance(value, int):
        return Text(f"{value:,}", style=style)
    if isinstance(value, float):
        return Text(f"{value:,.3f}".rstrip("0").rstrip("."), style=style)
    if isinstance(value, dict | list | tuple):
        return Text(clean(json.dumps(value, default=str, ensure_ascii=False)), style=style)
    return Text(clean(value), style=style)


def make_table(*columns: str, right: Iterable[str] = (), whole: Iterable[str] = ()) -> Table:
    """An empty table; columns named in `right` hold numbers, which never break, and neither do those in `whole`."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for name in columns:
        justify = "right" if name in right else "left"
        table.add_column(Text(name), justify=justify, no_wrap=name in (*right, *whole), overflow="fold")
    return table


def print_rows(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    *,
    empty: str,
    ids: Iterable[str] = (),
    wide: Iterable[str] = (),
) -> None:
    """Rows as a table, or a sentence where there are none.

    Columns in `ids` are for copying and stay whole even where the terminal is too narrow; those in `wide` are shown
    only where there is room.
    """
    if not rows:
        console.print(empty)
        return
    names = [name for name in rows[0] if name not in wide or console.width >= ROOMY_WIDTH]
    numbers = [n for n in names if all(isinstance(row.get(n), int | float | None) for row in rows)]
    table = make_table(*names, right=numbers, whole=ids)
    for row in rows:
        table.add_row(*(cell(row.get(name)) for name in names))
    for column, name in zip(table.columns, names, strict=True):
        if name in ids:
            column.min_width = max(len(clean(row[name])) for row in rows)
    console.print(table, crop=False)


def print_record(console: Console, record: Mapping[str, Any]) -> None:
    """One record, a line per field; JSON text is laid out."""
    print_pairs(console, record.items())


def print_pairs(console: Console, pairs: Iterable[tuple[str, Any]], *, indent: int = 0) -> None:
    """Names with their values, a line each; a name may come again."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(" " * indent + clean(name)), _laid_out(value))
    console.print(table)


def print_json(value: Any) -> None:
    """A value as JSON, for other programs; ASCII, so that it passes any pipe."""
    json.dump(value, sys.stdout, default=_in_words, indent=2)
    sys.stdout.write("\n")


def _in_words(value: Any) -> str:
    """What JSON has no kind for; times in UTC, where Spark gives them in the zone of this machine."""
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def _laid_out(value: object) -> Text:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return cell(value)
    if not isinstance(value, dict | list) or not value:
        return cell(value)
    text = json.dumps(value, default=str, ensure_ascii=False, indent=2)
    return Text(clean(text, keep_lines=True))
