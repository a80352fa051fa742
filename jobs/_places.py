"""Where media lie: people know files by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._lake import Lake


def places_of(lake: Lake, media: Sequence[str]) -> dict[str, str]:
    """A URI for each of the media that has one, rather of a file that is there than of one that was."""
    from pyspark.sql import functions as F

    if not media or not lake.exists("sources"):
        return {}
    rows = lake.table("sources").where(F.col("media_id").isin(list(media)))
    found = rows.groupBy("media_id").agg(F.min(F.struct(F.col("state") != "present", "uri")).alias("first"))
    return {row["media_id"]: row["first"]["uri"] for row in found.collect()}
