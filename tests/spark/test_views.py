"""The SQL of the views, on small tables."""

from __future__ import annotations

from datetime import datetime

from visionlake.expectations import current_frames, frames, runs, sources, waves
from visionlake.expectations._table import Column, Table, View


def select(spark, view: View, *filled: tuple[Table, list[dict]]):
    """The view over temporary tables with these rows; columns that a row lacks are null."""
    relations = {}
    for table, rows in filled:
        relations[table.name] = f"views_{table.name}"
        full = [tuple(row.get(name) for name in table.column_names) for row in rows]
        spark.createDataFrame(full, table.ddl).createOrReplaceTempView(relations[table.name])
    try:
        statement = view.statement(relations, columns={table.name: table.column_names for table, _ in filled})
        frame = spark.sql(statement)
        return frame.columns, [row.asDict(recursive=True) for row in frame.collect()]
    finally:
        for name in relations.values():
            spark.catalog.dropTempView(name)


def source(uri, media_id, day, *, state="present", site=None):
    seen = datetime(2026, 1, day)
    return {"uri": uri, "media_id": media_id, "first_seen": seen, "state": state, "site": site, "Pts": f"at {uri}"}


def frame(media_id, pts):
    return {"media_id": media_id, "stream_index": 0, "pts": pts}


def test_current_frames_are_those_of_present_content_once_each(spark):
    extra = [Column(name="site", type="string", comment="a manifest's"), Column(name="Pts", type="string", comment="")]
    columns, rows = select(
        spark,
        current_frames.VIEW,
        (frames.TABLE, [frame("twice", 1), frame("twice", 2), frame("gone", 1), frame("tie", 1)]),
        (
            sources.TABLE.with_columns(extra),
            [
                source("c", "twice", 1, site="north"),
                source("a", "twice", 2, site="south"),
                source("0", "twice", 1, site="old", state="replaced"),
                source("g", "gone", 1, state="missing"),
                source("z", "tie", 1, site="z"),
                source("y", "tie", 1, site="y"),
            ],
        ),
    )
    assert columns == [*frames.TABLE.column_names, "uri", "uris", "site", "source_Pts"]
    shown = sorted((r["media_id"], r["pts"], r["uri"], r["uris"], r["site"], r["source_Pts"]) for r in rows)
    assert shown == [
        ("tie", 1, "y", ["y", "z"], "y", "at y"),
        ("twice", 1, "c", ["a", "c"], "north", "at c"),
        ("twice", 2, "c", ["a", "c"], "north", "at c"),
    ]


def wave(sequence, **values):
    checks = [
        {"name": "fine", "severity": "stop", "status": "passed", "keys": []},
        {"name": "empty", "severity": "stop", "status": "skipped", "keys": []},
        {"name": "black_share", "severity": "warn", "status": "warned", "keys": []},
    ]
    usual = {
        "wave_id": f"w{sequence}", "run_id": "r", "stage": "s", "producer": "p", "status": "published",
        "sequence": sequence, "started_at": datetime(2026, 1, sequence), "finished_at": datetime(2026, 1, sequence, 1),
        "rows_in": 1, "rows_published": 10, "rows_quarantined": 2, "checks": checks, "config": f"c{sequence}",
    }  # fmt: skip
    return usual | values


def test_runs_sum_up_waves(spark):
    rows = [
        wave(1),
        wave(2),
        wave(3, status="stopped", error="too dark", rows_published=0),
        wave(4, run_id="other", checks=[]),
    ]
    _, found = select(spark, runs.VIEW, (waves.TABLE, rows))
    run, other = sorted(found, key=lambda r: r["run_id"], reverse=True)
    assert (run["status"], run["wave_count"], run["error"], run["config"]) == ("stopped", 3, "too dark", "c3")
    assert (run["rows_in"], run["rows_published"], run["rows_quarantined"]) == (3, 20, 6)
    assert (run["started_at"], run["finished_at"]) == (datetime(2026, 1, 1), datetime(2026, 1, 3, 1))
    assert run["checks_not_passed"] == ["black_share"]
    assert (other["status"], other["checks_not_passed"], other["error"]) == ("published", [], None)
