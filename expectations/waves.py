"""Table `waves`: one row per wave, which is both the progress of its producer and the record of what happened."""

from __future__ import annotations

from ._table import Column, Table

INPUT = (
    "struct<table:string, table_id:string, from_version:bigint, version:bigint, last_key:string, is_complete:boolean>"
)
OUTPUT = "struct<table:string, version:bigint>"
CHECK = (
    "struct<name:string, severity:string, status:string, expected:string, observed:string, value:double, "
    "keys:array<string>, message:string>"
)
MODEL = (
    "struct<backend:string, name:string, version:string, source:string, registry_version:string, "
    "digests:map<string,string>, card:string, labels:array<string>, licence:string>"
)

TABLE = Table(
    name="waves",
    comment="One row per wave: what it read, what it published, how its gate judged it. This row alone is progress.",
    columns=(
        Column(name="wave_id", type="string", comment="id of the wave", nullable=False),
        Column(name="run_id", type="string", comment="run that wrote the row last", volatile=True),
        Column(name="stage", type="string", comment="stage that made the wave", nullable=False),
        Column(name="producer", type="string", comment="the stage with its settings; progress is kept per producer"),
        Column(name="status", type="string", comment="stopped, published, released, dropped, failed or superseded"),
        Column(name="sequence", type="bigint", comment="number of the wave, counted per stage and producer"),
        Column(name="started_at", type="timestamp", comment="when the wave began", volatile=True),
        Column(name="finished_at", type="timestamp", comment="when the row was written", volatile=True),
        Column(name="config", type="string", comment="resolved configuration of the stage, JSON"),
        Column(name="settings_digest", type="string", comment="digest of those settings that can change the output"),
        Column(name="code_version", type="string", comment="version of visionlake that made the wave"),
        Column(
            name="mode",
            type="string",
            comment="how parents were found: snapshot, changes, discovered, selected, rest, ...",
        ),
        Column(name="inputs", type=f"array<{INPUT}>", comment="versions read, and the last parent key done"),
        Column(name="outputs", type=f"array<{OUTPUT}>", comment="versions written"),
        Column(name="rows_in", type="bigint", comment="parents in the wave"),
        Column(name="rows_published", type="bigint", comment="good rows in the wave that the outputs hold"),
        Column(name="rows_quarantined", type="bigint", comment="bad rows in the wave"),
        Column(name="checks", type=f"array<{CHECK}>", comment="results of the gate, with what was seen"),
        Column(name="error", type="string", comment="what failed; null where nothing did"),
        Column(name="decided_by", type="string", comment="who released or dropped the wave; null if nobody had to"),
        Column(name="decided_why", type="string", comment="the reason that was given for it"),
        Column(name="model", type=MODEL, comment="facts of the model that labels; null where none does, or not known"),
    ),
    key=("wave_id",),
)
