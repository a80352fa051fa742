"""Text from files and tables, made fit to be shown."""

from __future__ import annotations


def clean(value: object, *, keep_lines: bool = False) -> str:
    """Text that does nothing but show: control characters, direction marks and undecodable bytes are written out."""
    text = str(value)
    if text.isprintable():
        return text
    kept = "\n" if keep_lines else ""
    return "".join(c if c.isprintable() or c in kept else _written_out(c) for c in text)


def _written_out(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
