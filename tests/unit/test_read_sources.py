"""Rows pass by what needs no reading, and errors remember the file as it was listed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from visionlake.expectations._table import ERROR_TYPE, arrow_type
from visionlake.udfs import read_sources as module
from visionlake.udfs.frame_types import Limits
from visionlake.udfs.uris import FileFacts

TIME = datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
FACTS = {"size_bytes": pa.int64(), "mtime": pa.timestamp("us", tz="UTC"), "etag": pa.string()}
DESCRIBED = pa.struct([pa.field("input", pa.string())])
SCHEMA = pa.schema(
    {
        "uri": pa.string(), "action": pa.string(), **FACTS, "described": DESCRIBED, "message": pa.string(),
        "known": pa.struct([pa.field(name, kind) for name, kind in FACTS.items()]),
        "first_seen": pa.map_(pa.string(), FACTS["mtime"]),
    }.items()
)  # fmt: skip
FOUND = pa.schema({"media_id": pa.string(), "media": DESCRIBED, "error": arrow_type(ERROR_TYPE)}.items())


def run(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    read: list[str] = []

    def inspect(batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, **_: Any) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = batch.to_pylist(maps_as_pydicts="strict")
            read.extend(row["uri"] for row in found)
            error = {"reason": "not_media", "message": "no", "payload": '{"at": 1}'}
            yield pa.RecordBatch.from_pylist([row | {"error": error} for row in found], schema=schema)

    monkeypatch.setattr(module, "inspect_media", inspect)
    monkeypatch.setattr(module, "stat", lambda uri: FileFacts(size_bytes=5, mtime=TIME, etag="tag"))
    base = {"size_bytes": 5, "mtime": TIME, "described": {"input": "in"}}
    batches = [pa.RecordBatch.from_pylist([base | row], schema=SCHEMA) for row in rows]
    out = module.read_sources(iter(batches), found=FOUND, limits=Limits(), keep_position=False, max_bytes=1)
    return {row["uri"]: row for batch in out for row in batch.to_pylist(maps_as_pydicts="strict")}, read


def test_only_files_to_read_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, read = run(
        monkeypatch,
        {"uri": "file:///gone", "action": "missing"},
        {"uri": "file:///new", "action": "read"},
        {"uri": "file:///same", "action": "update", "first_seen": {"id": TIME}},
        {"uri": "file:///locked", "action": "unreadable", "message": "denied"},
    )
    assert read == ["file:///new"] and set(rows) == {f"file:///{name}" for name in ("gone", "new", "same", "locked")}
    assert rows["file:///gone"]["error"] is None and rows["file:///same"]["first_seen"] == {"id": TIME}
    assert rows["file:///locked"]["error"]["reason"] == "folder_unreadable"
    assert "/locked cannot be listed: denied" in rows["file:///locked"]["error"]["message"]
    assert json.loads(rows["file:///new"]["error"]["payload"]) == {
        "size_bytes": 5, "mtime": "2024-01-02T03:04:05.000006+00:00", "etag": None, "input": "in", "detail": '{"at": 1}'
    }  # fmt: skip


def test_content_of_the_same_tag_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, read = run(
        monkeypatch,
        {"uri": "s3://b/same", "action": "read", "known": {"etag": "tag", "size_bytes": 5}},
        {"uri": "s3://b/other", "action": "read", "known": {"etag": "old", "size_bytes": 5}},
        {"uri": "s3://b/new", "action": "read"},
    )
    assert read == ["s3://b/other", "s3://b/new"]
    assert (rows["s3://b/same"]["action"], rows["s3://b/same"]["etag"]) == ("update", "tag")
    assert rows["s3://b/new"]["etag"] == "tag"


def test_nothing_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch) == ({}, [])
