"""Where a file lies: URIs that survive any file name, and opening what they name.

A URI is percent-encoded (RFC 3986) and has one spelling per file, so that it can be a key. `file:` URIs carry the very
bytes of a name. Everything else is opened by `pyarrow.fs` (`s3`, `gs`, `abfss`, `hdfs`, ...) with the credentials which
that store's own chain finds; its options (`?endpoint_override=...&region=...`) may follow a `?`.
"""

from __future__ import annotations

import os
import re
import stat as stat_modes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*)([^?]*)(\?.*)?", re.DOTALL)
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
"""How a text begins that names a place by its scheme, and is no path: "s3://", "file:/", "models:/"."""
_LOCAL_URI = re.compile(r"file:(?://(?:localhost)?)?(/.*)", re.DOTALL | re.IGNORECASE)
_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
# Options that hold no secret and may be shown and stored; any other may (a shared access signature has many names).
_OPEN_OPTIONS = frozenset(
    {
        *("region", "scheme", "endpoint_override", "force_virtual_addressing", "tls_ca_file_path"),
        *("anonymous", "project_id", "retry_limit_seconds"),
        *("replication", "buffer_size", "default_block_size"),
        *("blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme"),
        *("enable_tls", "credential_kind", "tenant_id", "client_id"),
    }
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a store says about a file: `mtime` in UTC to the microsecond, `etag` null where the store has none."""

    size_bytes: int | None
    mtime: datetime | None
    etag: str | None = None


def to_uri(path: str | os.PathLike[str]) -> str:
    """The URI of a local path or of a URI in any spelling; a relative path is taken from the working directory.

    A `str` with a scheme is a URI; characters it should have percent-encoded are encoded, `s3a:` becomes `s3:`.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise ValueError(f"a path cannot hold a null character: {text!r}")
    if isinstance(path, str):
        if local := _LOCAL_URI.fullmatch(text):
            return _file_uri(unquote_to_bytes(_utf8(local[1])))
        if remote := _URI.fullmatch(text):
            scheme, authority, inner, options = remote.groups()
            scheme = _SCHEMES.get(scheme.lower(), scheme.lower())
            return f"{scheme}://{authority}{quote_from_bytes(unquote_to_bytes(_utf8(inner)))}{options or ''}"
    return _file_uri(os.fsencode(os.path.abspath(text)))


def local_path(uri: str) -> str | None:
    """The path of a local file as the operating system takes it (see `os.fsdecode`); None for other stores."""
    match = _LOCAL_URI.fullmatch(uri)
    return os.fsdecode(unquote_to_bytes(_utf8(match[1]))) if match else None


def inner_path(uri: str) -> str:
    """The decoded path inside its store, with a leading slash where there is one; bytes outside UTF-8 as surrogates."""
    match = _LOCAL_URI.fullmatch(uri)
    encoded = match[1] if match else _parts(uri)[2]
    return unquote_to_bytes(_utf8(encoded)).decode("utf-8", "surrogateescape")


def with_inner_path(uri: str, path: str) -> str:
    """The URI of another path (see `inner_path`) in the same store."""
    if _LOCAL_URI.fullmatch(uri):
        return _file_uri(_utf8(path))
    scheme, authority, _, options = _parts(uri)
    return f"{scheme}://{authority}{quote_from_bytes(_utf8(path))}{options}"


def join(folder: str, relative: str) -> str:
    """The URI of `relative` (a path, not encoded; `..` allowed) below the folder, or `relative` if it is absolute."""
    if _URI.fullmatch(relative) or _LOCAL_URI.fullmatch(relative):
        return to_uri(relative)
    if local_path(folder) is not None:
        return to_uri(Path(os.path.normpath(os.path.join(cast(str, local_path(folder)), relative))))
    joined = os.path.join(inner_path(folder), relative).lstrip("/")
    return with_inner_path(folder, os.path.normpath(f"/{joined}"))


def child(folder: str, relative: str) -> str:
    """The URI of an entry found below the folder; `relative` is taken as it is, `..` and all."""
    name = quote_from_bytes(_utf8(relative))
    if _LOCAL_URI.fullmatch(folder):
        return f"{folder.rstrip('/')}/{name}"
    place, mark, options = folder.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{options}"


def parent(uri: str) -> str:
    """The URI of the folder that holds the file."""
    path = local_path(uri)
    if path is not None:
        return to_uri(Path(path).parent)
    scheme, authority, inner, options = _parts(uri)
    return f"{scheme}://{authority}{inner.rstrip('/').rpartition('/')[0] or '/'}{options}"


def display(uri: str) -> str:
    """The URI or path for people: a local file as its path, secrets masked, nothing that a terminal would act on."""
    path = local_path(uri)
    if path is not None:
        text = os.fsencode(path).decode("utf-8", "backslashreplace")
    elif match := _URI.fullmatch(uri):
        scheme, authority, inner, options = match.groups()
        text = unquote_to_bytes(_utf8(inner)).decode("utf-8", "backslashreplace")
        text = f"{scheme}://{_mask_authority(authority)}{text}{_mask_options(options or '')}"
    else:
        text = uri
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def has_secret(uri: str) -> bool:
    """Whether the URI itself carries a password, key or signature (which must not get into tables)."""
    match = _URI.fullmatch(uri)
    if match is None or local_path(uri) is not None:
        return False
    options = match[4] or ""
    return _mask_authority(match[2]) != match[2] or _mask_options(options) != options


def open_input(uri: str) -> BinaryIO:
    """Open a file for reading: binary, seekable. Raises OSError (FileNotFoundError where it is gone)."""
    path = local_path(uri)
    if path is None:
        with store_errors(uri):
            filesystem, inner = open_store(uri)
            return cast(BinaryIO, filesystem.open_input_file(inner))
    # Not blocking: to open a pipe would wait for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat_modes.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{display(uri)} is not a regular file")
    return open(descriptor, "rb")


def stat(uri: str) -> FileFacts:
    """Size, time and entity tag of a file. Raises OSError (FileNotFoundError where it is gone)."""
    path = local_path(uri)
    if path is not None:
        return facts_of_stat(os.stat(path))
    with store_errors(uri):
        filesystem, inner = open_store(uri)
        info = filesystem.get_file_info(inner)
        facts = facts_of_info(info)
        if not info.is_file:
            raise FileNotFoundError(f"{display(uri)}: there is no such file")
        with filesystem.open_input_stream(inner, compression=None) as stream:
            tags = {name.lower(): value for name, value in (stream.metadata() or {}).items()}
        etag = tags.get(b"etag")
    return FileFacts(size_bytes=facts.size_bytes, mtime=facts.mtime, etag=etag.decode().strip('"') if etag else None)


def open_store(uri: str) -> tuple[FileSystem, str]:
    """The `pyarrow.fs` file system of a URI and the path inside it. Raises OSError."""
    with store_errors(uri):
        scheme, authority, inner, options = _parts(uri)
        filesystem, base = _store(f"{scheme}://{authority}", options)
        path = unquote_to_bytes(inner).decode("utf-8").lstrip("/")
    return filesystem, f"{base.rstrip('/')}/{path}" if path else base


def facts_of_stat(status: os.stat_result) -> FileFacts:
    """Facts of a local file."""
    return FileFacts(size_bytes=status.st_size, mtime=_time(status.st_mtime_ns))


def facts_of_info(info: FileInfo) -> FileFacts:
    """Facts of a `pyarrow.fs.FileInfo`."""
    return FileFacts(size_bytes=info.size, mtime=None if info.mtime_ns is None else _time(info.mtime_ns))


def _time(nanoseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:  # outside the years 1 to 9999, as some damaged file systems say
        return None


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _file_uri(path: bytes) -> str:
    if b"\0" in path:
        raise ValueError(f"a path cannot hold a null character: {path!r}")
    return "file://" + quote_from_bytes(os.path.normpath(b"/" + path.lstrip(b"/")))


def _parts(uri: str) -> tuple[str, str, str, str]:
    match = _URI.fullmatch(to_uri(uri))
    if match is None:
        raise ValueError(f"not a URI: {display(uri)}")
    return match[1], match[2], match[3], match[4] or ""


@lru_cache(maxsize=64)
def _store(root: str, options: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(f"{root}/{options}" if root.startswith("hdfs:") else f"{root}{options}")


@contextmanager
def store_errors(uri: str) -> Iterator[None]:
    """Every failure of a store as an OSError whose text holds no secret."""
    try:
        yield
    except Exception as error:
        text = str(error)
        for secret in _secrets(uri):
            text = text.replace(secret, "***")
        # The first line says it: libraries append pages of paths that they tried.
        text = (text.splitlines() or [""])[0][:500]
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        shown = display(uri)
        raise kind(text if shown in text else f"{shown}: {type(error).__name__}: {text}") from None


def _secrets(uri: str) -> list[str]:
    match = _URI.fullmatch(uri)
    if match is None or not has_secret(uri):
        return []
    user, _, _ = match[2].rpartition("@")
    password = user.partition(":")[2]
    values = [option.partition("=")[2] for option in (match[4] or "")[1:].split("&") if not _is_open(option)]
    found = [uri, match[2], user if password else "", password, match[4] or "", *values]
    found += [unquote_to_bytes(text).decode("utf-8", "replace") for text in found]
    return sorted({text for text in found if text}, key=len, reverse=True)


def _mask_authority(authority: str) -> str:
    user, at, host = authority.rpartition("@")
    return f"***@{host}" if at and ":" in user else authority


def _mask_options(options: str) -> str:
    shown = [o if _is_open(o) else f"{o.partition('=')[0]}=***" for o in options[1:].split("&") if o]
    return "?" + "&".join(shown) if shown else options


def _is_open(option: str) -> bool:
    return option.partition("=")[0] in _OPEN_OPTIONS
