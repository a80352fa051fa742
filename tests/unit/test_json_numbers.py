"""Words for numbers that are none get quotes, wherever a file is cut into parts, and strings stay as they are."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from visionlake.udfs.annotation_formats._json_numbers import quote_non_numbers


def as_text(value: Any) -> Any:
    """A value with the words that it should be read as."""
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if isinstance(value, dict):
        return {name: as_text(each) for name, each in value.items()}
    return [as_text(each) for each in value] if isinstance(value, list) else value


VALUES = [
    {"bbox": [1, math.nan, -math.inf, math.inf], "area": math.nan},
    {"name": "NaN, -Infinity", "NaN": [math.nan], "more": 'a "NaN" \\', "x": -1e-5, "is": True},
    ["\\", math.nan, "\\\\", "\\\"NaN", math.inf, "x" * 30 + "Infinity"],
]  # fmt: skip


@pytest.mark.parametrize("size", [*range(1, 24), 1000])
@pytest.mark.parametrize("value", VALUES)
def test_words_become_text_and_nothing_else_changes(value: Any, size: int) -> None:
    text = json.dumps(value).encode()
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    assert json.loads(b"".join(quote_non_numbers(parts))) == as_text(value)


def test_what_is_no_such_word_is_left() -> None:
    for text in (b"", b"{", b'{"a": tru', b'"Na', b"\\\\\\", b'["NaN', b"[1, 2]"):
        assert b"".join(quote_non_numbers([text])) == text
