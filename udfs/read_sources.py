"""Reads the files that need reading; rows that do not (files that are gone, or just described anew) pass by."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC
from itertools import chain
from typing import Any

import pyarrow as pa

from ._errors import MediaError
from .frame_types import Limits
from .inspect_media import inspect_media
from .uris import display, local_path, stat

READ, UPDATE, UNREADABLE = "read", "update", "unreadable"


def read_sources(
    batches: Iterable[pa.RecordBatch],
    *,
    found: pa.Schema,
    limits: Limits,
    keep_position: bool,
    max_bytes: int,
) -> Iterator[pa.RecordBatch]:
    """Adds `media_id`, `media` and `error`, typed by `found`, to rows with an `action` (read, update, ...).

    The payload of an error is JSON: size, time and tag of the file as it was listed, by which a later run knows that it
    is the same, its input, and as `detail` what the error itself has to say.
    """
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        return
    schema = pa.schema([*first.schema, *found])
    passing: deque[pa.RecordBatch] = deque()

    def to_read() -> Iterator[pa.RecordBatch]:
        for batch in chain([first], batches):
            batch = _with_tags(batch)
            is_read = [action == READ for action in batch.column("action").to_pylist()]
            others = pa.array([not value for value in is_read], pa.bool_())
            passing.append(_unread(batch.filter(others), schema))
            if any(is_read):
                yield batch.filter(pa.array(is_read, pa.bool_()))

    for batch in inspect_media(
        to_read(), schema=schema, limits=limits, keep_position=keep_position, max_bytes=max_bytes
    ):
        yield _with_payload(batch)
        while passing:
            yield passing.popleft()
    yield from passing


def _with_tags(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Ask a store for the entity tags that its listings do not give; content of the same tag is not read again."""
    if not any(local_path(uri) is None for uri in batch.column("uri").to_pylist()):
        return batch
    rows = batch.to_pylist(maps_as_pydicts="strict")
    for row in rows:
        if row["action"] != READ or local_path(row["uri"]) is not None:
            continue
        try:
            row["etag"] = stat(row["uri"]).etag
        except OSError:  # reading it will say why
            continue
        known = row["known"]
        if known and row["etag"] and (known["etag"], known["size_bytes"]) == (row["etag"], row["size_bytes"]):
            row["action"] = UPDATE
    return pa.RecordBatch.from_pylist(rows, schema=batch.schema)


def _unread(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    errors = [_unreadable(row) if row["action"] == UNREADABLE else None for row in _facts(batch)]
    added = [
        pa.array(errors, schema.field("error").type) if field.name == "error" else pa.nulls(len(errors), field.type)
        for field in list(schema)[batch.num_columns :]
    ]
    return _with_payload(pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema))


def _unreadable(row: dict[str, Any]) -> dict[str, str | None]:
    message = f"{display(row['uri'])} cannot be listed: {row['message']}; what was seen in it before stays as it is"
    return MediaError("folder_unreadable", message).as_row()


def _with_payload(batch: pa.RecordBatch) -> pa.RecordBatch:
    errors = batch.column("error").to_pylist()
    if not any(errors):
        return batch
    rows = _facts(batch)
    errors = [error and error | {"payload": _payload(row, error)} for row, error in zip(rows, errors, strict=True)]
    place = batch.schema.get_field_index("error")
    return batch.set_column(place, batch.schema.field(place), pa.array(errors, batch.schema.field(place).type))


def _facts(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    return batch.select(["uri", "action", "size_bytes", "mtime", "etag", "described", "message"]).to_pylist()


def _payload(row: dict[str, Any], error: dict[str, str | None]) -> str:
    mtime = row["mtime"]
    known: dict[str, Any] = {
        "size_bytes": row["size_bytes"],
        "mtime": mtime and mtime.astimezone(UTC).isoformat(timespec="microseconds"),
        "etag": row["etag"],
        "input": row["described"]["input"],
    }
    return json.dumps(known | ({"detail": error["payload"]} if error["payload"] else {}))
