"""The identity of content: SHA-256 over all of its bytes, read once."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

_BLOCK = 2 << 20


def content_hash(stream: BinaryIO) -> tuple[str, int]:
    """SHA-256 (hex) of the rest of the stream and how many bytes that was. Raises what reading raises (OSError)."""
    digest = hashlib.sha256()
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    size = 0
    while read := stream.readinto(buffer):  # type: ignore[attr-defined]  # every seekable binary stream has it
        digest.update(view[:read])
        size += read
    return digest.hexdigest(), size
