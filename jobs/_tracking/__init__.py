"""MLflow gets a copy of what `waves` records: one MLflow run per run and stage.

Only it and `udfs/_mlflow.py` import MLflow. Nothing here may stop or delay the work. Importing MLflow and talking to a
server take seconds, so a thread does both; the first failure ends tracking for this process, with one warning.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from visionlake.errors import ConfigError
from visionlake.udfs._mlflow import explain, mlflow_settings, without_secrets

from ._database import DATABASE
from ._writer import Record, Writer

if TYPE_CHECKING:
    from .._config import TrackingConfig

_CLOSE_S = 20.0  # what is not written so long after the last wave is given up


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
            with mlflow_settings():
                writer = Writer(self._config, lake_uri=self._lake_uri, folder=self._folder)
            while (record := self._records.get()) is not None:
                with mlflow_settings():
                    writer.wave(record)
            with mlflow_settings():
                writer.finish()
        except Exception as error:  # whatever it is, the work goes on
            self._problem = explain(error)
