"""Names in files of annotations, and the media that they mean."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession

from visionlake.jobs._match_media import match_media

Found = dict[str, tuple[str | None, str | None]]


def match(spark: SparkSession, names: list[tuple[str, str | None]], uris: list[str]) -> Found:
    """The media of each name (with its hash), and why none; the media of a file is called as its URI."""
    pictures = spark.createDataFrame(
        [(str(place), name, sha256, *[None] * 3) for place, (name, sha256) in enumerate(names)],
        "picture string, name string, sha256 string, frame_index bigint, stream_index int, pts bigint",
    )
    sources = spark.createDataFrame(
        [(uri, uri, "present") for uri in uris], "uri string, media_id string, state string"
    )
    rows = match_media(pictures, media=sources.select("media_id"), sources=sources).collect()
    return {row["name"]: (row["media_id"], row["reason"]) for row in rows}


def test_of_names_with_the_same_end_only_what_tells_them_apart_counts(spark: SparkSession) -> None:
    names = ["S1/img1/000001.png", "S2/img1/000001.png", "other/only.png"]
    uris = ["file:///data/S2/img1/000001.png", "file:///data/only.png"]
    assert match(spark, [(name, None) for name in names], uris) == {
        names[0]: (None, "unmatched"),
        names[1]: (uris[0], None),
        names[2]: (uris[1], None),
    }
    # Of names that say more and less of one path the shorter says nothing else.
    names = ["images/only.png", "only.png", "set/images/only.png", "2"]
    assert match(spark, [(name, None) for name in names], uris) == {
        **dict.fromkeys(names[:3], (uris[1], None)),
        "2": (None, "unmatched"),
    }


def test_a_hash_is_not_overruled_by_a_name(spark: SparkSession) -> None:
    uri = "file:///data/a.png"
    assert match(spark, [("a.png", "0" * 64)], [uri]) == {"a.png": (None, "unmatched")}
    assert match(spark, [("b.png", uri)], [uri]) == {"b.png": (uri, None)}


@pytest.mark.parametrize("name", ["s3://b/a+b.png", "s3://b/c#1.png", "a b.png"])
def test_signs_that_mean_more_in_forms_and_pages(spark: SparkSession, name: str) -> None:
    uri = name.replace(" ", "%20") if "//" in name else f"file:///data/{name.replace(' ', '%20')}"
    assert match(spark, [(name, None)], [uri]) == {name: (uri, None)}


def test_names_of_exported_frames_mean_these_frames(spark: SparkSession) -> None:
    known, other = "a" * 64, "b" * 64
    frame = (None, None, None)
    names = {
        f"{known}_0_000000000512.jpg": (known, 0, 512),
        f"images/train/{known}_1_-00000000512.png": (known, 1, -512),
        f"C:\\sets\\{known}_0_1764000000000000000.jpg": (known, 0, 1764000000000000000),
        f"{known}_0_9999999999999999999.jpg": frame,
        f"https://bucket.example.org/x/{known}_0_000000000512.jpg?X-Sig=1#a": (known, 0, 512),
        f"{other}_0_000000000512.jpg": ("file:///data/x", None, None),
        f"my {known}_0_000000000512.jpg": frame,
    }
    rows: list[Any] = [(str(n), name, *[None] * 4) for n, name in enumerate(names)]
    rows.append(("numbered", f"{known}_0_000000000512.jpg", None, 3, None, None))
    pictures = spark.createDataFrame(
        rows, "picture string, name string, sha256 string, frame_index bigint, stream_index int, pts bigint"
    )
    uris = [("file:///data/a.mp4", known), (f"file:///data/{other}_0_000000000512.jpg", "file:///data/x")]
    sources = spark.createDataFrame(
        [(uri, media, "present") for uri, media in uris], "uri string, media_id string, state string"
    )
    found = match_media(pictures, media=sources.select("media_id"), sources=sources).collect()
    got = {row["picture"]: (row["media_id"], row["stream_index"], row["pts"]) for row in found}
    assert got.pop("numbered") == frame
    assert list(dict(sorted(got.items())).values()) == list(names.values())
