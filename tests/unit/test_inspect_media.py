"""Files become rows: content and its facts, or an error that says what is wrong."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import media_pictures as pictures
import pyarrow as pa
import pytest

from visionlake.expectations._table import ERROR_TYPE, arrow_type
from visionlake.expectations.media import TABLE
from visionlake.udfs import inspect_media as module
from visionlake.udfs._errors import MediaError
from visionlake.udfs.frame_types import Limits
from visionlake.udfs.inspect_media import inspect_media, is_hidden
from visionlake.udfs.probe import probe_media
from visionlake.udfs.uris import local_path, stat, to_uri

FILES = pa.schema(
    [("uri", pa.string()), ("size_bytes", pa.int64()), ("mtime", pa.timestamp("us", tz="UTC")), ("etag", pa.string()),
     ("site", pa.string())]
)  # fmt: skip
SCHEMA = pa.schema(
    [*FILES, pa.field("media_id", pa.string()), pa.field("media", pa.struct(TABLE.arrow_schema())),
     pa.field("error", arrow_type(ERROR_TYPE))]
)  # fmt: skip


class HereDecoder:
    """Probes in this process; the tests of the decoder are elsewhere."""

    def __init__(self, *, limits: Limits) -> None:
        self.limits = limits
        self.probed: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def probe(self, uri: str, *, size_bytes: int, keep_position: bool) -> dict[str, Any]:
        self.probed.append(uri)
        self.meanwhile()
        path = local_path(uri)
        assert path is not None
        return probe_media(path, size_bytes=size_bytes, limits=self.limits, keep_position=keep_position)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> HereDecoder:
    here = HereDecoder(limits=Limits())
    monkeypatch.setattr(module, "kept_decoder", lambda limits: here)
    return here


def inspect(*paths: Path, listed: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        row = {"uri": to_uri(path), "site": "north"}
        if path.exists():
            facts = stat(row["uri"])
            row |= {"size_bytes": facts.size_bytes, "mtime": facts.mtime}
        rows.append(row | (listed or {}))
    batch = pa.RecordBatch.from_pylist(rows, schema=FILES)
    out = list(inspect_media([batch], schema=SCHEMA, limits=Limits(), **options))
    assert [b.schema for b in out] == [SCHEMA]
    return out[0].to_pylist()


def test_content_and_facts(decoder: HereDecoder, tmp_path: Path) -> None:
    path = pictures.jpeg(tmp_path / "a b ü.jpg", camera=True, gps=True).path
    row = inspect(path)[0]
    assert row["error"] is None and row["site"] == "north" and row["uri"] == to_uri(path)
    assert row["media_id"] == row["media"]["media_id"] == hashlib.sha256(path.read_bytes()).hexdigest()
    media = row["media"]
    assert (media["kind"], media["container"], media["size_bytes"]) == ("image", "jpeg", path.stat().st_size)
    assert media["captured_at"] == datetime(2024, 5, 6, 5, 8, 9, 250_000, tzinfo=UTC)
    assert (media["has_position"], media["position"], media["run_id"]) == (True, None, None)
    assert inspect(path, keep_position=True)[0]["media"]["position"]["altitude_m"] == 12.5


def test_each_bad_file_is_a_row_and_the_rest_goes_on(decoder: HereDecoder, tmp_path: Path) -> None:
    good = pictures.jpeg(tmp_path / "good.jpg").path
    data = good.read_bytes()
    expected = {
        ".hidden.jpg": (data, "hidden_file"),
        "._good.jpg": (data, "hidden_file"),
        "empty.jpg": (b"", "empty_file"),
        "notes.txt": (b"hello\n", "not_media"),
        "cut.jpg": (data[:500], "truncated"),
        "good.jpg": (data, None),
    }
    for name, (content, _) in expected.items():
        (tmp_path / name).write_bytes(content)
    pictures.absurd_png(tmp_path / "absurd.png")
    (tmp_path / "folder.jpg").mkdir()
    names = [*expected, "absurd.png", "gone.jpg", "folder.jpg"]
    reasons = [reason for _, reason in expected.values()] + ["too_large", "source_missing", "read_failed"]
    rows = inspect(*(tmp_path / name for name in names))
    assert [row["error"] and row["error"]["reason"] for row in rows] == reasons
    assert [row["media"] is None for row in rows] == [reason is not None for reason in reasons]


def test_what_is_no_media_is_not_read_in_full(decoder: HereDecoder, tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(stream: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(module, "content_hash", refuse)
    path = tmp_path / "huge.mp4"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert inspect(path)[0]["error"]["reason"] == "not_media"
    assert inspect(path, max_bytes=1 << 30)[0]["error"]["reason"] == "too_large"
    assert decoder.probed == []


def test_files_that_change_meanwhile(decoder: HereDecoder, tmp_path: Path) -> None:
    path = pictures.jpeg(tmp_path / "a.jpg").path
    for listed in ({"size_bytes": 1}, {"mtime": datetime(2020, 1, 1, tzinfo=UTC)}):
        error = inspect(path, listed=listed)[0]["error"]
        assert error["reason"] == "changed_while_read" and "since it was listed" in error["message"]
    assert inspect(path, listed={"size_bytes": None, "mtime": None})[0]["error"] is None
    decoder.meanwhile = lambda: os.utime(path, ns=(1, 1))
    error = inspect(path)[0]["error"]
    assert error["reason"] == "changed_while_read" and "while it was read" in error["message"]


def test_failures_of_the_decoder_are_rows(decoder: HereDecoder, tmp_path: Path) -> None:
    def hang() -> None:
        raise MediaError("decoder_timeout", "no answer", '{"stall_s": 60}')

    decoder.meanwhile = hang
    error = inspect(pictures.jpeg(tmp_path / "a.jpg").path)[0]["error"]
    assert error == {"reason": "decoder_timeout", "message": "no answer", "payload": '{"stall_s": 60}'}


def test_with_the_decoder_process(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"\xff \n'.jpg")
    paths = [pictures.jpeg(strange, camera=True).path, pictures.deep_png(tmp_path / "b.png").path]
    (tmp_path / "c.gif").write_bytes(b"GIF89a")
    rows = inspect(*paths, tmp_path / "c.gif")
    assert [row["error"] and row["error"]["reason"] for row in rows] == [None, None, "unreadable"]
    assert rows[2]["error"]["message"] == "the gif header cannot be read: cannot identify image file"
    assert [row["media"] and row["media"]["picture"]["bit_depth"] for row in rows] == [8, 16, None]


@pytest.mark.parametrize(
    ("uri", "hidden"),
    [("file:///a/.b.jpg", True), ("file:///a/%2Eb.jpg", True), ("file:///.a/b.jpg", False), ("s3://x/y/._b.mp4", True),
     ("s3://x/y/b.mp4", False)],
)  # fmt: skip
def test_hidden_names(uri: str, hidden: bool) -> None:
    assert is_hidden(uri) is hidden
