"""MLflow gets what `waves` records, and never stops or delays the work."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from visionlake.errors import ConfigError
from visionlake.jobs._config import TrackingConfig
from visionlake.jobs._tracking import Tracker, make_tracker
from visionlake.udfs._mlflow import without_secrets

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(sequence, *, status="published", run_id="r1", stage="extract_frames", share=0.1):
    check = {
        "name": "black_share", "severity": "stop", "status": "stopped" if status == "stopped" else "passed",
        "expected": "at most 20 % of frames are black", "observed": f"{100 * share:g} %", "value": share,
        "keys": ["m/0/1"] if status == "stopped" else [], "message": "",
    }  # fmt: skip
    return {
        "run_id": run_id, "wave_id": f"w{sequence}", "stage": stage, "producer": "p1", "status": status,
        "sequence": sequence, "started_at": START, "finished_at": START + timedelta(seconds=2.5),
        "config": {"fps": "5", "max_side_px": None, "severity": {"black_share": "stop"}}, "code_version": "0.1.0",
        "inputs": [{"table": "media", "version": 3 + sequence}], "outputs": [{"table": "frames", "version": sequence}],
        "rows_in": 4, "rows_published": 40, "rows_quarantined": 1, "checks": [check], "error": None,
    }  # fmt: skip


def tracked(lake, records, *, config=None, uri=None):
    """Write records as a run does; what was noted."""
    notes: list[str] = []
    tracker = make_tracker(config or TrackingConfig(), lake_uri=uri or str(lake), note=notes.append)
    for item in records:
        tracker.wave(item)
    tracker.close()
    return notes


def client_of(lake):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{lake}/mlflow.db")


def runs_of(client):
    experiment = client.get_experiment_by_name("visionlake")
    return client.search_runs([experiment.experiment_id])


def test_off_where_there_is_no_place_for_it():
    for config, uri in [
        (TrackingConfig(), "s3a://bucket/lake"),
        (TrackingConfig(), "catalog.schema"),
        (TrackingConfig(enabled=False), "/somewhere"),
    ]:
        tracker = make_tracker(config, lake_uri=uri, note=pytest.fail)
        assert type(tracker) is Tracker
        tracker.prepare()
        tracker.wave(record(1))
        tracker.close()
    with pytest.raises(ConfigError, match="wants a tracking_uri"):
        make_tracker(TrackingConfig(enabled=True), lake_uri="s3a://bucket/lake", note=pytest.fail)


def test_without_waves_nothing_is_made(tmp_path):
    assert tracked(tmp_path, []) == []
    assert list(tmp_path.iterdir()) == []


def test_a_local_lake_holds_its_own_record(tmp_path, capfd, monkeypatch):
    lake = tmp_path / "Läke 1"
    monkeypatch.chdir(tmp_path)
    environment, level = dict(os.environ), logging.getLogger("urllib3").level
    told = {"figures": {"nano+1 bbox ap": 0.25, "frames": 7}}
    notes = tracked(lake, [record(1), record(2, status="stopped", share=0.372) | told])
    assert notes == []
    assert sorted(path.name for path in lake.iterdir()) == ["mlartifacts", "mlflow.db"]
    assert [path.name for path in tmp_path.iterdir()] == [lake.name], "nothing in the working directory"
    assert capfd.readouterr() == ("", "")
    assert (dict(os.environ), logging.getLogger("urllib3").level) == (environment, level)

    client = client_of(lake)
    [run] = runs_of(client)
    assert run.info.status == "FAILED"
    assert run.data.tags["visionlake.status"] == "stopped"
    assert run.data.tags["visionlake.run_id"] == "r1"
    assert run.data.params == {"fps": "5", "max_side_px": "null", "severity": '{"black_share": "stop"}'}
    shares = client.get_metric_history(run.info.run_id, "check.black_share")
    assert [(m.step, m.value) for m in shares] == [(1, 0.1), (2, 0.372)]
    last = {"rows_in": 4, "rows_published": 40, "rows_quarantined": 1, "seconds": 2.5, "checks_not_passed": 1}
    last |= {"nano_1 bbox ap": 0.25, "frames": 7}
    assert last.items() <= run.data.metrics.items()
    seen = {
        (tags["mlflow.data.context"], tags["table"], tags["version"])
        for data in (run.inputs.dataset_inputs if run.inputs else ())
        for tags in [{tag.key: tag.value for tag in data.tags}]
    }
    assert seen == {
        ("input", "media", "4"),
        ("input", "media", "5"),
        ("output", "frames", "1"),
        ("output", "frames", "2"),
    }
    report = client.download_artifacts(run.info.run_id, "gate/wave-000002.txt", str(tmp_path))
    text = Path(report).read_text(encoding="utf-8")
    assert "stopped  black_share (stop)" in text
    assert "observed: 37.2 %" in text
    assert "e.g. m/0/1" in text
    saved = client.download_artifacts(run.info.run_id, "gate/wave-000002.json", str(tmp_path))
    assert json.loads(Path(saved).read_text(encoding="utf-8"))["wave_id"] == "w2"


def test_a_wave_released_later_joins_its_run(tmp_path):
    tracked(tmp_path, [record(1, status="stopped"), record(1, stage="ingest_media")])
    tracked(tmp_path, [record(1, status="released")])
    runs = {run.data.tags["visionlake.stage"]: run for run in runs_of(client_of(tmp_path))}
    assert {stage: run.info.status for stage, run in runs.items()} == {
        "extract_frames": "FINISHED",
        "ingest_media": "FINISHED",
    }


def test_the_record_of_a_moved_lake_moves_with_it(tmp_path):
    lake, moved = tmp_path / "a", tmp_path / "b c"
    tracked(lake, [record(1)])
    shutil.move(lake, moved)
    tracked(moved, [record(1, run_id="r2")])
    assert not lake.exists()
    client = client_of(moved)
    for run in runs_of(client):
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["gate"]


def test_a_run_of_the_users_stays_active(tmp_path):
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/theirs.db")
    try:
        with mlflow.start_run() as theirs:
            tracked(tmp_path / "lake", [record(1)])
            active = mlflow.active_run()
            assert active is not None
            assert active.info.run_id == theirs.info.run_id
            assert mlflow.get_tracking_uri().endswith("theirs.db")
    finally:
        mlflow.set_tracking_uri(before)


def test_a_server_that_is_down_costs_one_warning(tmp_path, capfd):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    config = TrackingConfig(tracking_uri=f"http://me:hunter2@127.0.0.1:{port}/?token=s3cret")
    notes = tracked(tmp_path, [record(n) for n in range(1, 4)], config=config)
    assert len(notes) == 1
    assert f"http://127.0.0.1:{port}" in notes[0]
    assert "refused" in notes[0]
    assert "hunter2" not in notes[0]
    assert "s3cret" not in notes[0]
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        accepted = []

        def accept():
            while True:
                try:
                    accepted.append(silent.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        config = TrackingConfig(tracking_uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        notes = tracked(tmp_path, [record(1)], config=config)
        assert accepted, "it was asked"
        for connection in accepted:
            connection.close()
    assert len(notes) == 1
    assert "timed out" in notes[0].lower()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:p@ss@db/mlflow?sslmode=1", "postgresql://db/mlflow"),
        ("http://h:5000/api failed for https://x:y@h/?k=v now", "http://h:5000/api failed for https://h/ now"),
        ("databricks", "databricks"),
    ],
)
def test_secrets_are_not_shown(text, shown):
    assert without_secrets(text) == shown


@pytest.mark.long
def test_a_real_server(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/files"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([*command, *store], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        uri = f"http://127.0.0.1:{port}"
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        config = TrackingConfig(tracking_uri=uri)
        assert tracked(tmp_path, [record(1), record(2)], config=config, uri="s3a://bucket/lake") == []
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        [run] = runs_of(client)
        assert run.info.status == "FINISHED"
        assert len(client.get_metric_history(run.info.run_id, "seconds")) == 2
        assert len(client.list_artifacts(run.info.run_id, "gate")) == 4
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
