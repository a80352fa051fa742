"""Whether a video file is shorter than its container says: how a cut-off file is told, for decoders do not notice."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import BinaryIO

_ISO_BOXES = frozenset(
    b"ftyp styp moov mdat moof mfra sidx ssix free skip wide uuid udta meta pnot emsg prft pdin".split()
)
_MAX_PARTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """A file of `size_bytes` whose container declares `declared_bytes`, at least."""

    size_bytes: int
    declared_bytes: int

    def __str__(self) -> str:
        return f"the file has {self.size_bytes} bytes of {self.declared_bytes}"

    def as_json(self) -> str:
        """The payload of an error."""
        return json.dumps(asdict(self))


def shortfall(file: BinaryIO, demuxer: str | None) -> Shortfall | None:
    """What is missing at the end of an open file; None where nothing is, or where the container does not tell.

    `demuxer` is FFmpeg's name of the format. Reads only headers and leaves the file anywhere.
    """
    size = file.seek(0, 2)
    walk = {"mov": _iso_end, "matroska": _matroska_end, "avi": _avi_end, "mpegts": _transport_end}.get(demuxer or "")
    declared = walk(file, size) if walk is not None else None
    return None if declared is None or declared <= size else Shortfall(size_bytes=size, declared_bytes=declared)


def _iso_end(file: BinaryIO, size: int) -> int | None:
    """End of the last box of an ISO base media file."""
    position = 0
    for _ in range(_MAX_PARTS):
        file.seek(position)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        # Padding, and whatever recorders append, is not declared by anything.
        if name not in _ISO_BOXES or length < 8:
            break
        position += length
    return position


def _avi_end(file: BinaryIO, size: int) -> int | None:
    """End of the last RIFF chunk; large files have several."""
    position = 0
    for _ in range(_MAX_PARTS):
        file.seek(position)
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not length:
            break
        position += 8 + length + length % 2
    # The padding byte behind the last chunk may be missing.
    return position if position - 1 != size else size


def _matroska_end(file: BinaryIO, size: int) -> int | None:
    """End of the segment; None where it was written live, of unknown length."""
    file.seek(0)
    head = file.read(4096)
    position = 0
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
        if head[position : position + 4] != name or position + 5 > len(head):
            return None
        first = head[position + 4]
        width = 9 - first.bit_length()
        raw = int.from_bytes(head[position + 4 : position + 4 + width], "big")
        length = raw & ((1 << 7 * width) - 1)
        if width > 8 or length == (1 << 7 * width) - 1:
            return None
        position += 4 + width + length
    return position


def _transport_end(file: BinaryIO, size: int) -> int | None:
    """End of the last packet; a recording may begin in the midst of one."""
    file.seek(0)
    head = file.read(4096)
    for packet in (188, 192, 204):
        for start in range(packet):
            places = range(start, len(head), packet)
            if len(places) >= 4 and all(head[place] == 0x47 for place in places):
                # The sync byte of 192-byte packets follows a time stamp of four bytes.
                start -= 4 if packet == 192 and start >= 4 else 0
                return start + -(-(size - start) // packet) * packet
    return None
