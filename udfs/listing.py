"""Which files the configured inputs name: planned in parts on the driver, listed part by part on executors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from . import manifests, uris
from ._folders import Entry, child_folders, files_below, files_in, kind_of, look_into
from ._globs import Glob, has_magic, is_excluded

if TYPE_CHECKING:
    import pyarrow as pa

FILE, YOUNG, UNREADABLE, INVALID = "file", "young", "unreadable", "invalid"
_BATCH_ROWS = 5_000
_MANIFEST_SLICE_BYTES = 1 << 18
_SPLIT_LEVELS = 3


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of listing that one task does: a file, one folder's files, a whole tree, or a slice of a manifest.

    `position` is the input's place in the configuration and `base` the folder that patterns are relative to.
    """

    kind: Literal["file", "folder", "tree", "manifest"]
    input: str
    position: int
    uri: str
    base: str
    pattern: str | None = None
    slice: int = 0
    of: int = 1


class InputError(ValueError):
    """A configured input cannot be used; the message says which and why."""


def plan_parts(inputs: Sequence[str], *, wanted: int = 16) -> list[Part]:
    """Split the inputs into about `wanted` parts or more, if there are so many folders. Raises InputError, OSError.

    An input that is not there is an error: to list nothing for it would look as if all its files had gone.
    """
    parts = []
    for position, text in enumerate(inputs):
        try:
            parts += _expand(_part(text, position), wanted)
        except (OSError, ValueError) as error:
            raise InputError(f"input {uris.display(text)!r} cannot be used: {error}") from None
    return parts


def manifest_columns(parts: Iterable[Part]) -> list[str]:
    """Columns which the manifests among the parts add, each once, whatever its case. Raises InputError, OSError."""
    names: dict[str, str] = {}
    for part in parts:
        if part.kind == "manifest" and part.slice == 0:
            try:
                columns = manifests.extra_columns(part.uri)
            except (OSError, ValueError) as error:
                raise InputError(str(error)) from None
            for name in columns:
                names.setdefault(name.lower(), name)
    return list(names.values())


def bundle(parts: Sequence[Part], count: int) -> list[str]:
    """The parts as at most `count` texts for `list_files`."""
    texts = [json.dumps([asdict(part) for part in parts[first::count]]) for first in range(min(count, len(parts)))]
    return texts or ["[]"]


def listing_schema(columns: Sequence[str]) -> pa.Schema:
    """What `list_files` returns, for manifests with these columns."""
    import pyarrow as pa

    described = pa.struct([pa.field(name, pa.string()) for name in ("input", *columns)])
    return pa.schema(
        {
            "uri": pa.string(),
            "kind": pa.string(),
            "place": pa.int64(),
            "size_bytes": pa.int64(),
            "mtime": pa.timestamp("us", tz="UTC"),
            "etag": pa.string(),
            "described": described,
            "message": pa.string(),
        }.items()
    )


def list_files(
    batches: Iterable[pa.RecordBatch],
    *,
    columns: Sequence[str],
    exclude: Sequence[str] = (),
    min_age_s: float = 0.0,
    skip: frozenset[str] = frozenset(),
) -> Iterator[pa.RecordBatch]:
    """List the parts in column `parts` (see `bundle`).

    Rows: `file`; `young`, a file changed less than `min_age_s` ago, which may still be written; `unreadable`, a folder
    that cannot be listed; `invalid`, a manifest that cannot be used. The last two say why in `message`. A file that a
    list names but that is not there has no size. `place` orders rows as the inputs name them. `skip` are URIs of files
    and folders to leave out.
    """
    import pyarrow as pa

    schema = listing_schema(columns)
    spelling = {name.lower(): name for name in columns}
    rows: list[dict[str, Any]] = []
    for batch in batches:
        for text in batch.column("parts").to_pylist():
            for part in (Part(**fields) for fields in json.loads(text)):
                for number, entry, extra in _entries(part, skip):
                    kind = _kind(part, entry, exclude, min_age_s)
                    if kind is None:
                        continue
                    facts = entry.facts
                    described = {"input": part.input} | {spelling[name.lower()]: text for name, text in extra.items()}
                    rows.append(
                        {
                            "uri": entry.uri,
                            "kind": kind,
                            "place": (part.position << 32) + number,
                            "size_bytes": facts.size_bytes,
                            "mtime": facts.mtime,
                            "etag": facts.etag,
                            "described": described,
                            "message": entry.problem,
                        }
                    )
                    if len(rows) >= _BATCH_ROWS:
                        yield pa.RecordBatch.from_pylist(rows, schema=schema)
                        rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _part(text: str, position: int) -> Part:
    text.encode()
    uri = uris.to_uri(text)
    if uris.has_secret(uri):
        raise ValueError("it holds a credential, which would end up in tables; set that in the environment instead")
    kind = kind_of(uri)
    if kind == "file" or (kind == "folder" and manifests.is_folder_of_manifests(uri)):
        named = "manifest" if manifests.is_manifest(uri) else "file"
        return Part(kind=named, input=text, position=position, uri=uri, base=uris.parent(uri))
    if kind == "folder":
        return Part(kind="tree", input=text, position=position, uri=uri, base=uri)
    if not has_magic(uris.inner_path(uri)):
        raise ValueError("it does not exist")
    base, pattern = _split_at_wildcard(uri)
    Glob(pattern)
    if kind_of(base) != "folder":
        raise ValueError(f"there is no folder {uris.display(base)}")
    return Part(kind="tree", input=text, position=position, uri=base, base=base, pattern=pattern)


def _split_at_wildcard(uri: str) -> tuple[str, str]:
    """The folder in front of the first name with a wildcard (that is not a folder of just that name), and the rest."""
    names = uris.inner_path(uri).split("/")
    for index, name in enumerate(names[:-1]):
        if has_magic(name) and kind_of(uris.with_inner_path(uri, "/".join(names[: index + 1]))) is None:
            break
    else:
        index = len(names) - 1
    return uris.with_inner_path(uri, "/".join(names[:index]) or "/"), "/".join(names[index:])


def _expand(part: Part, wanted: int) -> list[Part]:
    """The part in smaller ones: a folder level by level, a manifest by its size."""
    if part.kind == "manifest":
        count = max(1, min(wanted, (_size(part.uri) or 0) // _MANIFEST_SLICE_BYTES))
        return [replace(part, slice=number, of=count) for number in range(count)]
    done: list[Part] = []
    trees = [part] if part.kind == "tree" else []
    for _ in range(_SPLIT_LEVELS):
        if not trees or len(trees) >= wanted:
            break
        deeper: list[Part] = []
        for tree in trees:
            try:
                folders = child_folders(tree.uri, base=tree.base)
            except OSError:
                if tree is part:
                    raise
                done.append(tree)  # its task will meet the same, and say so in a row
                continue
            done.append(replace(tree, kind="folder"))
            deeper += [replace(tree, uri=folder) for folder in folders if _may_hold(tree, folder)]
        trees = deeper
    return done + trees if part.kind == "tree" else [part]


def _size(uri: str) -> int | None:
    return uris.stat(uri).size_bytes if kind_of(uri) == "file" else None


def _entries(part: Part, skip: frozenset[str]) -> Iterator[tuple[int, Entry, dict[str, str | None]]]:
    """The files of a part with their place in a manifest and what that says about them."""
    if part.kind == "manifest":
        try:
            for number, (uri, extra) in enumerate(manifests.rows(part.uri)):
                if number % part.of == part.slice:
                    yield number, _look_at(uri), extra
        except (OSError, ValueError) as error:
            yield 0, Entry(uri=part.uri, problem=str(error)), {}
        return
    if part.kind == "file":
        yield 0, _look_at(part.uri), {}
        return
    for entry in _found(part, skip):
        if not _is_skipped(entry.uri, skip):
            yield 0, entry, {}


def _found(part: Part, skip: frozenset[str]) -> Iterator[Entry]:
    if _is_skipped(part.uri, skip):
        return
    if part.kind == "folder":
        try:
            yield from files_in(part.uri)
        except OSError as error:
            yield Entry(uri=part.uri, problem=error.strerror or str(error))
        return
    if part.pattern is None and uris.local_path(part.uri) is None:
        yield from files_below(part.uri)
        return
    pending = [part.uri]
    while pending:
        entries, folders = look_into(pending.pop(), base=part.base)
        yield from entries
        pending += [folder for folder in folders if not _is_skipped(folder, skip) and _may_hold(part, folder)]


def _is_skipped(uri: str, skip: frozenset[str]) -> bool:
    return uri in skip or any(uri.startswith(f"{folder}/") for folder in skip)


def _look_at(uri: str) -> Entry:
    try:
        return Entry(uri=uri, facts=uris.stat(uri))
    except OSError:  # reading it will say why
        return Entry(uri=uri)


def _kind(part: Part, entry: Entry, exclude: Sequence[str], min_age_s: float) -> str | None:
    """What the entry counts as; None if the configuration leaves it out."""
    if entry.problem is not None:
        return INVALID if part.kind == "manifest" else UNREADABLE
    if exclude or part.pattern is not None:
        path = _relative(entry.uri, part.base)
        if is_excluded(path, exclude) or (part.pattern is not None and not _glob(part.pattern).matches(path)):
            return None
    # A time far in the future comes from a camera's or a server's clock, not from a file that is being written.
    age_s = None if entry.facts.mtime is None else time.time() - entry.facts.mtime.timestamp()
    return YOUNG if age_s is not None and abs(age_s) < min_age_s else FILE


def _may_hold(part: Part, folder: str) -> bool:
    return part.pattern is None or _glob(part.pattern).may_hold(_relative(folder, part.base))


def _relative(uri: str, base: str) -> str:
    path, top = uris.inner_path(uri), uris.inner_path(base).rstrip("/") + "/"
    return path.removeprefix(top) if path.startswith(top) else path.rpartition("/")[2]


@lru_cache(maxsize=64)
def _glob(pattern: str) -> Glob:
    return Glob(pattern)
