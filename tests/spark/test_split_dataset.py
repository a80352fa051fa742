"""Splits over tables: nothing leaks, what was in test stays there, and a leak that somebody planted is found."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from delta.tables import DeltaTable
from lake_by_hand import LakeByHand
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from visionlake.errors import ConfigError
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._pipeline import run
from visionlake.jobs._results import RunResult

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class World(LakeByHand):
    """Media with a frame each, by the hash of that frame, and with columns of a manifest."""

    def media(self, *rows: dict[str, Any]) -> None:
        """`name` and `phash`, and what else a frame has; `site` and `given` are of the manifest."""
        for row in rows:
            key = {"media_id": row["name"] * 4, "stream_index": 0, "pts": 0}
            frame = {"time_base_num": 1, "time_base_den": 1, "pts_s": 0.0, "width_px": 64, "height_px": 48,
                     "contrast": row.get("contrast", 40.0), "phash": row.get("phash")}  # fmt: skip
            self.put("frames", {**key, **frame})
        table = self.lake.path("sources")
        values = [(row["name"] * 4, row["name"], row.get("site"), row.get("given")) for row in rows]
        found = self.lake.spark.createDataFrame(values, "media_id string, uri string, site string, given string")
        found = found.withColumns({"state": F.lit("present"), "first_seen": F.lit(NOW), "last_seen": F.lit(NOW)})
        if not self.lake.exists("sources"):
            self.put("sources")
        found.write.format("delta").mode("append").option("mergeSchema", "true").save(table)

    def run(self, **settings: Any) -> RunResult:
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if key != "shares"]
        shares = settings.get("shares", {"train": 0.5, "test": 0.5})
        lines += [f"shares.{name} = {share}" for name, share in shares.items()]
        path = self.folder / "p.toml"
        path.write_text("\n".join(['lake = "lake"', "[mlflow]", "enabled = false", "[split_dataset.main]", *lines]))
        return run(load_pipeline(path), spark=self.lake.spark)

    def splits(self) -> dict[str, str]:
        return {row["media_id"][0]: row["split"] for row in self.lake.table("splits").collect()}


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path, spark)


def media(names: str, **more: Any) -> list[dict[str, Any]]:
    """Media whose hashes are far from each other."""
    return [{"name": name, "phash": f"{ord(name) * 0x9E3779B97F4A7C15 & (1 << 64) - 1:016x}", **more} for name in names]


def status(result: RunResult) -> str:
    return result.stages[0].status


def test_what_looks_alike_or_is_of_one_site_stays_together(world: World) -> None:
    close = [{"name": "x", "phash": "0f0f0f0f0f0f0f0f"}, {"name": "y", "phash": "0f0f0f0f0f0f0f00"}]
    flat = [{"name": name, "phash": "8000000000000000", "contrast": 1.0} for name in "opq"]
    world.media(*media("abcd", site="north"), *media("efgh", site="south"), *close, *flat)
    assert status(world.run(group_by=["site"])) == "done"
    rows = {row["media_id"][0]: row for row in world.lake.table("splits").collect()}
    assert len({rows[name]["split"] for name in "abcd"}) == len({rows[name]["split"] for name in "efgh"}) == 1
    assert rows["x"]["near"] == ["y" * 4]
    assert rows["x"]["group_id"] == rows["y"]["group_id"] == "x" * 4
    assert {rows[name]["group_id"] for name in "opq"} == {name * 4 for name in "opq"}
    assert {row["split"] for row in rows.values()} == {"train", "test"}


@pytest.mark.long
def test_splits_stay_as_data_comes_and_goes(world: World) -> None:
    world.media(*media("abcdef"))
    assert status(world.run()) == "done"
    before = world.splits()
    assert status(world.run()) == "nothing_new"
    world.media(*media("ghijkl"))
    DeltaTable.forPath(world.lake.spark, world.lake.path("sources")).update("uri = 'a'", {"state": F.lit("missing")})
    assert status(world.run(seed=7)) == "done"
    after = world.splits()
    assert {name: after[name] for name in before} == before
    assert len(after) == 12
    assert {*after.values()} == {"train", "test"}


def test_a_planted_leak_is_found(world: World) -> None:
    close = [{"name": "x", "phash": "0f0f0f0f0f0f0f0f", "given": "train"},
             {"name": "y", "phash": "0f0f0f0f0f0f0f00", "given": "test"}]  # fmt: skip
    north = [*media("a", site="north", given="train"), *media("b", site="north", given="test")]
    world.media(*media("cde", given="train"), *media("fg", given="test"), *north, *close)
    assert status(world.run(column="given", near_duplicates=-1)) == "done"
    result = world.run(column="given", group_by=["site"])
    assert (status(result), result.exit_code) == ("stopped", 3)
    found = {check.name: check for check in result.stages[0].checks if check.failed}
    assert found["near_duplicates_across_splits"].value == 1
    assert found["near_duplicates_across_splits"].keys == ("xxxx ~ yyyy",)
    assert found["groups_in_several_splits"].value == 2
    assert {*found["groups_in_several_splits"].keys} == {"aaaa", "xxxx"}


def test_classes_are_balanced_by_annotations(world: World) -> None:
    names = "abcdefgh"
    world.media(*media(names))
    for name in names:
        label = "rare" if name in "cf" else "common"
        world.put("detections", {
            "media_id": name * 4, "stream_index": 0, "pts": 0, "model_id": "m@1:0", "frame_width_px": 64,
            "frame_height_px": 48, "instances": [{"label_id": 0, "label": label, "score": 1.0}],
        })  # fmt: skip
    world.run(stratify="m@1:0")
    splits = world.splits()
    assert splits["c"] != splits["f"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": {"train": 0.5, "test": 0.6}}, "add up to 1.1"),
        ({"shares": {"a b": 1}}, "letters, digits"),
        ({"near_duplicates": 11}, "near_duplicates = 11"),
        ({"stratify": "people"}, "there is no section 'people' that labels"),
    ],
)
def test_wrong_settings(world: World, settings: dict[str, Any], message: str) -> None:
    if "shares" in settings and "a b" in settings["shares"]:
        settings = {"shares": {'"a b"': 1.0}}
    with pytest.raises(ConfigError, match=message):
        world.run(**settings)


def test_columns_have_to_be_there(world: World) -> None:
    world.media(*media("ab"))
    result = world.run(group_by=["scene"])
    assert (status(result), result.exit_code) == ("failed", 2)
    assert "there is no column 'scene' in the manifest; columns: given, site" in (result.stages[0].error or "")
