"""Models that were fetched, kept on this machine: each fetched once, kept whole, and read as it was fetched."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ._errors import ModelError
from .hashing import file_digest

_MANIFEST, _FILES = "manifest.json", "files"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A model's files: the folder, their paths in it, and the mark that they were fetched with."""

    folder: Path
    names: frozenset[str]
    mark: str


def kept(*key: str, fetch: Callable[[Path], str]) -> Kept:
    """The files that `key` names, as they were fetched: once by all processes, and again where they were changed.

    `fetch` puts them into an empty folder and returns a mark for them. Raises what it raises, and ModelError where
    this machine has no place for them.
    """
    place = _place(key)
    found = _read(place)
    if found is None:
        with _locked(place):
            found = _read(place) or _fetched(place, fetch)
    return found


def forget(*key: str, unless: str) -> None:
    """Let go of what is kept for `key` if it bears another mark."""
    place = _place(key)
    with _locked(place):
        found = _read(place)
        if found is not None and found.mark != unless:
            shutil.rmtree(place)


def _place(key: tuple[str, ...]) -> Path:
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return _root() / f"{re.sub(r'[^A-Za-z0-9]+', '-', '-'.join(key[1:]))[:60]}-{digest}"


def _root() -> Path:
    """A folder that this user alone can write. Where there is no home for it, one among temporary files."""
    places = ("~/.cache/visionlake/models", f"{tempfile.gettempdir()}/visionlake-models-{os.getuid()}")
    for place in places:
        with suppress(OSError, RuntimeError):
            root = Path(place).expanduser()
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            facts = root.lstat()  # others may have put a link there
            is_own = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o022
            if is_own and os.access(root, os.W_OK):
                return root
    raise ModelError(
        f"no place to keep models: neither {' nor '.join(places)} is a folder that this user alone can write; "
        "make one of them such"
    )


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One process at a time. The system lets go of the lock of one that was killed."""
    with place.with_name(f"{place.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(place: Path) -> Kept | None:
    """What is kept, if it is there and is what was fetched."""
    folder = place / _FILES
    try:
        manifest = json.loads((place / _MANIFEST).read_bytes())
        digests, mark = dict(manifest["digests"]), str(manifest["mark"])
        if _names(folder) != digests.keys() or any(file_digest(folder / n) != d for n, d in digests.items()):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Kept(folder=folder, names=frozenset(digests), mark=mark)


def _fetched(place: Path, fetch: Callable[[Path], str]) -> Kept:
    """Fetch into a folder beside, which takes its place when it is whole; what a killed process left is in the way."""
    part = place.with_name(f"{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    folder = part / _FILES
    try:
        folder.mkdir(mode=0o700, parents=True)
        mark = fetch(folder)
        names = _names(folder)
        digests = {name: file_digest(folder / name) for name in sorted(names)}
        (part / _MANIFEST).write_text(json.dumps({"mark": mark, "digests": digests}, indent=1))
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    except OSError as error:
        raise ModelError(f"{part}: {error.strerror}; is the disk full?") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Kept(folder=place / _FILES, names=frozenset(names), mark=mark)


def _names(folder: Path) -> set[str]:
    """Paths of all that is in the folder but folders."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
