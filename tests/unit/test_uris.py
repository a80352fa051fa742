"""URIs name any file, and nothing that is shown or raised holds a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from visionlake.udfs import uris

NAMES = [
    b"plain.mp4",
    b"a b.mp4",
    b"50%.mp4",
    b"a%20b",
    b"#1?.mp4",
    b"new\nline",
    "zürich 東京.jpg".encode(),
    b"\xff\xfe.avi",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_survives_the_round_trip(tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_bytes(b"content")

    uri = uris.to_uri(os.fsdecode(path))

    assert uri.isascii() and uri.startswith("file:///") and uri == uris.to_uri(uri)
    local = uris.local_path(uri)
    assert local is not None and os.fsencode(local) == path
    assert uris.stat(uri).size_bytes == 7
    with uris.open_input(uri) as stream:
        assert stream.seekable() and stream.read() == b"content"
    assert uris.display(uri).isprintable() and uris.display(uri).encode("utf-8")
    assert uris.join(uris.parent(uri), os.fsdecode(name)) == uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("file:/data/a b", "file:///data/a%20b"),
        ("FILE://localhost/data/a?b", "file:///data/a%3Fb"),
        ("/data/x/../y", "file:///data/y"),
        ("s3a://bucket/a b#1.mp4", "s3://bucket/a%20b%231.mp4"),
        ("S3N://bucket/100%/x", "s3://bucket/100%25/x"),
        ("gcs://bucket/x", "gs://bucket/x"),
        ("s3://bucket/x?region=eu-west-1", "s3://bucket/x?region=eu-west-1"),
        ("abfss://box@account.dfs.core.windows.net/x", "abfss://box@account.dfs.core.windows.net/x"),
    ],
)
def test_every_spelling_becomes_one_uri(text: str, uri: str) -> None:
    assert uris.to_uri(text) == uri == uris.to_uri(uri)


def test_a_relative_path_is_taken_from_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert uris.to_uri("x.mp4") == uris.to_uri(tmp_path / "x.mp4")
    assert uris.local_path(uris.to_uri(Path("s3://bucket"))) == str(tmp_path / "s3:" / "bucket")


def test_joining_follows_relative_and_absolute_names() -> None:
    assert uris.join("s3://bucket/list?region=x", "../a b/c.mp4") == "s3://bucket/a%20b/c.mp4?region=x"
    assert uris.join("s3://bucket/list", "file:///x") == "file:///x"
    assert uris.join("file:///a/b", "c%20d") == "file:///a/b/c%2520d"
    assert uris.parent("s3://bucket/a/b.mp4") == "s3://bucket/a"


@pytest.mark.parametrize(
    ("uri", "shown", "secret"),
    [
        ("s3://me:pa%2Fss@bucket/a%20b", "s3://***@bucket/a b", True),
        ("abfss://box@account.net/x?sig=abc&region=eu", "abfss://box@account.net/x?sig=***&region=eu", True),
        ("hdfs://me@host:8020/x", "hdfs://me@host:8020/x", False),
        ("file:///a/u:p@b/%1B%5B31m%E2%80%AE", "/a/u:p@b/\\x1b[31m\\u202e", False),
    ],
)
def test_what_is_shown_hides_secrets_and_controls(uri: str, shown: str, secret: bool) -> None:
    assert uris.display(uri) == shown
    assert uris.has_secret(uri) is secret


@pytest.mark.parametrize("uri", ["nostore://me:hunter2@host/x", "nostore://me:hunter2@host/x?key=hunter2"])
def test_errors_of_stores_hold_no_secret(uri: str) -> None:
    for call in (uris.open_input, uris.stat):
        with pytest.raises(OSError, match="nostore") as caught:
            call(uri)
        assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_a_store_is_read_through_pyarrow() -> None:
    filesystem, path = uris.open_store("mock://host/folder/a%20b.bin")
    filesystem.create_dir(path.rpartition("/")[0])
    with filesystem.open_output_stream(path) as out:
        out.write(b"0123456789")

    with uris.open_input("mock://host/folder/a%20b.bin") as stream:
        stream.seek(4)
        assert stream.read(2) == b"45" and stream.tell() == 6
    assert uris.stat("mock://host/folder/a%20b.bin").size_bytes == 10
    with pytest.raises(FileNotFoundError, match="folder/gone"):
        uris.open_input("mock://host/folder/gone")
    with pytest.raises(FileNotFoundError, match="no such file"):
        uris.stat("mock://host/folder")


def test_times_are_utc_to_the_microsecond(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    assert uris.stat(uris.to_uri(path)).mtime == datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="not a regular file"):
            uris.open_input(uris.to_uri(path))
    with pytest.raises(ValueError, match="null"):
        uris.to_uri("a\0b")


def test_importing_does_not_import_arrow() -> None:
    code = "import visionlake.udfs.uris, sys; assert 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
