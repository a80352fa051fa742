"""Types of settings that TOML has no words for, and what a setting allows, in words."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator, PlainSerializer
from pydantic.fields import FieldInfo


class TomlFloat(float):
    """A float that remembers its decimal text: 29.97 frames a second are 2997/100 and not the nearest double."""

    text: str

    def __new__(cls, text: str) -> TomlFloat:
        number = super().__new__(cls, text)
        number.text = text.replace("_", "")
        return number


@dataclass(frozen=True)
class Allowed:
    """Says in words what an annotated type allows, for messages."""

    words: str


def parse_fps(value: object) -> Fraction:
    """A rate in frames per second, exactly as written: 5, 29.97, "30000/1001". Raises ValueError for others."""
    rate = _exact(value)
    if not 0 < rate <= 1_000_000:
        raise ValueError("a rate lies above 0 and is at most 1000000")
    return rate


def _parse_seconds(value: object) -> Fraction:
    seconds = _exact(value)
    if seconds < 0:
        raise ValueError("negative")
    return seconds


def _exact(value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Fraction):
        raise ValueError("not a number")
    text = getattr(value, "text", str(value))
    if re.search(r"e[+-]?\d{3}", text, re.IGNORECASE):  # 1e999999999 would be computed for hours
        raise ValueError("not a number of a size that makes sense")
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError("not a number") from None


Fps = Annotated[
    Fraction,
    BeforeValidator(parse_fps),
    PlainSerializer(str, return_type=str),
    Allowed('frames per second above 0: a number, or a fraction as text like "30000/1001"'),
]
"""Frames per second as an exact fraction. In records it is text in lowest terms ("5", "2997/100")."""

Seconds = Annotated[
    Fraction,
    BeforeValidator(_parse_seconds),
    PlainSerializer(str, return_type=str),
    Allowed("seconds, at least 0"),
]
"""A time in seconds as an exact fraction, not negative. In records it is text in lowest terms ("5/2")."""

_WORDS: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Any: "any value",
}


def describe_field(field: FieldInfo) -> str:
    """What a field allows, in words: type, bounds and description."""
    bounds = {name: getattr(m, name) for m in field.metadata for name in ("gt", "ge", "lt", "le") if hasattr(m, name)}
    low = f"above {bounds['gt']}" if "gt" in bounds else f"at least {bounds['ge']}" if "ge" in bounds else ""
    high = f"below {bounds['lt']}" if "lt" in bounds else f"at most {bounds['le']}" if "le" in bounds else ""
    words = next((m.words for m in field.metadata if isinstance(m, Allowed)), None) or _describe_type(field.annotation)
    least = next((m.min_length for m in field.metadata if hasattr(m, "min_length")), 0)
    limits = " and ".join(limit for limit in (low, high, "not empty" if least else "") if limit)
    return words + (f" {limits}" if limits else "") + (f" ({field.description})" if field.description else "")


def _describe_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        words = [m.words for m in arguments[1:] if isinstance(m, Allowed)]
        return words[0] if words else _describe_type(arguments[0])
    if origin is Literal:
        return _either([f'"{a}"' if isinstance(a, str) else str(a) for a in arguments])
    if origin in (Union, types.UnionType):
        return _either([_describe_type(a) for a in arguments if a is not types.NoneType])
    if origin in (tuple, list):
        return f"a list, each {_describe_type(arguments[0])}"
    if origin is dict:
        return "a table" if arguments[1] is Any else f"a table, each value {_describe_type(arguments[1])}"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _either(words: list[str]) -> str:
    return " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]
