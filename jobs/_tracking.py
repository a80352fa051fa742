"""MLflow gets a copy of what `waves` records: one MLflow run per run and stage. The only module that imports MLflow.

Nothing here may stop or delay the work. Importing MLflow and talking to a server take seconds, so a thread does both;
the first failure ends tracking for this process, with one warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from visionlake.errors import ConfigError

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.tracking import MlflowClient

    from ._config import TrackingConfig

Record = Mapping[str, Any]

_DATABASE = "mlflow.db"
_ARTIFACTS = "mlartifacts"
_CLOSE_S = 20.0  # what is not written so long after the last wave is given up
_ENVIRONMENT = {  # MLflow's own defaults wait for minutes; what the user has set stays
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_LOGGERS = ("mlflow", "alembic", "urllib3")


class Tracker:
    """Tracks nothing, and is what all trackers look like."""

    def prepare(self) -> None:
        """Get ready in the background: there will be waves. Not needed, but the first wave is then written sooner."""

    def wave(self, record: Record) -> None:
        """Note a wave that was published or stopped; `record` holds the columns of `waves`. Returns at once."""

    def close(self) -> None:
        """Finish what was noted, within 20 s; the rest is given up, with a warning."""


def make_tracker(config: TrackingConfig, *, lake_uri: str, note: Callable[[str], None]) -> Tracker:
    """The tracker for a lake: a database inside a local one, a server if one is configured, else one that does nothing.

    `note` gets at most one warning, from the thread that calls the tracker. Raises ConfigError where tracking is asked
    for but there is no place for it.
    """
    folder = _local_folder(lake_uri)
    if config.enabled is False or (config.enabled is None and not (folder or config.tracking_uri)):
        return Tracker()
    if not (folder or config.tracking_uri):
        raise ConfigError(
            f"[mlflow] enabled = true wants a tracking_uri, for the lake {lake_uri} is not a local folder"
        )
    return _BackgroundTracker(config, lake_uri=lake_uri, folder=None if config.tracking_uri else folder, note=note)


def _local_folder(lake_uri: str) -> Path | None:
    if lake_uri.startswith("file:"):
        return Path(unquote(urlsplit(lake_uri).path))
    return Path(lake_uri) if os.path.isabs(lake_uri) else None


class _BackgroundTracker(Tracker):
    """Hands records to a thread that writes them."""

    def __init__(
        self, config: TrackingConfig, *, lake_uri: str, folder: Path | None, note: Callable[[str], None]
    ) -> None:
        self._config, self._lake_uri, self._folder, self._note = config, lake_uri, folder, note
        self._place = _without_secrets(config.tracking_uri) if config.tracking_uri else f"{folder}/{_DATABASE}"
        self._records: SimpleQueue[Record | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self._has_warned = False

    def prepare(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="visionlake-mlflow", daemon=True)
            self._thread.start()

    def wave(self, record: Record) -> None:
        self.prepare()
        self._records.put(record)
        self._warn()

    def close(self) -> None:
        if self._thread is None:
            return
        self._records.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            self._problem = f"it does not answer within {_CLOSE_S:g} s, and may lack the last waves"
        self._warn()

    def _warn(self) -> None:
        if self._problem and not self._has_warned:
            self._has_warned = True
            self._note(f"not tracked by MLflow ({self._place}): {self._problem}")

    def _work(self) -> None:
        try:
            with _mlflow_settings():
                writer = _Writer(self._config, lake_uri=self._lake_uri, folder=self._folder)
            while (record := self._records.get()) is not None:
                with _mlflow_settings():
                    writer.wave(record)
            with _mlflow_settings():
                writer.finish()
        except Exception as error:  # whatever it is, the work goes on
            self._problem = _explain(error)


class _Writer:
    """Writes records through MLflow's client, which leaves a notebook's active run alone."""

    def __init__(self, config: TrackingConfig, *, lake_uri: str, folder: Path | None) -> None:
        from mlflow.tracking import MlflowClient

        self._lake_uri = lake_uri.rstrip("/")
        self._runs: dict[tuple[str, str], str] = {}
        self._statuses: dict[str, str] = {}
        self._logged: set[tuple[str, ...]] = set()
        uri, artifacts = config.tracking_uri, None
        if folder is not None:
            database, artifacts = folder / _DATABASE, (folder / _ARTIFACTS).as_uri()
            _create_database(database, artifacts)
            uri = _sqlite_uri(database)
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
        tags["visionlake.lake"] = _without_secrets(self._lake_uri)
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
            source = {"path": f"{_without_secrets(self._lake_uri)}/{table}", "delta_table_version": item["version"]}
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


def _create_database(path: Path, artifacts: str) -> None:
    """An empty MLflow database at `path`, unless there is one.

    MLflow runs all its migrations since its first version, each waiting for the disk: seconds. In memory it is one.
    """
    if path.exists():
        _follow_move(path, artifacts)
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    shared_memory = "/dev/shm"
    folder = tempfile.mkdtemp(dir=shared_memory if os.access(shared_memory, os.W_OK) else None)
    try:
        fresh = Path(folder, _DATABASE)
        SqlAlchemyStore(_sqlite_uri(fresh), artifacts).engine.dispose()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{_DATABASE}.{os.getpid()}")
        shutil.copyfile(fresh, part)
        part.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _follow_move(path: Path, artifacts: str) -> None:
    """Point the database of a moved or copied lake to the artifacts beside it: MLflow stores absolute places."""
    import sqlite3

    # Experiment 0 is the default one, which MLflow makes in every database.
    stored = "SELECT rtrim(artifact_location, '0') FROM experiments WHERE experiment_id = 0"
    with suppress(sqlite3.Error, TypeError), closing(sqlite3.connect(path)) as database:
        [before] = database.execute(stored).fetchone()
        if before != f"{artifacts}/":
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                database.execute(change, (before.rstrip("/"), artifacts))
            database.commit()


def _sqlite_uri(path: Path) -> str:
    # Only what SQLAlchemy would read otherwise is quoted: MLflow makes the folder of the address as it stands.
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


@contextmanager
def _mlflow_settings() -> Iterator[None]:
    """Short waits and silence, for our own calls only."""
    added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    os.environ.update(added)
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _explain(error: Exception) -> str:
    """The innermost cause, in one line without secrets: MLflow's errors quote the whole address."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    lines = str(cause).strip().splitlines() or [""]
    return _without_secrets(f"{type(cause).__name__}: {lines[0]}")[:300]


def _without_secrets(text: str) -> str:
    """The text without the user, password and query of an address."""
    return re.sub(r"(://[^\s?]*)\?\S*", r"\1", re.sub(r"://[^/\s]*@", "://", text))


def _milliseconds(moment: datetime | None) -> int:
    return int((moment or datetime.now(UTC)).timestamp() * 1000)


def _allowed(name: str) -> str:
    """A name in the characters that MLflow takes."""
    return re.sub(r"[^\w./: -]", "_", name)[:250]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
