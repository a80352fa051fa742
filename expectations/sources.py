"""Table `sources`: where content was found, one row per place and content."""

from __future__ import annotations

from ._table import Column, Rule, Table

TABLE = Table(
    name="sources",
    comment="One row per place (uri) and content; columns of a manifest are added at the end.",
    columns=(
        Column(name="uri", type="string", comment="where the file lies, percent-encoded (RFC 3986)", nullable=False),
        Column(name="media_id", type="string", comment="SHA-256 (hex) of what lay there", nullable=False),
        Column(name="size_bytes", type="bigint", comment="size of the file"),
        Column(name="mtime", type="timestamp", comment="modification time"),
        Column(name="etag", type="string", comment="the store's entity tag; null where it has none"),
        Column(name="input", type="string", comment="the configured input that listed the file"),
        Column(name="state", type="string", comment="present, missing or replaced"),
        Column(name="first_seen", type="timestamp", comment="when a run first saw this content here", volatile=True),
        Column(name="last_seen", type="timestamp", comment="when a run last recorded it as present", volatile=True),
        Column(name="run_id", type="string", comment="run that last changed the row", volatile=True),
    ),
    key=("uri", "media_id"),
    rules=(
        Rule(name="state_unknown", holds="state IN ('present', 'missing', 'replaced')", message="a known state"),
        Rule(name="uri_missing", holds="length(uri) > 0", message="a uri that is not empty"),
    ),
    cluster_by=("uri",),
    is_open=True,
    properties={"delta.dataSkippingStatsColumns": "uri,media_id,state"},
)
