"""NaN and Infinity in JSON: Python and others write them for numbers that are none, and JSON does not have them.

They become text, so that one bad number spoils its own entry, and not the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_REST = rb'[^"\\]*(?:\\(?:.|\Z)[^"\\]*)*(?:"|\Z)'  # of a string, to its end or that of what is there
_END_OF_STRING = re.compile(_REST, re.DOTALL)
_STRING_OR_WORD = re.compile(rb'"' + _REST + rb"|(-?(?:NaN|Infinity))", re.DOTALL)
_LETTERS = b"-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LONGEST = len(b"-Infinity")


def quote_non_numbers(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The text of a file with quotes around such words, in parts that are not empty. Strings stay as they are."""
    held, is_string = b"", False
    for chunk in chunks:
        part, held = _cut(held + chunk)
        if not part:
            continue
        # Nearly every part has no such word: to count quotes is all that it costs.
        if b"NaN" in part or b"Infinity" in part:
            end = _END_OF_STRING.match(part)
            start = end.end() if is_string and end else 0
            yield part[:start] + _STRING_OR_WORD.sub(_quoted, part[start:])
        else:
            yield part
        quotes = part.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
        is_string ^= quotes % 2 == 1
    if held:
        yield held


def _cut(text: bytes) -> tuple[bytes, bytes]:
    """The text up to a word or an escape that may go on, and the rest."""
    letters = len(text) - len(text.rstrip(_LETTERS))
    if 0 < letters <= _LONGEST:
        return text[:-letters], text[-letters:]
    has_escape = (len(text) - len(text.rstrip(b"\\"))) % 2
    return (text[:-1], text[-1:]) if has_escape else (text, b"")


def _quoted(found: re.Match[bytes]) -> bytes:
    return b'"%b"' % found[1] if found[1] else found[0]
