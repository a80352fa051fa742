"""What formats in XML share: a file as a stream of elements, and entries that may be wrong.

DTDs are refused, and with them every entity that could grow or read another file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from defusedxml import DefusedXmlException, ElementTree

from ..annotation_types import AnnotationError, Problem

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_DEPTH = 32
"""So deep may elements be nested."""

# Parsers look at a long tag from its beginning with each chunk, so these must not be short.
_CHUNK_BYTES = 256 << 10
_PAYLOAD_CHARACTERS = 2000
_BLANK = b"\xef\xbb\xbf \t\r\n"
_WHOLE = re.compile(r"[0-9]{1,9}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")


class Invalid(Exception):
    """An entry of an element cannot be used; `reason` becomes that of the Problem."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Elements:
    """The elements of a file in its order, held only while they are looked at. Raises AnnotationError, OSError.

    `limit_bytes` is how much of the file may have to be held at once; `what` says in messages what that is.
    """

    def __init__(self, stream: BinaryIO, *, limit_bytes: int, what: str) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._what = what
        self._is_blank = True
        self._read_bytes = 0
        self._held_from = 0  # what was read when all before was let go
        self._depth = 0
        self._events = self._parsed()

    def root(self) -> Element:
        """The outermost element, of which only the start tag was read. To be called first."""
        return next(self._events)

    def children(self, parent: Element) -> Iterator[Element]:
        """Each child of an element just begun, when its start tag was read: it has attributes, the rest by `finish`.

        A child is let go when the next one is asked for. At the end the element is finished.
        """
        depth = self._depth
        for element in self._events:
            if self._depth < depth:
                break
            yield element
            self._read_to(depth)
            del parent[:]
            self._held_from = self._read_bytes
        self._read_to(self._depth)

    def finish(self, element: Element) -> Element:
        """The element that was just begun, as a whole."""
        self._read_to(self._depth - 1)
        return element

    def read(self, size: int = -1) -> bytes:
        """What the parser asks for."""
        chunk = self._stream.read(max(size, _CHUNK_BYTES))
        self._is_blank = self._is_blank and not chunk.strip(_BLANK)
        self._read_bytes += len(chunk)
        if self._read_bytes - self._held_from > self._limit_bytes:
            raise AnnotationError(
                "too_large", f"{self._what} is larger than {self._limit_bytes} bytes, which is the most that is allowed"
            )
        return chunk

    def _read_to(self, depth: int) -> None:
        while self._depth > depth:
            next(self._events)
        if not depth:
            for _ in self._events:  # says so if something follows
                pass

    def _parsed(self) -> Iterator[Element]:
        """Each element twice: when it begins, and when it ends."""
        try:
            for event, element in ElementTree.iterparse(self, events=("start", "end"), forbid_dtd=True):
                self._depth += 1 if event == "start" else -1
                if self._depth > MAX_DEPTH:
                    raise AnnotationError("nested_too_deep", f"elements are nested deeper than the allowed {MAX_DEPTH}")
                yield element
        except DefusedXmlException as error:
            raise AnnotationError(
                "xml_forbidden", f"it has a DTD or entities ({str(error)[:200]}), which are refused; leave them out"
            ) from None
        except ElementTree.ParseError as error:
            raise self._not_xml(error) from None
        except (LookupError, ValueError) as error:
            raise AnnotationError("not_xml", f"its text cannot be read: {error}; save it as UTF-8") from None

    def _not_xml(self, error: ElementTree.ParseError) -> AnnotationError:
        if self._is_blank:
            return AnnotationError("empty_file", "it is empty; XML is expected")
        line, column = error.position
        what = str(error).partition(":")[0]
        return AnnotationError(
            "not_xml", f"it is no XML, or it breaks off: {what} in line {line}, column {column + 1}; copy it again"
        )


def problem(error: Invalid, element: Element, *, picture: str | None, what: str) -> Problem:
    """What is wrong with an element, which `what` names in the message."""
    element.tail = None  # what stands behind it is not its own
    payload = ElementTree.tostring(element, encoding="unicode")[:_PAYLOAD_CHARACTERS]
    return Problem(reason=error.reason, message=f"{what}: {error}", picture=picture, payload=payload)


def start_tag(element: Element) -> Element:
    """The element without what stands in it."""
    return element.makeelement(element.tag, element.attrib)


def number(text: str | None, entry: str) -> float:
    """Any number, NaN and infinite ones too. Raises Invalid."""
    word = (text or "").strip()
    try:
        # Python alone would also read 1_0, and digits of other scripts.
        if word.isascii() and "_" not in word:
            return float(word)
    except ValueError:
        pass
    raise Invalid("number_invalid", f"{entry} is {shown(text)}; allowed are numbers, such as 12 or 45.70")


def whole(text: str | None, entry: str, *, at_least: int = 0) -> int:
    """A whole number that fits into a table's column. Raises Invalid."""
    word = (text or "").strip()
    if _WHOLE.fullmatch(word) and int(word) >= at_least:
        return int(word)
    raise Invalid("number_invalid", f"{entry} is {shown(text)}; allowed are whole numbers from {at_least} to 999999999")


def size(text: str | None, entry: str) -> int | None:
    """A width or height in pixels; None where it is 0 or missing, which is how tools say that they know none."""
    return whole(text, entry) or None if (text or "").strip() else None


def safe_name(text: str | None, entry: str) -> str:
    """A picture's file name, relative path or URL, as it is. Raises Invalid."""
    if not text or not text.strip():
        raise Invalid("name_missing", f"{entry} is {shown(text)}; allowed is text that is not empty")
    if not _URL.match(text) and (_ABSOLUTE.match(text) or ".." in re.split(r"[/\\]", text)):
        raise Invalid(
            "name_unsafe", f"{entry} is {shown(text)}; allowed are URLs, and paths from the pictures' folder without .."
        )
    return text


def text_of(element: Element, path: str) -> str:
    """The text of an element inside, without the blanks around it; "" where there is none."""
    return (element.findtext(path) or "").strip()


def shown(text: str | None) -> str:
    """A value for messages."""
    return "missing" if not text else repr(text[:80])
