"""Media in, frames out: the Arrow function that stage and DataFrame function share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import pyarrow as pa

from . import uris
from ._decoder import kept_decoder
from ._errors import MediaError
from ._kinds import identify
from ._media_places import check_unchanged, find_place, media_error
from .frame_types import Frame, FrameError, FrameOptions, Limits
from .hashing import content_hash

MAX_BATCH_ROWS = 256
MAX_BATCH_BYTES = 64 << 20


def extract_frames(
    batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, options: FrameOptions, limits: Limits
) -> Iterator[pa.RecordBatch]:
    """Frames of the media named by the rows of `batches`, as rows of `schema`.

    In: `uri` (null: the content is nowhere to be had) and, if they are known, `media_id`, `kind`, `size_bytes`, `mtime`
    and `elsewhere`, further places with these three; what is not known is taken from the file. Out: a row per kept
    frame, or a row with `error` (reason, message, payload) and as much of the key as is known. Columns of `schema` that
    are neither are passed through.

    Reasons besides those of decoding: source_missing, source_changed, read_failed. Raises nothing about media.
    """
    columns = [column for column in schema.names if column != "error"]
    rows: list[dict[str, Any]] = []
    size = 0
    for batch in batches:
        for media in batch.to_pylist():
            passed = {name: media.get(name) for name in columns if name in media}
            for found in _media_rows(media, options, limits):
                rows.append(passed | found)
                size += len(found.get("image") or b"")
                if len(rows) >= MAX_BATCH_ROWS or size >= MAX_BATCH_BYTES:
                    yield pa.RecordBatch.from_pylist(rows, schema=schema)
                    rows, size = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _media_rows(media: dict[str, Any], options: FrameOptions, limits: Limits) -> Iterator[dict[str, Any]]:
    """Rows of one media, its error last."""
    known = {"media_id": media.get("media_id")}
    try:
        uri, before = find_place(media)
        if known["media_id"] is None:
            known["media_id"] = _hash(uri)
        kind = media.get("kind") or _kind(uri)
        for found in kept_decoder(limits).frames(uri, kind=kind, options=options):
            yield known | _row(found)
        check_unchanged(uri, {"size_bytes": before.size_bytes, "mtime": before.mtime})
    except (MediaError, OSError) as error:
        yield known | {"error": media_error(error).as_row()}


def _row(found: Frame | FrameError) -> dict[str, Any]:
    if isinstance(found, Frame):
        return vars(found)
    return {
        "stream_index": found.stream_index,
        "pts": found.pts,
        "error": {"reason": found.reason, "message": found.message, "payload": found.payload},
    }


def _hash(uri: str) -> str:
    with uris.open_input(uri) as file:
        return content_hash(file)[0]


def _kind(uri: str) -> Literal["video", "image"]:
    with uris.open_input(uri) as file:
        return identify(file).kind
