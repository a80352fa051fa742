"""Writes the records of waves through MLflow's client."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlake.udfs._mlflow import without_secrets

from ._database import DATABASE, create_database, sqlite_uri

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.tracking import MlflowClient

    from .._config import TrackingConfig

Record = Mapping[str, Any]

_ARTIFACTS = "mlartifacts"


class Writer:
    """Writes records through MLflow's client, which leaves a notebook's active run alone."""

    def __init__(self, config: TrackingConfig, *, lake_uri: str, folder: Path | None) -> None:
        from mlflow.tracking import MlflowClient

        self._lake_uri = lake_uri.rstrip("/")
        self._runs: dict[tuple[str, str], str] = {}
        self._statuses: dict[str, str] = {}
        self._logged: set[tuple[str, ...]] = set()
        uri, artifacts = config.tracking_uri, None
        if folder is not None:
            database, artifacts = folder / DATABASE, (folder / _ARTIFACTS).as_uri()
            create_database(database, artifacts)
            uri = sqlite_uri(database)
        self._client: MlflowClient = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found = self._client.get_experiment_by_name(config.experiment)
        if found is None:
            self._experiment = self._client.create_experiment(config.experiment, artifact_location=artifacts)
        else:
            self._experiment = found.experiment_id

    def wave(self, record: Record) -> None:
        """Write one wave: numbers first, for artifacts may go to another place, which may fail by itself."""
        run = self._run(record)
        self._statuses[run] = record["status"]
        self._client.log_batch(run, metrics=_metrics(record))
        datasets = [*self._datasets(run, record, "inputs"), *self._datasets(run, record, "outputs")]
        if datasets:
            self._client.log_inputs(run, datasets)
        if record.get("checks") or record.get("error"):
            name = f"gate/wave-{record.get('sequence') or 0:06}"
            self._client.log_text(run, json.dumps(dict(record), default=str, indent=2), f"{name}.json")
            self._client.log_text(run, _report(record), f"{name}.txt")

    def finish(self) -> None:
        """Close the MLflow runs: failed where the last wave was stopped or failed."""
        for run, status in self._statuses.items():
            self._client.set_tag(run, "visionlake.status", status)
            self._client.set_terminated(run, "FAILED" if status in ("stopped", "failed") else "FINISHED")

    def _run(self, record: Record) -> str:
        """The MLflow run of a run and stage: the one there is (a wave may be released much later), else a new one."""
        key = (str(record["run_id"]), str(record["stage"]))
        if key not in self._runs:
            run_id, stage = key
            wanted = f"tags.`visionlake.run_id` = '{run_id}' AND tags.`visionlake.stage` = '{stage}'"
            found = self._client.search_runs([self._experiment], wanted, max_results=1)
            self._runs[key] = found[0].info.run_id if found else self._new_run(record)
        return self._runs[key]

    def _new_run(self, record: Record) -> str:
        from mlflow.entities import Param

        names = ("run_id", "stage", "producer", "code_version")
        tags = {f"visionlake.{name}": str(record[name]) for name in names if record.get(name)}
        tags["visionlake.lake"] = without_secrets(self._lake_uri)
        name = f"{record['stage']} {record['run_id']}"
        run = self._client.create_run(self._experiment, _milliseconds(record.get("started_at")), tags, name)
        config = record.get("config") or {}
        settings: Mapping[str, Any] = json.loads(config) if isinstance(config, str) else config
        parameters = [Param(_allowed(name), _text(value)[:6000]) for name, value in settings.items()]
        if parameters:
            self._client.log_batch(run.info.run_id, params=parameters[:100])
        return run.info.run_id

    def _datasets(self, run: str, record: Record, side: str) -> Iterator[DatasetInput]:
        """The Delta versions that a wave read or wrote, each once per run."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # In MLflow equal name and digest mean the same data, and lakes may share a server.
        lake = hashlib.sha256(self._lake_uri.encode()).hexdigest()[:12]
        for item in record.get(side) or ():
            table, version = str(item["table"]), str(item["version"])
            key = (run, side, table, version)
            if item["version"] is None or key in self._logged:
                continue
            self._logged.add(key)
            source = {"path": f"{without_secrets(self._lake_uri)}/{table}", "delta_table_version": item["version"]}
            yield DatasetInput(
                Dataset(name=table, digest=f"{lake}-v{version}", source_type="delta_table", source=json.dumps(source)),
                [
                    InputTag("mlflow.data.context", side.removesuffix("s")),
                    InputTag("table", table),
                    InputTag("version", version),
                ],
            )


def _metrics(record: Record) -> list[Any]:
    from mlflow.entities import Metric

    started, finished = record.get("started_at"), record.get("finished_at")
    checks = record.get("checks") or ()
    numbers = {name: record.get(name) for name in ("rows_in", "rows_published", "rows_quarantined")}
    if started and finished:
        numbers["seconds"] = (finished - started).total_seconds()
    numbers["checks_not_passed"] = sum(check["status"] not in ("passed", "skipped") for check in checks)
    numbers |= {f"check.{check['name']}": check.get("value") for check in checks}
    numbers |= record.get("figures") or {}
    at, step = _milliseconds(finished), record.get("sequence") or 0
    return [Metric(_allowed(name), float(n), at, step) for name, n in numbers.items() if n is not None]


def _report(record: Record) -> str:
    """The gate's verdict for people."""
    lines = [f"{record['stage']}, wave {record.get('sequence')} ({record.get('wave_id')}): {record['status']}"]
    lines += [f"error: {record['error']}"] if record.get("error") else []
    for check in record.get("checks") or ():
        lines.append(f"{check['status']:>8}  {check['name']} ({check['severity']})")
        lines.append(f"          expected: {check['expected']}; observed: {check['observed']}")
        lines += [f"          {check['message']}"] if check.get("message") else []
        lines += [f"          e.g. {key}" for key in check.get("keys") or ()]
    return "\n".join(lines) + "\n"


def _milliseconds(moment: datetime | None) -> int:
    return int((moment or datetime.now(UTC)).timestamp() * 1000)


def _allowed(name: str) -> str:
    """A name in the characters that MLflow takes."""
    return re.sub(r"[^\w./: -]", "_", name)[:250]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
