"""MLflow gets a copy of what `waves` records: one MLflow run per run and stage. The only module that imports MLflow.

Nothing here may stop or delay the work. Importing MLflow and talking to a server take seconds, so a thread does both;
the first failure ends tracking for this process, with one warning.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from visionlake.errors import ConfigError

from ._database import DATABASE
from ._writer import Record, Writer, without_secrets

if TYPE_CHECKING:
    from .._config import TrackingConfig

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
        self._place = without_secrets(config.tracking_uri) if config.tracking_uri else f"{folder}/{DATABASE}"
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
                writer = Writer(self._config, lake_uri=self._lake_uri, folder=self._folder)
            while (record := self._records.get()) is not None:
                with _mlflow_settings():
                    writer.wave(record)
            with _mlflow_settings():
                writer.finish()
        except Exception as error:  # whatever it is, the work goes on
            self._problem = _explain(error)


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
    return without_secrets(f"{type(cause).__name__}: {lines[0]}")[:300]
