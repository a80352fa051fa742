"""Table `quarantine`: every row that was not good enough, with the reason. Errors live only here."""

from __future__ import annotations

from ._table import Column, Table

TABLE = Table(
    name="quarantine",
    comment="One row per bad row. Processing a parent again replaces its rows, so a mended cause clears them.",
    columns=(
        Column(name="stage", type="string", comment="stage that found the row bad", nullable=False),
        Column(name="producer", type="string", comment="the stage with its settings", nullable=False),
        Column(
            name="input_key", type="string", comment="key of the parent; several columns joined by /", nullable=False
        ),
        Column(name="output_key", type="string", comment="key of the bad row, joined by /; null if unknown"),
        Column(name="reason", type="string", comment="what is wrong, in one word", nullable=False),
        Column(name="message", type="string", comment="what is wrong, for people"),
        Column(name="payload", type="string", comment="details, JSON: the bad row without its bulky columns"),
        Column(name="run_id", type="string", comment="run that wrote the row", volatile=True),
        Column(name="wave_id", type="string", comment="wave that wrote the row", volatile=True),
        Column(name="at", type="timestamp", comment="when the row was written", volatile=True),
        Column(name="replay_requested_at", type="timestamp", comment="when a replay was asked for; null if it was not"),
    ),
    key=("stage", "producer", "input_key", "output_key", "reason"),
    may_be_unknown=("output_key",),
    cluster_by=("stage", "producer", "input_key"),
    properties={"delta.dataSkippingStatsColumns": "stage,producer,input_key,reason,replay_requested_at"},
)
