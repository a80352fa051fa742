"""Writing the files of an exported data set: each whole or not at all, with its size and digest kept."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from .uris import child, display, local_path, open_store, store_errors

_ASIDE = ".partial"


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file that is there; `path` is relative to the data set's folder."""

    path: str
    size_bytes: int
    sha256: str


@dataclass
class FolderTarget:
    """A `Target` (see `export_types`) below a folder, by its URI: on a disk, or in any store that pyarrow knows."""

    folder: str
    written: list[WrittenFile] = field(default_factory=list)

    def write(self, path: str, data: bytes) -> None:
        """Write a file. Raises OSError."""
        with self.open(path) as file:
            file.write(data)

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        """A file that is there once the block has ended well. Raises OSError."""
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} does not lie in {display(self.folder)}")
        with _opened(child(self.folder, path)) as file:
            counted = _Counted(file)
            yield cast(BinaryIO, counted)
        self.written.append(WrittenFile(path=path, size_bytes=counted.size, sha256=counted.digest.hexdigest()))


def exists(uri: str) -> bool:
    """Whether a file is there. Raises OSError for a store out of reach."""
    path = local_path(uri)
    if path is not None:
        return os.path.isfile(path)
    with store_errors(uri):
        filesystem, inner = open_store(uri)
        return bool(cast(Any, filesystem.get_file_info(inner)).is_file)


def remove(uri: str) -> None:
    """Take a file away, where there is one. Raises OSError."""
    path = local_path(uri)
    if path is not None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    with store_errors(uri):
        filesystem, inner = open_store(uri)
        with suppress(FileNotFoundError):
            filesystem.delete_file(inner)


def tidy(folder: str) -> None:
    """Take away what was left half written by processes that were killed; nobody may be writing any more."""
    path = local_path(folder)
    if path is None:  # a store never shows such
        return
    for parent, _, names in os.walk(path):
        for name in names:
            if name.endswith(_ASIDE):
                os.unlink(os.path.join(parent, name))


class _Counted:
    """A file that is only written, with the size and digest of what went in."""

    def __init__(self, file: Any) -> None:
        self._file, self.size, self.digest = file, 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.size += len(view)
        self.digest.update(view)
        self._file.write(view)
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """What is written is complete when the file is closed."""

    def close(self) -> None:
        """The block that opened the file closes it."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return False


@contextmanager
def _opened(uri: str) -> Iterator[Any]:
    path = local_path(uri)
    if path is None:  # a store shows a file once it is closed, and nothing of one that was given up
        with store_errors(uri):
            filesystem, inner = open_store(uri)
            with filesystem.open_output_stream(inner, compression=None) as stream:
                yield stream
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{path}.{secrets.token_hex(4)}{_ASIDE}"  # several attempts of a task may write at once
    try:
        with open(aside, "xb") as file:
            yield file
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
