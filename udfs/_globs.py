"""Patterns of paths: `*` and `?` within a name, `[...]`, `**` for any number of folders."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

_MAGIC = re.compile(r"[*?\[]")


def has_magic(path: str) -> bool:
    """Whether the text holds a wildcard."""
    return _MAGIC.search(path) is not None


class Glob:
    """A pattern over paths relative to its base. A matched folder stands for everything in it.

    As in a shell, a wildcard does not match a leading dot.
    """

    def __init__(self, pattern: str) -> None:
        self._names = [name for name in pattern.split("/") if name]
        self._patterns = [_path_pattern(self._names[:count]) for count in range(1, len(self._names) + 1)]

    def matches(self, path: str) -> bool:
        """Whether the file is meant, by its own name or by a folder that it lies in."""
        names = path.split("/")
        return any(self._patterns[-1].fullmatch("/".join(names[:count])) for count in range(1, len(names) + 1))

    def may_hold(self, folder: str) -> bool:
        """Whether a folder can hold files that match."""
        depth = folder.count("/") + 1
        if "**" in self._names[:depth]:
            return not folder.rpartition("/")[2].startswith(".") or self.matches(folder)
        if depth < len(self._names):
            return self._patterns[depth - 1].fullmatch(folder) is not None
        return self.matches(folder)


def is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern (its `*` crosses folders) matches the file's name or its path relative to the input."""
    name = path.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _path_pattern(names: Sequence[str]) -> re.Pattern[str]:
    parts = [_folders(last=index == len(names) - 1) if n == "**" else _name(n) for index, n in enumerate(names)]
    text = "".join(part if n == "**" else part + "/" for n, part in zip(names, parts, strict=True))
    try:
        return re.compile(text.removesuffix("/"), re.DOTALL)
    except re.error as error:
        raise ValueError(f"{'/'.join(names)!r} is not a pattern: {error.msg}") from None


def _folders(*, last: bool) -> str:
    one = r"(?!\.)[^/]+"
    return f"{one}(?:/{one})*" if last else f"(?:{one}/)*"


def _name(pattern: str) -> str:
    """One name's pattern as a regular expression; an unclosed bracket is itself."""
    out, position = "" if pattern.startswith(".") else r"(?!\.)", 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            out += "[^/]*"
        elif character == "?":
            out += "[^/]"
        elif character == "[" and (end := pattern.find("]", position + 2)) > 0:
            inside = pattern[position:end].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out += f"(?!/)[^{inside[1:]}]" if inside.startswith("!") else f"(?!/)[{inside}]"
            position = end + 1
        else:
            out += re.escape(character)
    return out
