"""Lists and manifests: every format gives the same rows, and what is wrong is said clearly."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from visionlake.udfs import manifests, uris
from visionlake.udfs.manifests import ManifestError

CSV = "path,site,speed\na b.mp4,north,1.50\n../up.mp4,,2\n"
JSON = '[{"path": "a b.mp4", "site": "north", "speed": 1.50}, {"path": "../up.mp4", "site": null, "speed": 2}]'
LINES = '{"site": "north", "uri": "a b.mp4", "speed": 1.50}\n\n{"uri": "../up.mp4", "speed": 2, "site": ""}\n'


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return uris.to_uri(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", CSV),
        ("m.CSV", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("m.tsv", CSV.replace(",", "\t")),
        ("m.json", JSON),
        ("m.json", LINES),
        ("m.jsonl", LINES),
    ],
)
def test_every_format_gives_paths_and_text(tmp_path: Path, name: str, content: str) -> None:
    uri = write(tmp_path / "in" / name, content)
    assert set(manifests.extra_columns(uri)) == {"site", "speed"}
    assert list(manifests.rows(uri)) == [
        (uris.to_uri(tmp_path / "in" / "a b.mp4"), {"site": "north", "speed": "1.50"}),
        (uris.to_uri(tmp_path / "up.mp4"), {"site": None, "speed": "2"}),
    ]


def test_parquet_as_a_file_and_as_a_folder(tmp_path: Path) -> None:
    table = pa.table({"uri": ["s3a://bucket/x y", "z"], "when": pa.array([0, None], pa.timestamp("s", tz="UTC"))})
    (tmp_path / "folder.parquet").mkdir()
    for path in (tmp_path / "one.parquet", tmp_path / "folder.parquet" / "part-0.parquet"):
        pq.write_table(table, path)
    for name in ("one.parquet", "folder.parquet"):
        uri = uris.to_uri(tmp_path / name)
        assert manifests.is_manifest(uri) and manifests.extra_columns(uri) == ("when",)
        assert list(manifests.rows(uri)) == [
            ("s3://bucket/x%20y", {"when": "1970-01-01T00:00:00+00:00"}),
            (uris.to_uri(tmp_path / "z"), {"when": None}),
        ]


def test_a_list_keeps_names_as_they_are(tmp_path: Path) -> None:
    uri = write(tmp_path / "l.txt", b"a b.mp4\r\n\n #1?.mp4\n\xff.avi\n/abs/x\nfile:///y%20z")
    assert manifests.extra_columns(uri) == ()
    found = [uris.local_path(target) for target, _ in manifests.rows(uri)]
    names = ["a b.mp4", " #1?.mp4", os.fsdecode(b"\xff.avi")]
    assert found == [*(f"{tmp_path}/{name}" for name in names), "/abs/x", "/y z"]


def test_text_that_is_not_utf8_does_not_break_a_table(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.csv", b"path,site\n\xff.mp4,M\xfcnchen\n")
    target = uris.to_uri(tmp_path / os.fsdecode(b"\xff.mp4"))
    assert list(manifests.rows(uri)) == [(target, {"site": "M\ufffdnchen"})]


def test_columns_of_json_lines_are_all_lines_together(tmp_path: Path) -> None:
    uri = write(tmp_path / "m.jsonl", '{"path": "a", "x": true}\n{"path": "b", "y": {"k": [1]}}')
    assert manifests.extra_columns(uri) == ("x", "y")
    assert [extra for _, extra in manifests.rows(uri)] == [{"x": "true"}, {"y": '{"k": ["1"]}'}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "", "first line names the columns"),
        ("m.csv", "file,site\n", r"uri or path; this one has neither, but \['file', 'site'\]"),
        ("m.csv", "uri,path\n", "has both"),
        ("m.csv", "path,Site,site\n", "'Site' and 'site'"),
        ("m.csv", "path,a,a\n", "'a' and 'a'"),
        ("m.csv", "path,a b\n", r"\['a b'\] are not allowed"),
        ("m.csv", "path,\n", r"\[''\] are not allowed"),
        ("m.csv", "path,a\nx,1,2\n", "line 2: 3 cells under 2 columns"),
        ("m.csv", 'path,a\n"x,1\n', "line 2: unexpected end"),
        ("m.csv", "path,a\n,1\n", "line 2: the path is empty"),
        ("m.csv", "path\nx\0y\n", "line 2: .*null"),
        ("m.csv", "path\ns3://me:hunter2@bucket/x\n", r"line 2: s3://\*\*\*@bucket/x holds a credential"),
        ("m.json", "{", "is not JSON"),
        ("m.json", "[1]", "record 1: an object"),
        ("m.jsonl", '{"path": "a", "x": 1, "x": 2}', "occurs twice"),
        ("m.jsonl", '{"path": "a"}\n{"site": "a"}', "line 2: .*neither"),
        ("m.parquet", "no", "is not Parquet"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: str, message: str) -> None:
    uri = write(tmp_path / name, content)
    with pytest.raises(ManifestError, match=message) as caught:
        manifests.extra_columns(uri)
        list(manifests.rows(uri))
    assert name in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_manifest_in_a_store(tmp_path: Path) -> None:
    filesystem, path = uris.open_store("mock://host/sets/m.csv")
    filesystem.create_dir("sets")
    with filesystem.open_output_stream(path) as out:
        out.write(CSV.encode())
    assert [target for target, _ in manifests.rows("mock://host/sets/m.csv")] == [
        "mock://host/sets/a%20b.mp4",
        "mock://host/up.mp4",
    ]
