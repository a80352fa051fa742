"""What `extract_frames` tells the gate, and how work is dealt out, on rows made by hand."""

from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from visionlake.expectations import media
from visionlake.jobs._deal import deal_out
from visionlake.jobs._schemas import struct_type
from visionlake.jobs.extract_frames import Config, measure


def test_the_largest_pieces_are_the_first_of_as_many_tasks(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [("a", 1.0), ("b", 30.0), ("c", None), ("d", 2.0), ("e", 7.0)], "name string, s double"
    )

    def tasks(most: int) -> list[list[str]]:
        dealt = deal_out(rows, by="s", key="name", most=most)
        found = dealt.select("name", F.spark_partition_id().alias("task")).collect()
        assert dealt.columns == ["name", "s"]
        return [
            sorted(row["name"] for row in found if row["task"] == task) for task in range(dealt.rdd.getNumPartitions())
        ]

    assert tasks(100) == [["b"], ["e"], ["d"], ["a"], ["c"]]
    assert tasks(2) == [["b", "c", "d"], ["a", "e"]]
    assert deal_out(rows.where("s > 99"), by="s", key="name", most=9).collect() == []


def test_measures_name_the_media_that_are_off(spark: SparkSession) -> None:
    def parent(name: str, seconds: float) -> dict[str, object]:
        return {"media_id": name, "kind": "video", "video_streams": [{"stream_index": 0, "duration_s": seconds}]}

    def frame(name: str, pts: int, index: int, phash: int) -> tuple[str, int, int, int, int]:
        return (name, 0, pts, index, phash)

    parents = spark.createDataFrame(
        [parent("whole", 2.0), parent("short", 9.0), parent("absent", 9.0)], struct_type(media.TABLE.ddl)
    )
    rows = [frame("whole", pts, pts, pts) for pts in range(10)]
    rows += [frame("short", pts, index, 7) for pts, index in ((0, 0), (1, 2), (2, 1))]
    schema = "media_id string, stream_index int, pts bigint, frame_index bigint, phash bigint"
    found = (
        measure(spark.createDataFrame(rows, schema), parents, Config.model_validate({"fps": 5})).collect()[0].asDict()
    )
    assert found == {
        "pts_backward_steps": 1.0,
        "pts_backward_steps_keys": ["short"],
        "frozen_share": 2 / 13,
        "frozen_share_keys": ["short"],
        "extracted_count_off_share": 2 / 3,
        "extracted_count_off_share_keys": ["absent", "short"],
    }
