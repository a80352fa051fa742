"""MLflow's database inside a local lake."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing, suppress
from pathlib import Path

DATABASE = "mlflow.db"


def create_database(path: Path, artifacts: str) -> None:
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
        fresh = Path(folder, DATABASE)
        SqlAlchemyStore(sqlite_uri(fresh), artifacts).engine.dispose()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{DATABASE}.{os.getpid()}")
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


def sqlite_uri(path: Path) -> str:
    # Only what SQLAlchemy would read otherwise is quoted: MLflow makes the folder of the address as it stands.
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")
