"""The parts of JPEG, PNG and WebP files: where each lies, without decoding anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ._errors import MediaError

_MAX_PARTS = 1_000_000
_BLOCK = 1 << 20
# Within entropy-coded data FF is followed by 00 (a plain FF), a restart marker or fill; anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One part of a file: `start` to `end` in bytes, headers and checksums included; `payload` is empty where skipped.

    `tag` is JPEG's marker (`FFE1`), or the chunk's name.
    """

    tag: str
    start: int
    end: int
    payload: bytes = b""

    @property
    def size_px(self) -> tuple[int, int] | None:
        """Width and height that a JPEG frame header declares."""
        if len(self.tag) != 4 or not self.tag.startswith("FF") or int(self.tag[2:], 16) not in _JPEG_FRAMES:
            return None
        return int.from_bytes(self.payload[3:5], "big"), int.from_bytes(self.payload[1:3], "big")

    @property
    def is_mpf(self) -> bool:
        """Whether this lists the pictures of a multi-picture file."""
        return self.tag == "FFE2" and self.payload.startswith(b"MPF\0")


def jpeg_segments(file: BinaryIO, *, start: int = 0) -> Iterator[Segment]:
    """The segments of the JPEG that begins at `start`, up to and with its first start of scan.

    Raises MediaError: truncated, unreadable.
    """
    position = start + 2
    for _ in range(_MAX_PARTS):
        file.seek(position)
        head = file.read(4)
        while head[:2] == b"\xff\xff":  # fill bytes
            position += 1
            head = head[1:] + file.read(1)
        if len(head) < 4:
            raise MediaError("truncated", f"the JPEG ends at byte {position + len(head)}, before its picture")
        length = int.from_bytes(head[2:4], "big")
        if head[0] != 0xFF or length < 2:
            raise MediaError("unreadable", f"no JPEG marker at byte {position}, but {head.hex(' ')}")
        payload = file.read(length - 2)
        if len(payload) < length - 2:
            raise MediaError("truncated", f"the JPEG ends within the segment at byte {position}")
        yield Segment(tag=head[:2].hex().upper(), start=position, end=position + 2 + length, payload=payload)
        position += 2 + length
        if head[1] == 0xDA:
            return
    raise MediaError("unreadable", f"the JPEG has more than {_MAX_PARTS} segments")


def jpeg_end(file: BinaryIO, segments: Sequence[Segment], *, limit: int | None = None) -> int | None:
    """The offset behind the end-of-image marker; None where there is none within `limit` bytes of the first scan."""
    position = base = segments[-1].end
    file.seek(position)
    block = b""
    while limit is None or position - base < limit:
        fresh = file.read(_BLOCK)
        if not fresh:
            return None
        block = block[-1:] + fresh if block[-1:] == b"\xff" else fresh
        block_start = position - (len(block) - len(fresh))
        position += len(fresh)
        match = _SCAN_END.search(block)
        if match is None:
            continue
        marker = block_start + match.start()
        code = block[match.start() + 1]
        if code == 0xD9:
            return marker + 2
        # Another segment (tables, a further scan): step over it.
        file.seek(marker + 2)
        length = int.from_bytes(file.read(2), "big")
        position = marker + 2 + max(length, 2)
        file.seek(position)
        block = b""
    return None


def png_chunks(file: BinaryIO, *, max_payload: int = 8 << 20) -> Iterator[Segment]:
    """The chunks of a PNG up to and with IEND; payloads of all but picture data. Raises MediaError: truncated."""
    position = 8
    for _ in range(_MAX_PARTS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            break
        length, tag = int.from_bytes(head[:4], "big"), head[4:].decode("latin-1")
        end = position + 12 + length
        payload = file.read(length) if tag not in ("IDAT", "fdAT") and length <= max_payload else b""
        if tag in ("IDAT", "IEND"):
            file.seek(end - 1)
            if not file.read(1):
                break
        yield Segment(tag=tag, start=position, end=end, payload=payload)
        if tag == "IEND":
            return
        position = end
    raise MediaError("truncated", f"the PNG ends at byte {file.seek(0, 2)}, before its end chunk")


def webp_chunks(file: BinaryIO, *, max_payload: int = 8 << 20) -> Iterator[Segment]:
    """The chunks of a WebP; payloads of all but picture data. Raises MediaError: truncated."""
    file.seek(4)
    total = 8 + int.from_bytes(file.read(4), "little")
    size = file.seek(0, 2)
    if size < total:
        raise MediaError("truncated", f"the WebP has {size} bytes of {total}")
    position = 12
    while position + 8 <= total:
        file.seek(position)
        head = file.read(8)
        length, tag = int.from_bytes(head[4:], "little"), head[:4].decode("latin-1")
        end = position + 8 + length + length % 2
        picture = tag in ("VP8 ", "VP8L", "ALPH", "ANMF") or length > max_payload
        yield Segment(tag=tag, start=position, end=end, payload=b"" if picture else file.read(length))
        position = end
