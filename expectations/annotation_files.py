"""Table `annotation_files`: the files that annotations were imported from, as they were then."""

from __future__ import annotations

from . import sources
from ._table import Column, Rule, Table

TABLE = Table(
    name="annotation_files",
    comment="One row per file and source of annotations: what was there when it was imported last.",
    columns=(
        Column(name="source", type="string", comment="section that imports it", nullable=False),
        *sources.TABLE.pick("uri"),
        *sources.TABLE.pick("size_bytes", "mtime", "etag"),
        Column(name="run_id", type="string", comment="run that wrote the row", volatile=True),
    ),
    key=("source", "uri"),
    rules=(Rule(name="uri_missing", holds="length(uri) > 0", message="a uri that is not empty"),),
    cluster_by=("source", "uri"),
)
