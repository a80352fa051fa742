"""Messages between a worker and its decoder: a JSON header and raw bytes, each with its length in front.

No pickle: the decoder's side has read untrusted media and may not make the worker run anything.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

_LENGTHS = struct.Struct("<IQ")
MAX_HEADER_BYTES = 64 << 20
MAX_BODY_BYTES = 1 << 32

Message = tuple[dict[str, Any], bytes]


def pack(header: dict[str, Any], body: bytes | memoryview = b"") -> list[bytes | memoryview]:
    """A message as the pieces to write one after the other."""
    text = json.dumps(header).encode()
    return [_LENGTHS.pack(len(text), len(body)) + text, body] if len(body) else [_LENGTHS.pack(len(text), 0) + text]


def unpack(read: Callable[[int], bytes]) -> Message | None:
    """The next message; None at the end of the stream. `read(n)` gives exactly n bytes, or fewer at the end.

    Raises ValueError for what is no message.
    """
    lengths = read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header_bytes, body_bytes = _LENGTHS.unpack(lengths)
    if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        raise ValueError(f"no message: {header_bytes} and {body_bytes} bytes")
    text = read(header_bytes)
    body = read(body_bytes) if body_bytes else b""
    if len(text) < header_bytes or len(body) < body_bytes:
        return None
    return json.loads(text), body
