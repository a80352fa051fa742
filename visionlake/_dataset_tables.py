"""A lake's tables read without Spark: which files are a table at a version, and those files opened by any process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from visionlake.errors import UsageError, VisionlakeError
from visionlake.udfs.uris import ADDRESS, display, local_path, to_uri

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import DeltaTable

T = TypeVar("T")

_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}  # reader features that change no row of ours
_STREAM_BYTES = 1 << 20
_READERS = 8  # files that are opened at once: stores answer late

_delta_process: int | None = None


class NoTableError(UsageError):
    """The lake has no such table."""


@dataclass(frozen=True, kw_only=True)
class LakeTable:
    """A table at one version. It can be pickled, and opened in any process; the log is not read again."""

    name: str
    uri: str
    version: int
    files: tuple[str, ...]
    storage_options: Mapping[str, str] | None = field(default=None, repr=False)

    def open(self, file: int, **options: Any) -> pq.ParquetFile:
        """One of the files, by its place in `files`. Raises VisionlakeError where it is gone."""
        import pyarrow.parquet as pq

        try:
            # Nothing is read ahead by threads: those do not survive a fork.
            return pq.ParquetFile(self._source(self.files[file]), pre_buffer=False, **options)
        except FileNotFoundError:
            raise VisionlakeError(
                f"a file of table {self.name!r}, version {self.version}, is gone: {self.files[file]}. VACUUM has "
                "removed it since; open the data set again, at a newer version"
            ) from None

    def open_stream(self, file: int) -> pq.ParquetFile:
        """As `open`, for reading row after row: a little at a time is held in memory, not a whole row group."""
        return self.open(file, buffer_size=_STREAM_BYTES)

    def read(self, work: Callable[[LakeTable, int], T]) -> list[T]:
        """What `work` makes of each file, several at a time."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda file: work(self, file), range(len(self.files))))

    def _source(self, file: str) -> Any:
        folder = local_path(self.uri)
        if folder is not None:
            return os.path.join(folder, file)
        if _delta_process not in (None, os.getpid()):
            raise UsageError(
                f"lake {display(self.uri)} lies in a store, and its reader does not work in a forked process; give the "
                'DataLoader multiprocessing_context="spawn" or "forkserver"'
            )
        return _open_remote(self.uri, file, self.storage_options)


def open_table(
    lake: str | os.PathLike[str],
    name: str,
    *,
    version: int | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> LakeTable:
    """A table of a lake at a Delta version, or at the newest. Raises UsageError where it cannot be read."""
    from deltalake.exceptions import TableNotFoundError

    root = _root(lake)
    uri = f"{root.rstrip('/')}/{name}"
    try:
        table = _load(uri, version, storage_options)
    except TableNotFoundError:
        raise NoTableError(_missing(lake, root, name)) from None
    except Exception as error:
        raise UsageError(_unreadable(uri, name, version, storage_options, error)) from None
    _check_readable(table, name)
    actions: Any = table.get_add_actions(flatten=True)
    # In order: every rank has to come to the same one.
    files = tuple(sorted(_file(name, path) for path in _arrow(actions)["path"].to_pylist()))
    return LakeTable(name=name, uri=uri, version=table.version(), files=files, storage_options=storage_options)


def _load(uri: str, version: int | None, storage_options: Mapping[str, str] | None) -> DeltaTable:
    from deltalake import DeltaTable

    global _delta_process
    if _delta_process not in (None, os.getpid()):
        raise RuntimeError("deltalake does not work in a forked process; open the data set before, or spawn processes")
    _delta_process = os.getpid()
    return DeltaTable(uri, version=version, storage_options=dict(storage_options) if storage_options else None)


def read_columns(table: LakeTable, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """These columns of all files, of these types; null where a file is older than the column."""
    import pyarrow as pa

    schema = pa.schema(list(columns.items()))
    parts = table.read(lambda self, file: fit(self.open(file).read(list(columns), use_threads=False), columns))
    return pa.concat_tables([schema.empty_table(), *parts])


def fit(rows: pa.Table, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """The columns in these types and this order; null where there is no such column."""
    import pyarrow as pa

    found = {
        name: rows[name].cast(kind) if name in rows.column_names else pa.nulls(rows.num_rows, kind)
        for name, kind in columns.items()
    }
    return pa.table(found)


def _root(lake: str | os.PathLike[str]) -> str:
    if isinstance(lake, str) and ADDRESS.match(lake):
        return to_uri(lake) if lake.startswith("file:") else lake
    return to_uri(Path(lake).expanduser())


def _arrow(actions: Any) -> pa.Table:
    import pyarrow as pa

    return pa.table(actions)


def _file(table: str, path: str) -> str:
    """A path as the log has it (percent-encoded), as one below the table's folder."""
    if ADDRESS.match(path):
        raise UsageError(
            f"table {table!r} is a shallow clone, with files elsewhere ({display(path)}); read what it is of"
        )
    return unquote(path)


def _open_remote(uri: str, file: str, storage_options: Mapping[str, str] | None) -> Any:
    from deltalake.fs import DeltaStorageHandler
    from pyarrow.fs import PyFileSystem

    options = dict(storage_options) if storage_options else None
    return PyFileSystem(DeltaStorageHandler(uri, options)).open_input_file(file)


def _check_readable(table: DeltaTable, name: str) -> None:
    features = {*(table.protocol().reader_features or ())} - _HARMLESS
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if "deletionVectors" in features:
        raise UsageError(
            f"table {name!r} may have deletion vectors, which cannot be read without Spark; set its property "
            f"delta.enableDeletionVectors to false, then run REORG TABLE {name} APPLY (PURGE) and ALTER TABLE {name} "
            "DROP FEATURE deletionVectors"
        )
    if features or mapping != "none":
        named = ", ".join(sorted(features or {"columnMapping"}))
        raise UsageError(f"table {name!r} needs what cannot be read without Spark: {named}; drop the feature")
    if columns := table.metadata().partition_columns:
        raise UsageError(f"table {name!r} is partitioned by {', '.join(columns)}; tables of a lake are not partitioned")


def _missing(lake: str | os.PathLike[str], root: str, name: str) -> str:
    folder = local_path(root)
    if folder is None:
        return f"no table {name!r} in lake {display(root)}; is the address right?"
    if not os.path.isdir(folder):
        hint = "; the lake is a folder or a URI: for catalog.schema give its location" if "." in str(lake) else ""
        return f"lake {display(root)} is not there{hint}"
    tables = sorted(path.parent.name for path in Path(folder).glob("*/_delta_log"))
    return f"no table {name!r} in lake {display(root)}; it has {', '.join(tables) or 'no tables'}"


def _unreadable(
    uri: str, name: str, version: int | None, storage_options: Mapping[str, str] | None, error: Exception
) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m|[↳]", "", str(error)).split())[:400]
    if version is not None:
        try:
            newest = _load(uri, None, storage_options).version()
        except Exception:  # then it is not the version's fault
            newest = None
        if newest is not None:
            return (
                f"table {name!r} has no version {version}: the newest is {newest}, and old ones go when Delta cleans "
                f"its log ({text})"
            )
    return f"table {name!r} cannot be read at {display(uri)}: {text}"


def check_versions(version: Mapping[str, int] | None, tables: Sequence[str]) -> dict[str, int]:
    """The versions that are asked for, by table. Raises UsageError for other tables and for what is no version."""
    if version is None:
        return {}
    if not isinstance(version, Mapping):
        raise UsageError(f'version = {version!r}: allowed is a mapping of tables to versions, such as {{"frames": 3}}')
    for name, number in version.items():
        if name not in tables:
            raise UsageError(f"version has a table {name!r}; allowed: {', '.join(tables)}")
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise UsageError(f"version of {name} = {number!r}: allowed is a whole number from 0 on")
    return dict(version)
