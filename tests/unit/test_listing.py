"""Inputs become the files they name: folders, patterns, lists, manifests, odd files, and what cannot be read."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from visionlake.udfs import listing, uris
from visionlake.udfs.listing import InputError


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


def list_all(*inputs: str | Path, wanted: int = 16, **options: Any) -> list[dict[str, Any]]:
    parts = listing.plan_parts([str(text) for text in inputs], wanted=wanted)
    batches = [pa.RecordBatch.from_pydict({"parts": [text]}) for text in listing.bundle(parts, 2)]
    found = listing.list_files(iter(batches), columns=listing.manifest_columns(parts), **options)
    return sorted((row for batch in found for row in batch.to_pylist()), key=lambda row: (row["uri"], row["place"]))


def names_of(rows: Sequence[dict[str, Any]], folder: Path, kind: str = "file") -> list[str]:
    paths = [uris.local_path(row["uri"]) or "" for row in rows if row["kind"] == kind]
    return [os.path.relpath(path, folder) for path in paths]


TREE = ("a.mp4", "b/c.mp4", "b/d/e.jpg", "b/d/.hidden", "f/g.mp4", ".h/i.mp4", "f/j k#1?.mp4")


@pytest.mark.parametrize("wanted", [1, 2, 3, 16])
def test_a_folder_is_listed_to_any_depth_however_it_is_split(tmp_path: Path, wanted: int) -> None:
    make(tmp_path, *TREE)
    rows = list_all(tmp_path, wanted=wanted)
    assert sorted(names_of(rows, tmp_path)) == sorted(TREE)
    row = next(row for row in rows if row["uri"].endswith("b/c.mp4"))
    assert row["size_bytes"] == 7 and row["mtime"].timestamp() == 1_700_000_000 and row["etag"] is None
    assert row["described"] == {"input": str(tmp_path)}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.mp4", ["a.mp4"]),
        ("**/*.mp4", ["a.mp4", "b/c.mp4", "f/g.mp4", "f/j k#1?.mp4"]),
        ("*/*.mp4", ["b/c.mp4", "f/g.mp4", "f/j k#1?.mp4"]),
        ("b/**", ["b/c.mp4", "b/d/.hidden", "b/d/e.jpg"]),
        ("[!a-e]/g.*", ["f/g.mp4"]),
        ("?", ["b/c.mp4", "b/d/.hidden", "b/d/e.jpg", "f/g.mp4", "f/j k#1?.mp4"]),
        (".h/*", [".h/i.mp4"]),
        ("*.none", []),
    ],
)
def test_patterns_mean_what_they_mean_in_a_shell(tmp_path: Path, pattern: str, names: list[str]) -> None:
    folder = make(tmp_path / "[set] 1", *TREE)
    for wanted in (1, 16):
        assert sorted(names_of(list_all(f"{folder}/{pattern}", wanted=wanted), folder)) == sorted(names)


def test_a_name_with_wildcards_is_first_of_all_itself(tmp_path: Path) -> None:
    make(tmp_path, "a*.mp4", "ab.mp4")
    assert names_of(list_all(tmp_path / "a*.mp4"), tmp_path) == ["a*.mp4"]


def test_exclude_matches_names_and_paths(tmp_path: Path) -> None:
    make(tmp_path, *TREE, "b/m.json")
    rows = list_all(tmp_path, exclude=("*.json", "b/d/*", ".*"))
    assert sorted(names_of(rows, tmp_path)) == ["a.mp4", "b/c.mp4", "f/g.mp4", "f/j k#1?.mp4"]


def test_lists_and_manifests_name_files_and_describe_them(tmp_path: Path) -> None:
    make(tmp_path, "v/a.mp4", "v/b.mp4")
    (tmp_path / "l.txt").write_text("v/a.mp4\nv/gone.mp4\n")
    (tmp_path / "m.csv").write_text("path,site\nv/b.mp4,north\n")
    (tmp_path / "n.jsonl").write_text('{"path": "v/a.mp4", "Site": "south", "lens": 35}\n')
    rows = list_all(tmp_path / "l.txt", tmp_path / "m.csv", tmp_path / "n.jsonl")

    found = [
        (Path(uris.local_path(r["uri"]) or "").name, r["place"] / 2**32, r["size_bytes"], r["described"]) for r in rows
    ]
    nothing = {"site": None, "lens": None}
    assert found == [
        ("a.mp4", 0, 7, {"input": str(tmp_path / "l.txt")} | nothing),
        ("a.mp4", 2, 7, {"input": str(tmp_path / "n.jsonl"), "site": "south", "lens": "35"}),
        ("b.mp4", 1, 7, {"input": str(tmp_path / "m.csv"), "site": "north", "lens": None}),
        ("gone.mp4", 1 / 2**32, None, {"input": str(tmp_path / "l.txt")} | nothing),
    ]


def test_a_large_manifest_is_cut_into_slices(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,note\n" + "".join(f"{n}.mp4,{'x' * 100}\n" for n in range(6_000)))
    parts = listing.plan_parts([str(tmp_path / "m.csv")])
    assert len(parts) == 2
    assert len({row["uri"] for row in list_all(tmp_path / "m.csv")}) == 6_000


def test_a_manifest_that_cannot_be_used_is_a_row_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,site\na,1\nb,2,3\n")
    rows = list_all(tmp_path / "m.csv")
    assert [row["message"] for row in rows if row["kind"] == "invalid"] == [
        f"{tmp_path}/m.csv, line 3: 3 cells under 2 columns"
    ]


def test_files_that_are_still_being_written_are_set_apart(tmp_path: Path) -> None:
    make(tmp_path, "old", "new", "future")
    for name, age_s in (("new", 1), ("future", -86_400)):
        moment = time.time() - age_s
        os.utime(tmp_path / name, (moment, moment))
    rows = list_all(tmp_path, min_age_s=30)
    assert names_of(rows, tmp_path) == ["future", "old"] and names_of(rows, tmp_path, "young") == ["new"]


def test_loops_of_links_end_and_odd_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "in/a/x.mp4", "elsewhere/y.mp4", "other/z.mp4")
    folder = tmp_path / "in"
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "broken.mp4").symlink_to("nowhere")
    (folder / "file.mp4").symlink_to(folder / "a" / "x.mp4")
    os.mkfifo(folder / "pipe")
    for wanted in (1, 16):
        rows = list_all(folder, wanted=wanted)
        assert names_of(rows, folder) == ["a/x.mp4", "broken.mp4", "file.mp4", "linked/y.mp4"]
        assert [row["size_bytes"] is None for row in rows] == [False, True, False, False]


def test_a_folder_that_cannot_be_listed_is_a_row(tmp_path: Path) -> None:
    make(tmp_path, "in/a.mp4", "1/b.mp4")
    (tmp_path / "in" / "l").symlink_to(tmp_path / "1")
    for number in range(1, 5):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "l").symlink_to(tmp_path / str(number + 1))
    for wanted in (1, 16):
        rows = list_all(tmp_path / "in", wanted=wanted)
        assert names_of(rows, tmp_path / "in") == ["a.mp4", "l/b.mp4"]
        assert names_of(rows, tmp_path / "in", "unreadable") == ["l/l/l/l"]
        assert "linked folders" in next(row["message"] for row in rows if row["kind"] == "unreadable")


def test_what_is_to_be_skipped_is_skipped(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "lake/media/x.parquet", "lakeside.mp4", "m.csv")
    skip = frozenset(uris.to_uri(tmp_path / name) for name in ("lake", "m.csv"))
    for wanted in (1, 16):
        assert names_of(list_all(tmp_path, skip=skip, wanted=wanted), tmp_path) == ["a.mp4", "lakeside.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}/gone", "'{}/gone' cannot be used: it does not exist"),
        ("{}/gone/*.mp4", "there is no folder {}/gone"),
        ("{}/[z-a]", "'\\[z-a\\]' is not a pattern"),
        ("s3://me:hunter2@bucket/x", r"s3://\*\*\*@bucket/x' cannot be used: it holds a credential"),
        ("{}/m.csv", "m.csv: a manifest has one column called uri or path"),
    ],
)
def test_an_input_that_cannot_be_used_is_an_error_before_work(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text("name\n")
    with pytest.raises(InputError, match=message.format(tmp_path)) as caught:
        listing.manifest_columns(listing.plan_parts([text.format(tmp_path)]))
    assert "hunter2" not in str(caught.value)


def test_a_store_is_listed_like_a_disk() -> None:
    filesystem, _ = uris.open_store("mock://store/")
    for name in ("set/a b.mp4", "set/c/d.mp4", "set/c/e/f.jpg", "set/.g"):
        filesystem.create_dir(name.rpartition("/")[0])
        with filesystem.open_output_stream(name) as out:
            out.write(b"12345")
    everything = [f"mock://store/set/{name}" for name in (".g", "a%20b.mp4", "c/d.mp4", "c/e/f.jpg")]
    for wanted in (1, 2, 16):
        rows = list_all("mock://store/set", wanted=wanted)
        assert [row["uri"] for row in rows] == everything and {row["size_bytes"] for row in rows} == {5}
        assert [row["uri"] for row in list_all("mock://store/set/**/*.mp4", wanted=wanted)] == everything[1:3]
    with pytest.raises(InputError, match="does not exist"):
        list_all("mock://store/gone")
