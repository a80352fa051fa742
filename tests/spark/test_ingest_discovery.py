"""What a run of `ingest_media` finds due, and what becomes of it, as files come, move, change, go and come back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
from PIL import Image

from visionlake.errors import UsageError
from visionlake.expectations import media, quarantine, sources
from visionlake.jobs._stage import Discovery
from visionlake.jobs.ingest_media import STAGE, Config
from visionlake.udfs.uris import to_uri

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from visionlake.jobs._lake import Lake

OLD = 1_700_000_000


class Files:
    """A folder of pictures, a lake held in memory, and runs of the stage over both."""

    in_catalog = False

    def __init__(self, folder: Path, spark: SparkSession) -> None:
        self.folder, self.spark = folder / "in", spark
        self.uri = str(self.folder / "lake")
        self.folder.mkdir()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.sources: dict[tuple[str, str], dict[str, Any]] = {}
        self.media: dict[str, Any] = {}
        self.quarantine: dict[str, dict[str, Any]] = {}

    def write(self, name: str, shade: int | bytes, *, mtime: int = OLD) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(shade, bytes):
            path.write_bytes(shade)
        else:
            Image.new("L", (16, 16), shade).save(path, "PNG")
        os.utime(path, (mtime, mtime))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def exists(self, name: str) -> bool:
        return bool({"sources": self.sources, "quarantine": self.quarantine}[name])

    def table(self, name: str) -> DataFrame:
        if name == "quarantine":
            rows, schema = list(self.quarantine.values()), quarantine.TABLE.arrow_schema()
        else:
            rows, schema = list(self.sources.values()), sources.TABLE.arrow_schema()
            for name in sorted({name for row in rows for name in row} - set(schema.names)):
                schema = schema.append(pa.field(name, pa.string()))
        return self.spark.createDataFrame(pa.Table.from_pylist(rows, schema=schema))

    def run(self, *inputs: str | Path, is_rebuild: bool = False, **settings: Any) -> dict[str, str]:
        """One run; returns the action per file name."""
        self.now += timedelta(hours=1)
        names = tuple(str(self.folder / name) for name in inputs) or (str(self.folder),)
        config = Config(inputs=names, **settings)
        discovery = Discovery(
            spark=self.spark,
            lake=cast("Lake", self),
            config=config,
            now=self.now,
            run_id="r",
            is_rebuild=is_rebuild,  # type: ignore[arg-type]  # it holds what discovery needs
        )
        assert STAGE.discover is not None
        due = STAGE.discover(discovery)
        actions = {row["uri"]: row["action"] for row in due.select("uri", "action").collect()}
        assert len(actions) == due.count()
        if not actions:
            return {}
        rows = [row.asDict(recursive=True) for row in STAGE.transform({"due": due}, config).collect()]
        assert {row["uri"] for row in rows} == set(actions), "every parent has a row"
        self._publish(actions, rows)
        return {self._name(uri): action for uri, action in actions.items()}

    def _publish(self, actions: Mapping[str, str], rows: list[dict[str, Any]]) -> None:
        for uri in actions:
            self.quarantine.pop(uri, None)
        for row in rows:
            if row["media"]:
                self.media[row["media"]["media_id"]] = row["media"]
            if place := row["sources"]:
                assert place["uri"] == row["uri"]
                self.sources[place["uri"], place["media_id"]] = place
            if error := row["error"]:
                empty = dict.fromkeys(quarantine.TABLE.column_names)
                self.quarantine[row["uri"]] = empty | {
                    "stage": "ingest_media",
                    "producer": "ingest_media",
                    "input_key": row["uri"],
                    "output_key": "",
                    **error,
                }

    def _name(self, uri: str) -> str:
        return uri.removeprefix(to_uri(self.folder) + "/")

    def states(self) -> dict[str, list[tuple[str, str]]]:
        """Per file, its contents with their states."""
        found: dict[str, list[tuple[str, str]]] = {}
        for (uri, media_id), row in self.sources.items():
            found.setdefault(self._name(uri), []).append((media_id, row["state"]))
        return {name: sorted(rows, key=lambda row: row[1]) for name, rows in found.items()}

    def bad(self) -> dict[str, str]:
        return {self._name(uri): row["reason"] for uri, row in self.quarantine.items()}


@pytest.fixture
def files(tmp_path: Path, spark: SparkSession) -> Files:
    return Files(tmp_path, spark)


def test_files_come_move_change_go_and_come_back(files: Files) -> None:
    a, b = files.write("a.png", 10), files.write("sub/b ü#.png", 20)
    assert files.run() == {"a.png": "read", "sub/b%20%C3%BC%23.png": "read"}
    assert files.states() == {"a.png": [(a, "present")], "sub/b%20%C3%BC%23.png": [(b, "present")]}
    assert set(files.media) == {a, b} and files.media[a]["kind"] == "image"
    first = files.sources[to_uri(files.folder / "a.png"), a]
    assert first["first_seen"] == first["last_seen"] and first["input"] == str(files.folder)
    assert first["size_bytes"] == (files.folder / "a.png").stat().st_size and first["mtime"].timestamp() == OLD

    assert files.run() == {}, "a second run does nothing"

    shutil.copy2(files.folder / "a.png", files.folder / "copy.png")
    assert files.run() == {"copy.png": "read"}, "a copy alone is read"
    assert files.states()["copy.png"] == [(a, "present")] and len(files.media) == 2

    (files.folder / "copy.png").rename(files.folder / "moved.png")
    assert files.run() == {"copy.png": "missing", "moved.png": "read"}
    assert files.states()["copy.png"] == [(a, "missing")] and files.states()["moved.png"] == [(a, "present")]

    os.utime(files.folder / "a.png", (OLD + 5, OLD + 5))
    assert files.run() == {"a.png": "read"}, "a touched file"
    touched = files.sources[to_uri(files.folder / "a.png"), a]
    assert touched["mtime"].timestamp() == OLD + 5 and touched["first_seen"] == first["first_seen"]
    assert files.states()["a.png"] == [(a, "present")] and touched["last_seen"] > first["last_seen"]

    c = files.write("a.png", 30, mtime=OLD + 9)
    assert files.run() == {"a.png": "read"}, "a replaced file"
    assert files.states()["a.png"] == [(c, "present"), (a, "replaced")]

    (files.folder / "a.png").unlink()
    assert files.run() == {"a.png": "missing"}
    assert files.states()["a.png"] == [(c, "missing"), (a, "replaced")]
    assert files.run() == {}

    files.write("a.png", 30, mtime=OLD + 9)
    assert files.run() == {"a.png": "update"}, "back unchanged: not read"
    assert files.states()["a.png"] == [(c, "present"), (a, "replaced")]

    files.write("a.png", 10, mtime=OLD + 12)
    assert files.run() == {"a.png": "read"}, "the first content again"
    assert files.states()["a.png"] == [(a, "present"), (c, "replaced")]
    assert files.sources[to_uri(files.folder / "a.png"), a]["first_seen"] == first["first_seen"]
    assert files.run() == {}
    assert set(files.run(is_rebuild=True).values()) == {"read"}


def test_a_missing_file_comes_back_as_another(files: Files) -> None:
    a = files.write("a.png", 1)
    files.write("z.png", 2)
    files.run()
    (files.folder / "a.png").unlink()
    files.run()
    b = files.write("a.png", 3, mtime=OLD + 1)
    assert files.run() == {"a.png": "read"}
    assert files.states()["a.png"] == [(b, "present"), (a, "replaced")]


def test_bad_files_are_read_once_and_mended_ones_are_good(files: Files) -> None:
    a = files.write("a.png", 1)
    files.write("note.txt", b"hello")
    files.write("empty.mp4", b"")
    files.write(".hidden.png", 4)
    (files.folder / "broken.png").symlink_to("nowhere")
    assert set(files.run().values()) == {"read"}
    assert files.bad() == {
        ".hidden.png": "hidden_file", "note.txt": "not_media", "empty.mp4": "empty_file", "broken.png": "source_missing"
    }  # fmt: skip
    payload = json.loads(files.quarantine[to_uri(files.folder / "note.txt")]["payload"])
    assert payload["size_bytes"] == 5 and payload["mtime"] == "2023-11-14T22:13:20.000000+00:00"
    assert files.run() == {}, "bad and unchanged: not read again"

    files.write("a.png", b"turned bad", mtime=OLD + 1)
    assert files.run() == {"a.png": "read"}
    assert files.bad()["a.png"] == "not_media" and files.states() == {"a.png": [(a, "replaced")]}
    assert files.run() == {}

    files.write("a.png", 1, mtime=OLD + 2)
    b = files.write("empty.mp4", 5, mtime=OLD + 2)
    assert files.run() == {"a.png": "read", "empty.mp4": "read"}
    assert files.states() == {"a.png": [(a, "present")], "empty.mp4": [(b, "present")]}

    (files.folder / "note.txt").unlink()
    assert files.run() == {"note.txt": "missing"}, "its quarantine ends"
    assert set(files.bad()) == {".hidden.png", "broken.png"}
    assert files.run() == {}

    files.quarantine[to_uri(files.folder / "broken.png")]["replay_requested_at"] = files.now
    assert files.run() == {"broken.png": "read"}


def test_manifests_describe_files_and_corrections_read_nothing(files: Files) -> None:
    a, b = files.write("v/a.png", 1), files.write("v/b.png", 2)
    files.write("m.csv", b"path,site,Kamera-Ort\nv/a.png,north,links\nv/b.png,,\n")
    assert files.run("m.csv") == {"v/a.png": "read", "v/b.png": "read"}
    row = files.sources[to_uri(files.folder / "v/a.png"), a]
    assert list(row) == [*sources.TABLE.column_names, "site", "Kamera-Ort"]
    assert (row["site"], row["Kamera-Ort"], row["input"]) == ("north", "links", str(files.folder / "m.csv"))
    assert files.sources[to_uri(files.folder / "v/b.png"), b]["site"] is None
    assert files.run("m.csv") == {}

    files.write("m.csv", b"path,SITE,lens\nv/a.png,south,35\nv/b.png,,\n")
    assert files.run("m.csv") == {"v/a.png": "update"}
    row = files.sources[to_uri(files.folder / "v/a.png"), a]
    assert (row["site"], row["Kamera-Ort"], row["lens"], row["state"]) == ("south", None, "35", "present")

    assert files.run("v", "m.csv") == {"v/a.png": "update", "v/b.png": "update"}, "the first input describes"
    assert files.sources[to_uri(files.folder / "v/a.png"), a]["site"] is None

    files.write("m.csv", b"path\nv/a.png\nv/gone.png\n")
    assert files.run("m.csv") == {"v/a.png": "update", "v/gone.png": "read"}, "v is no input now: b.png stays"
    assert files.bad() == {"v/gone.png": "source_missing"}
    assert files.states()["v/b.png"] == [(b, "present")]

    (files.folder / "v/a.png").unlink()
    assert files.run("m.csv") == {"v/a.png": "read"}, "named, but not there"
    assert files.states()["v/a.png"] == [(a, "missing")] and files.bad()["v/a.png"] == "source_missing"
    assert files.run("m.csv") == {}


def test_files_still_written_are_neither_new_nor_missing(files: Files) -> None:
    files.write("a.png", 1)
    files.write("b.png", 2)
    files.run()
    for name in ("a.png", "c.png"):
        files.write(name, 3)
        os.utime(files.folder / name)
    assert files.run(min_age_s=60.0) == {}
    assert files.run(min_age_s=0.0) == {"a.png": "read", "c.png": "read"}


def test_what_cannot_be_listed_is_not_missing(files: Files) -> None:
    a = files.write("in/a.png", 1)
    for number in range(1, 5):
        files.write(f"{number}/x.png", number)
    (files.folder / "in/l").symlink_to(files.folder / "1")
    for number in range(1, 3):
        (files.folder / f"{number}/l").symlink_to(files.folder / f"{number + 1}")
    files.run("in")
    assert set(files.states()) == {"in/a.png", "in/l/x.png", "in/l/l/x.png", "in/l/l/l/x.png"}

    (files.folder / "in/m").symlink_to(files.folder / "in/l")
    assert files.run("in") == {"in/m/x.png": "read", "in/m/l/x.png": "read", "in/m/l/l/x.png": "read"}
    shutil.move(files.folder / "3", files.folder / "in/3")
    (files.folder / "in/3/y").mkdir()
    assert "in/l/l/l/x.png" in [name for name, action in files.run("in").items() if action == "missing"]
    assert files.states()["in/a.png"] == [(a, "present")]


@pytest.mark.parametrize("carried_rows", [10_000, 0])
def test_an_unreadable_folder_is_quarantined_and_its_files_are_kept(
    files: Files, monkeypatch: pytest.MonkeyPatch, carried_rows: int
) -> None:
    monkeypatch.setattr("visionlake.jobs._discovery.CARRIED_ROWS", carried_rows)
    a = files.write("top/a.png", 1)
    files.write("top/deep/b.png", 2)
    files.run("top")
    # Links within links: what lies there was listed once, and cannot be listed any more.
    for number in range(1, 6):
        (files.folder / str(number)).mkdir()
        (files.folder / str(number) / "l").symlink_to(files.folder / str(number + 1))
    (files.folder / "top/l").symlink_to(files.folder / "1")
    deep = to_uri(files.folder / "top/l/l/l/l")
    files.sources[f"{deep}/c.png", a] = files.sources[to_uri(files.folder / "top/a.png"), a] | {"uri": f"{deep}/c.png"}
    (files.folder / "top/deep/b.png").unlink()
    assert files.run("top") == {"top/l/l/l/l": "unreadable", "top/deep/b.png": "missing"}
    assert files.bad() == {"top/l/l/l/l": "folder_unreadable"}
    assert files.states()["top/l/l/l/l/c.png"] == [(a, "present")]
    assert files.run("top") == {}, "said once"
    (files.folder / "top/l").unlink()
    assert files.run("top") == {"top/l/l/l/l": "missing", "top/l/l/l/l/c.png": "missing"}
    assert files.bad() == {}


def test_inputs_that_cannot_be_used_stop_before_work(files: Files) -> None:
    files.write("a.png", 1)
    files.run()
    for content, message in ((b"path,site\na.png,1,2\n", "line 2: 3 cells"), (b"path,State\n", r"\['state'\]")):
        files.write("m.csv", content)
        with pytest.raises(UsageError, match=message):
            files.run("m.csv")
    with pytest.raises(UsageError, match="gone' cannot be used: it does not exist"):
        files.run("gone")
    assert set(media.TABLE.column_names) == set(next(iter(files.media.values())))


def test_names_that_are_not_text(files: Files) -> None:
    name = os.fsdecode(b"\xff\n%.png")
    a = files.write(name, 1)
    assert files.run() == {"%FF%0A%25.png": "read"}
    assert files.states() == {"%FF%0A%25.png": [(a, "present")]} and files.run() == {}


def test_the_lake_and_manifests_in_a_folder_are_no_media(files: Files) -> None:
    files.write("a.png", 1)
    files.write("lake/part-0.parquet", b"x")
    files.write("m.csv", b"path,site\na.png,north\n")
    assert files.run("m.csv", "") == {"a.png": "read"}
