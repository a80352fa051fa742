"""Users' own expectations: from TOML, from a Python file, or as objects; checked before work starts."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake.errors import ConfigError

from .._checks import did_you_mean
from .._table import Severity
from ._gx import context, explain

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation


def validate_expectations(expectations: Sequence[Mapping[str, Any] | Expectation]) -> None:
    """Raise ConfigError for an unknown type, a wrong argument or a wrong severity.

    Unknown types are found within milliseconds, arguments only by importing Great Expectations; nothing is imported
    where there are no expectations.
    """
    types = _known_types()
    for item in expectations:
        if types and isinstance(item, Mapping) and item.get("type") not in types:
            raise _unknown_type(item.get("type"), types)
    if expectations:
        build(expectations)


def load_expectations(path: str | Path) -> list[Expectation]:
    """The list `EXPECTATIONS` of a Python file. Raises ConfigError where the file fails or does not have one."""
    try:
        found = runpy.run_path(str(path)).get("EXPECTATIONS")
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else f"{path}"
        raise ConfigError(f"{where}: {type(error).__name__}: {explain(error)}") from error
    if not isinstance(found, list | tuple):
        raise ConfigError(f"{path}: wants EXPECTATIONS = [...], a list of Great Expectations expectations")
    return list(found)


@dataclass(frozen=True, kw_only=True)
class Own:
    """An expectation of a user's, with the name and severity it was given."""

    name: str
    severity: Severity
    expectation: Expectation


def build(items: Sequence[Mapping[str, Any] | Expectation]) -> list[Own]:
    """The expectations, each with a name of its own. Raises ConfigError."""
    built: list[Own] = []
    for position, item in enumerate(items, start=1):
        try:
            own = _from_mapping(item) if isinstance(item, Mapping) else _from_object(item)
        except ConfigError as error:
            raise ConfigError(f"expectation {position}: {error}") from error
        same = sum(other.name.split(" #")[0] == own.name for other in built)
        name = f"{own.name} #{same + 1}" if same else own.name
        built.append(Own(name=name, severity=own.severity, expectation=own.expectation))
    return built


def _from_mapping(item: Mapping[str, Any]) -> Own:
    context()
    from great_expectations.exceptions.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    arguments = {name: _plain(value) for name, value in item.items()}
    kind = arguments.pop("type", None)
    severity, name = arguments.pop("severity", "stop"), arguments.pop("name", None)
    try:
        cls = get_expectation_impl(str(kind))
    except ExpectationNotFoundError:
        raise _unknown_type(kind, list_registered_expectation_implementations()) from None
    fields: Mapping[str, Any] = cls.__fields__  # type: ignore[assignment]  # pydantic 1 makes it a plain attribute
    for argument in arguments:
        if argument not in fields:
            raise ConfigError(f"{kind}: unknown argument {argument!r}{did_you_mean(argument, fields)}")
    try:
        expectation = cls(**arguments)
    except (ValueError, TypeError) as error:  # pydantic's errors are ValueErrors
        raise ConfigError(f"{kind}: {explain(error)}") from error
    return _own(expectation, severity=severity, name=name)


def _from_object(item: Any) -> Own:
    context()
    from great_expectations.expectations.expectation import Expectation

    if not isinstance(item, Expectation):
        raise ConfigError(f"{item!r} is neither a table with a type nor a Great Expectations expectation")
    meta = item.meta or {}
    severity = meta.get("severity", "stop" if item.severity.value == "critical" else "warn")
    return _own(item, severity=severity, name=meta.get("name"))


def _own(expectation: Expectation, *, severity: Any, name: Any) -> Own:
    if severity not in ("stop", "warn"):
        raise ConfigError(f"severity = {severity!r}; allowed: 'stop', 'warn'")
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"name = {name!r}; allowed: text")
    arguments = expectation.configuration.kwargs
    columns = [arguments[a] for a in ("column", "column_A", "column_B") if a in arguments]
    columns += arguments.get("column_list", [])
    short = expectation.expectation_type.removeprefix("expect_")
    default = f"{short}({', '.join(columns)})" if columns else short
    return Own(name=name or default, severity=severity, expectation=expectation)


def _plain(value: Any) -> Any:
    """The value in types that GX can copy: a TOML reader may give numbers that remember their text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return float(value) if isinstance(value, float) else value


@cache
def _known_types() -> frozenset[str]:
    """The types that come with GX, by the names of its files; empty where they cannot be listed."""
    if "great_expectations" in sys.modules:
        return frozenset()
    spec = find_spec("great_expectations")
    folders = (spec.submodule_search_locations if spec else None) or []
    files = [path.stem for folder in folders for path in Path(folder, "expectations", "core").glob("[a-z]*.py")]
    return frozenset(files)


def _unknown_type(kind: object, types: Sequence[str] | frozenset[str]) -> ConfigError:
    if not isinstance(kind, str):
        return ConfigError(f"type = {kind!r}; wants the name of an expectation, as expect_column_values_to_be_between")
    return ConfigError(f"unknown expectation {kind!r}{did_you_mean(kind, types)}")
