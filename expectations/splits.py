"""Table `splits`: which media are for training, which for validation, which for testing."""

from __future__ import annotations

from . import detections, frames
from ._table import Column, Rule, Table

TABLE = Table(
    name="splits",
    comment="One row per set of splits and media with frames.",
    columns=(
        Column(name="split_set", type="string", comment="section: [split_dataset.<split_set>]", nullable=False),
        *frames.TABLE.pick("media_id"),
        Column(name="group_id", type="string", comment="smallest media_id of those that have to stay together"),
        Column(name="split", type="string", comment="train, val, test, ..."),
        Column(name="frames", type="bigint", comment="frames of the media"),
        Column(
            name="near",
            type="array<string>",
            comment="other media with a frame that looks nearly the same as one of its frames",
        ),
        Column(
            name="pins",
            type="map<string, bigint>",
            comment="Delta versions of the tables that the row was made of",
            volatile=True,
        ),
        *detections.TABLE.pick("run_id"),
    ),
    key=("split_set", "media_id"),
    rules=(Rule(name="split_missing", holds="length(split) > 0", message="a split"),),
    cluster_by=("split_set",),
)
