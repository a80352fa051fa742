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
        Column(name="group_id", type="string", comment="what has to stay together; the same for all of a group"),
        Column(name="split", type="string", comment="train, val, test, ..."),
        Column(name="frames", type="bigint", comment="frames of the media"),
        *detections.TABLE.pick("run_id"),
    ),
    key=("split_set", "media_id"),
    rules=(Rule(name="split_missing", holds="length(split) > 0", message="a split"),),
    cluster_by=("split_set",),
)
