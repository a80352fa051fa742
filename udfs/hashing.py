"""The identity of content: SHA-256 over all of its bytes, read once."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
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


def file_digest(path: str | Path) -> str:
    """SHA-256 (hex) of a local file; read again only where its size or time has changed. Raises OSError."""
    facts = os.stat(path)
    return _file_digest(str(path), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_digest(path: str, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return content_hash(file)[0]
