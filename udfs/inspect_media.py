"""Files to content: hash each file once in full, then ask the decoder what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

import pyarrow as pa

from ._decoder import kept_decoder
from ._errors import MediaError
from ._kinds import HEAD_BYTES, sniff
from .frame_types import Limits
from .hashing import content_hash
from .uris import FileFacts, inner_path, open_input, stat

MAX_BYTES = 1 << 40

Probe = Callable[..., Mapping[str, Any]]


def inspect_media(
    batches: Iterable[pa.RecordBatch],
    *,
    schema: pa.Schema,
    limits: Limits,
    keep_position: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Adds `media_id`, `media` and `error` to rows of files (`uri`, `size_bytes`, `mtime`, `etag` and others).

    `schema` is of the output: the input's columns, which pass unchanged, and those three; fields of `media` that the
    content does not tell (`run_id`) stay null. A file that cannot be read or is no media gives a row with `error` and
    no `media`; reasons: hidden_file, empty_file, too_large, not_media, source_missing, read_failed,
    changed_while_read, and all of `probe_media` and of the decoder's limits.
    """
    decoder = kept_decoder(limits)
    for batch in batches:
        rows = [
            _inspect(row, probe=decoder.probe, keep_position=keep_position, max_bytes=max_bytes)
            for row in batch.select(["uri", "size_bytes", "mtime"]).to_pylist()
        ]
        yield _to_batch(batch, rows, schema)


def is_hidden(uri: str) -> bool:
    """Whether the file's name begins with a dot, as files do that systems write beside media (`._clip.mp4`)."""
    return inner_path(uri).rpartition("/")[2].startswith(".")


def _inspect(row: Mapping[str, Any], *, probe: Probe, keep_position: bool, max_bytes: int) -> dict[str, Any]:
    try:
        media_id, media = _read(row, probe=probe, keep_position=keep_position, max_bytes=max_bytes)
    except MediaError as error:
        return {"error": error.as_row()}
    except FileNotFoundError as error:
        return {"error": MediaError("source_missing", str(error)).as_row()}
    except OSError as error:
        return {"error": MediaError("read_failed", str(error)).as_row()}
    return {"media_id": media_id, "media": media}


def _read(row: Mapping[str, Any], *, probe: Probe, keep_position: bool, max_bytes: int) -> tuple[str, dict[str, Any]]:
    uri = row["uri"]
    if is_hidden(uri):
        raise MediaError("hidden_file", "the name begins with a dot; such files are not read")
    before = stat(uri)
    _check_unchanged(row, before, "since it was listed")
    if before.size_bytes == 0:
        raise MediaError("empty_file", "the file has 0 bytes")
    if before.size_bytes is not None and before.size_bytes > max_bytes:
        raise MediaError("too_large", f"the file has {before.size_bytes} bytes; at most {max_bytes} are allowed")
    with open_input(uri) as stream:
        # What is no media is told by its first bytes, before gigabytes are read for a hash.
        sniff(stream.read(HEAD_BYTES))
        stream.seek(0)
        media_id, size_bytes = content_hash(stream)
    facts = dict(probe(uri, size_bytes=size_bytes, keep_position=keep_position))
    _check_unchanged({"size_bytes": size_bytes, "mtime": before.mtime}, stat(uri), "while it was read")
    captured_at = facts.get("captured_at")
    facts["captured_at"] = datetime.fromisoformat(captured_at) if captured_at else None
    return media_id, facts | {"media_id": media_id, "size_bytes": size_bytes}


def _check_unchanged(before: Mapping[str, Any], now: FileFacts, when: str) -> None:
    """Raises MediaError where size or time differ from what is known of before."""
    for name, value in (("size_bytes", now.size_bytes), ("mtime", now.mtime)):
        known = before.get(name)
        if known is not None and value is not None and known != value:
            raise MediaError("changed_while_read", f"the file changed {when}: {name} was {known}, is {value}")


def _to_batch(batch: pa.RecordBatch, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if field.name in ("media_id", "media", "error"):
            columns.append(pa.array([row.get(field.name) for row in rows], type=field.type))
        else:
            column = batch.column(field.name)
            columns.append(column if column.type == field.type else cast(Any, column).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)
