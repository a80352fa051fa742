"""From rows that name media to rows of frames and of errors."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import media_video as made_by
import pyarrow as pa
import pytest

from visionlake.expectations.frames import TABLE
from visionlake.udfs import extract_frames as module
from visionlake.udfs.extract_frames import extract_frames
from visionlake.udfs.frame_types import FrameOptions, Limits
from visionlake.udfs.uris import to_uri

SCHEMA = TABLE.arrow_schema(with_error=True)
LIMITS = Limits(stall_s=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    return made_by.constant_rate(folder).path


def run(*media: dict[str, Any], schema: pa.Schema = SCHEMA, **options: Any) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pylist(list(media))
    found = extract_frames([batch], schema=schema, options=FrameOptions(**options), limits=LIMITS)
    return [row for batch in found for row in batch.to_pylist()]


def known(path: Path) -> dict[str, Any]:
    """A row as ingest would have written it."""
    facts = path.stat()
    return {
        "media_id": hashlib.sha256(path.read_bytes()).hexdigest(),
        "uri": to_uri(path),
        "kind": "video",
        "size_bytes": facts.st_size,
        "mtime": datetime.fromtimestamp(facts.st_mtime_ns // 1000 / 1e6, UTC),
    }


def test_rows_have_the_columns_of_the_table(video: Path) -> None:
    rows = run(known(video))
    assert [row["pts"] for row in rows] == [i * 512 for i in range(20)]
    assert {row["media_id"] for row in rows} == {known(video)["media_id"]}
    required = set(SCHEMA.names) - {"error", "input_version"}
    assert all(row[name] is not None for row in rows for name in required)
    assert all(row["error"] is None for row in rows)


def test_what_is_not_known_is_taken_from_the_file(video: Path) -> None:
    assert run({"uri": to_uri(video)}) == run(known(video)) == run({"uri": str(video)})


def test_other_columns_are_passed_through(video: Path) -> None:
    schema = SCHEMA.append(pa.field("camera", pa.string()))
    assert {row["camera"] for row in run(known(video) | {"camera": "left"}, schema=schema)} == {"left"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"uri": None}, "source_missing"),
        ({"uri": "file:///nowhere/film.mp4"}, "source_missing"),
        ({"size_bytes": 1}, "source_changed"),
        ({"mtime": datetime(2020, 1, 1, tzinfo=UTC)}, "source_changed"),
        ({"kind": "image"}, "unsupported_format"),
    ],
)
def test_errors_of_one_media_leave_the_others(video: Path, changes: dict[str, Any], reason: str) -> None:
    rows = run(known(video) | changes | {"media_id": "a" * 64}, known(video))
    assert len(rows) == 21
    assert rows[0]["error"]["reason"] == reason
    assert (rows[0]["media_id"], rows[0]["pts"]) == ("a" * 64, None)
    assert not any(row["error"] for row in rows[1:])


def test_a_damaged_file_gives_its_frames_and_then_its_error(folder: Path) -> None:
    rows = run(known(made_by.truncated_mp4(folder).path))
    assert [bool(row["error"]) for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["error"]["reason"] == "truncated" and f"pts {rows[-2]['pts']}" in rows[-1]["error"]["message"]


def test_frames_with_unusable_times_are_error_rows_with_their_key(tmp_path: Path) -> None:
    track = made_by.Track(pts=[i * 3600 for i in range(10)], time_base=made_by.Fraction(1, 90000), options=made_by.FAST)
    path = made_by.write(tmp_path / "short.ts", track)
    path.write_bytes(path.read_bytes() * 2)
    rows = run(known(path))
    assert [bool(row["error"]) for row in rows] == [False] * 10 + [True] * 10
    assert {row["error"]["reason"] for row in rows[10:]} == {"pts_not_increasing"}
    assert [row["pts"] for row in rows[10:]] == [row["pts"] for row in rows[:10]]
    assert {row["stream_index"] for row in rows} == {0}


def test_any_place_with_the_content_will_do(video: Path, tmp_path: Path) -> None:
    here = known(video)
    gone = here | {"uri": to_uri(tmp_path / "gone.mp4")}
    other = here | {"size_bytes": 7}
    rows = run(gone | {"elsewhere": [other, here]}, fps=2)
    assert rows == run(here, fps=2) and len(rows) > 1
    (nowhere,) = run(gone | {"elsewhere": [other]}, fps=2)
    assert nowhere["error"]["reason"] == "source_missing" and "gone.mp4" in nowhere["error"]["message"]


def test_a_name_that_no_store_can_hold_is_an_error_of_its_row(video: Path) -> None:
    (nameless, *rest) = run({"uri": "/media/a\0b.mp4"}, {"uri": str(video)}, fps=2)
    assert nameless["error"]["reason"] == "read_failed" and "null character" in nameless["error"]["message"]
    assert rest and all(row["error"] is None for row in rest)


def test_a_file_changed_while_it_was_decoded_is_an_error(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "changing.mp4"
    path.write_bytes(video.read_bytes())
    batches = extract_frames(
        [pa.RecordBatch.from_pylist([{"uri": to_uri(path)}])], schema=SCHEMA, options=FrameOptions(), limits=LIMITS
    )
    module_rows, module.MAX_BATCH_ROWS = module.MAX_BATCH_ROWS, 5
    try:
        next(batches)
        os.utime(path, (1, 1))
        last = [row for batch in batches for row in batch.to_pylist()][-1]
    finally:
        module.MAX_BATCH_ROWS = module_rows
    assert last["error"]["reason"] == "source_changed"


def test_batches_are_bounded_by_rows_and_bytes(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pa.RecordBatch.from_pylist([known(video)] * 2)

    def sizes(**options: Any) -> list[int]:
        found = extract_frames([batch], schema=SCHEMA, options=FrameOptions(**options), limits=LIMITS)
        return [batch.num_rows for batch in found]

    assert sizes() == [40]
    monkeypatch.setattr(module, "MAX_BATCH_ROWS", 16)
    assert sizes() == [16, 16, 8]
    monkeypatch.setattr(module, "MAX_BATCH_BYTES", 1)
    assert sizes(max_frames=3) == [1] * 6
