"""What lies in a folder: files with their facts, and folders, on local disks and in any store."""

from __future__ import annotations

import os
import stat as stat_modes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from . import uris
from .uris import FileFacts

# Links that lead into each other multiply paths; data sets that are built of links need one or two.
MAX_LINKED_FOLDERS = 3
_NOTHING_THERE = FileFacts(size_bytes=None, mtime=None)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file, or a folder that cannot be listed if `problem` says why."""

    uri: str
    facts: FileFacts = _NOTHING_THERE
    problem: str | None = None


def kind_of(uri: str) -> Literal["file", "folder"] | None:
    """Whether a file or a folder lies there; None if neither. Raises OSError where that cannot be found out."""
    path = uris.local_path(uri)
    if path is not None:
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        return "folder" if stat_modes.S_ISDIR(mode) else "file"
    with uris.store_errors(uri):
        filesystem, inner = uris.open_store(uri)
        info = filesystem.get_file_info(inner)
    return "file" if info.is_file else "folder" if info.type.name == "Directory" else None


def child_folders(folder: str, *, base: str) -> list[str]:
    """URIs of the folders in a folder, links that lead back to a folder above left out. Raises OSError."""
    path = uris.local_path(folder)
    if path is None:
        return _list_store(folder, recursive=False)[1]
    with os.scandir(path) as found:
        linked = [(entry, entry.is_symlink()) for entry in found if _is_folder(entry)]
    above = _above(path, base) if any(is_link for _, is_link in linked) else set()
    return [
        uris.child(folder, entry.name)
        for entry, is_link in sorted(linked, key=lambda pair: pair[0].name)
        if not (is_link and _identity(entry.path) in above)
    ]


def files_in(folder: str) -> list[Entry]:
    """The files that lie in the folder itself. Raises OSError."""
    path = uris.local_path(folder)
    if path is None:
        return _list_store(folder, recursive=False)[0]
    files = []
    with os.scandir(path) as found:
        for entry in found:
            if _is_folder(entry):
                continue
            try:
                status = entry.stat()
            except OSError:  # a broken link: opening it will say why
                files.append(Entry(uri=uris.child(folder, entry.name)))
                continue
            if stat_modes.S_ISREG(status.st_mode):
                files.append(Entry(uri=uris.child(folder, entry.name), facts=uris.facts_of_stat(status)))
    return files


def files_below(folder: str) -> Iterator[Entry]:
    """All files of a store's folder, to any depth, in one request."""
    try:
        yield from _list_store(folder, recursive=True)[0]
    except OSError as error:
        yield Entry(uri=folder, problem=str(error))


def look_into(folder: str, *, base: str) -> tuple[list[Entry], list[str]]:
    """Files and folders in a folder. One that cannot be listed gives an entry that says why."""
    try:
        if _links_between(folder, base) > MAX_LINKED_FOLDERS:
            raise OSError(f"more than {MAX_LINKED_FOLDERS} linked folders within each other")
        return files_in(folder), child_folders(folder, base=base)
    except OSError as error:
        return [Entry(uri=folder, problem=error.strerror or str(error))], []


def _list_store(folder: str, *, recursive: bool) -> tuple[list[Entry], list[str]]:
    from pyarrow.fs import FileSelector

    with uris.store_errors(folder):
        filesystem, inner = uris.open_store(folder)
        found = filesystem.get_file_info(FileSelector(inner, recursive=recursive))
    root = inner.rstrip("/") + "/"
    files, folders = [], []
    for info in sorted(found, key=lambda info: info.path):
        uri = uris.child(folder, info.path.removeprefix(root))
        if info.is_file:
            files.append(Entry(uri=uri, facts=uris.facts_of_info(info)))
        else:
            folders.append(uri)
    return files, folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _between(path: str, base: str) -> Iterator[str]:
    """The folder and those above it, down to and without the base."""
    top = (uris.local_path(base) or "/").rstrip("/")
    while len(path) > len(top):
        yield path
        path = path.rpartition("/")[0]


def _above(path: str, base: str) -> set[tuple[int, int] | None]:
    return {_identity(folder) for folder in (*_between(path, base), uris.local_path(base) or "/")} - {None}


def _links_between(folder: str, base: str) -> int:
    path = uris.local_path(folder)
    return 0 if path is None else sum(os.path.islink(above) for above in _between(path, base))
