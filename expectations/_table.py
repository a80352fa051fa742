"""How a table is declared: its columns, key, row rules, checks and storage, written once.

The declaration creates the Delta table, types what a UDF returns, fills the quarantine, feeds the gate and prints the
documentation (`visionlake tables --describe`). It knows neither Spark nor Delta, so that reading it costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

Severity = Literal["stop", "warn"]
Metric = float | int | bool | None

ERROR_TYPE = "struct<reason:string, message:string, payload:string>"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its Spark type as DDL text, its meaning with the unit, and whether equality ignores it.

    A volatile column (run ids, times) is not part of what "equal tables" means and never makes a row count as changed.
    """

    name: str
    type: str
    comment: str
    nullable: bool = True
    volatile: bool = False


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A row rule: `holds` is a SQL predicate true for every good row; a row where it is false or null is quarantined.

    `name` becomes the quarantine's reason and `message` says what is allowed.
    """

    name: str
    holds: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check of a whole wave: a number that must lie within bounds.

    `metric` is a SQL aggregate over the wave's good rows, the name of a number which the stage measures itself, or
    "errors:<reason>", how many rows are in quarantine for that reason.
    `offending` is a SQL predicate that picks the rows whose keys the report shows. A null metric fails the check,
    except where the wave has no good row at all. With `share=True` the metric is a share of rows, and the check stops a
    wave only from `min_rows` rows on; below, it warns. With a `factor` the bounds come from the producer's earlier
    waves: their mean divided and multiplied by it. For its first wave there are none, and the check is skipped.
    """

    name: str
    metric: str
    expected: str
    minimum: float | None = None
    maximum: float | None = None
    severity: Severity = "stop"
    share: bool = False
    offending: str | None = None
    factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A Delta table. `key` identifies a row; `cluster_by` names the columns along which files are laid out.

    Those of the key that `may_be_unknown` lists may be null, and null is one of their values; the others may not.

    An open table may hold columns beyond the declared ones (those of manifests).
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    rules: tuple[Rule, ...] = ()
    checks: tuple[Check, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    cluster_by: tuple[str, ...] = ()
    is_open: bool = False
    may_be_unknown: tuple[str, ...] = ()

    @property
    def known_key(self) -> tuple[str, ...]:
        """The columns of the key that are never null."""
        return tuple(name for name in self.key if name not in self.may_be_unknown)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of all columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def compared_columns(self) -> tuple[str, ...]:
        """The columns that decide whether two rows are equal: neither key nor volatile."""
        return tuple(c.name for c in self.columns if not c.volatile and c.name not in self.key)

    @cached_property
    def ddl(self) -> str:
        """The columns as Spark DDL, for `StructType.fromDDL` and `mapInArrow`."""
        return ", ".join(f"`{c.name}` {c.type}" for c in self.columns)

    def arrow_schema(self, *, with_error: bool = False) -> pa.Schema:
        """The columns as an Arrow schema; `with_error` appends the `error` struct that a transform may return."""
        fields = {c.name: c.type for c in self.columns}
        return arrow_schema(fields | {"error": ERROR_TYPE} if with_error else fields)

    def pick(self, *names: str) -> tuple[Column, ...]:
        """Some of the columns, to declare them again in a table that shares them. KeyError for an unknown name."""
        columns = {column.name: column for column in self.columns}
        return tuple(columns[name] for name in names)

    def with_columns(self, extra: Iterable[Column]) -> Table:
        """The same table with more columns at its end."""
        return replace(self, columns=(*self.columns, *extra))


@dataclass(frozen=True, kw_only=True)
class View:
    """A view: SQL in which `{name}` stands for the table or view of that name.

    `sql` may be a function where the text depends on columns that are not declared (those of a manifest): it gets the
    actual column names of what the view reads.
    """

    name: str
    comment: str
    sql: str | Callable[[Mapping[str, Sequence[str]]], str]
    reads: tuple[str, ...]

    def statement(self, relations: Mapping[str, str], *, columns: Mapping[str, Sequence[str]]) -> str:
        """The SELECT. `relations` and `columns` map each name in `reads` to its SQL name and to its column names."""
        text = self.sql if isinstance(self.sql, str) else self.sql(columns)
        return text.format(**relations)


def arrow_schema(types: Mapping[str, str]) -> pa.Schema:
    """Arrow schema of columns whose types are given as Spark DDL."""
    import pyarrow as pa

    return pa.schema([pa.field(name, arrow_type(ddl)) for name, ddl in types.items()])


def arrow_type(ddl: str) -> pa.DataType:
    """The Arrow type Spark uses for a DDL type: scalars, `array<t>`, `map<k,v>`, `struct<a:t, b:u>`.

    Raises ValueError for a type outside this list.
    """
    import pyarrow as pa

    scalars = {
        "string": pa.string(), "binary": pa.binary(), "boolean": pa.bool_(), "tinyint": pa.int8(), "int": pa.int32(),
        "bigint": pa.int64(), "float": pa.float32(), "double": pa.float64(), "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    text = ddl.strip()
    if text in scalars:
        return scalars[text]
    nested = re.fullmatch(r"(array|map|struct)\s*<(.*)>", text, re.DOTALL)
    if nested is None:
        raise ValueError(f"column type {ddl!r} is not known; use one of {sorted(scalars)}, array<>, map<> or struct<>")
    parts = _split_at_commas(nested[2])
    if nested[1] == "array":
        return pa.list_(arrow_type(parts[0]))
    if nested[1] == "map":
        return pa.map_(arrow_type(parts[0]), arrow_type(parts[1]))
    pairs = [re.split(r"\s*:\s*|\s+", part.strip(), maxsplit=1) for part in parts]
    return pa.struct([pa.field(name, arrow_type(inner)) for name, inner in pairs])


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas outside angle brackets."""
    depth, start, parts = 0, 0, []
    for position, character in enumerate(text):
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
