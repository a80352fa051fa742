"""The identity of content."""

from __future__ import annotations

import hashlib
from io import BytesIO

import pytest

from visionlake.udfs.hashing import content_hash


@pytest.mark.parametrize("size", [0, 1, 2 << 20, (2 << 20) + 1, 5_000_000])
def test_hash_and_size_cover_every_byte(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert content_hash(BytesIO(data)) == (hashlib.sha256(data).hexdigest(), size)


def test_reading_begins_where_the_stream_stands() -> None:
    stream = BytesIO(b"headtail")
    stream.seek(4)
    assert content_hash(stream) == (hashlib.sha256(b"tail").hexdigest(), 4)
