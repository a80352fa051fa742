"""Table `export_files`: the files of each exported data set."""

from __future__ import annotations

from . import detections, exports
from ._table import Column, Rule, Table

TABLE = Table(
    name="export_files",
    comment="One row per file of the newest data set of each export.",
    columns=(
        *exports.TABLE.pick("export"),
        Column(name="path", type="string", comment="path below the data set's folder", nullable=False),
        Column(name="size_bytes", type="bigint", comment="size of the file"),
        Column(name="sha256", type="string", comment="SHA-256 (hex) of its bytes"),
        *detections.TABLE.pick("run_id"),
    ),
    key=("export", "path"),
    rules=(Rule(name="digest_missing", holds="length(sha256) = 64", message="a digest"),),
    cluster_by=("export", "path"),
)
