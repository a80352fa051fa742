"""Files that name media: lists (`.txt`, `.lst`) with a path per line, and manifests with more columns about each file.

A manifest is CSV (or TSV), JSON (an array of objects), JSON lines, or Parquet (a file or a folder of them). Its column
`uri` or `path` names the media, relative to the folder the manifest lies in; all others are kept as text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

from . import uris

PATH_COLUMNS = ("uri", "path")
_LISTS = (".txt", ".lst")
_MANIFESTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
# What Delta, Spark and other readers take without quoting rules of their own: letters of any script, digits, _ and -.
_NAME = re.compile(r"[^\W\d][\w-]{0,127}")

Row = tuple[str, dict[str, str | None]]


class ManifestError(ValueError):
    """A list or manifest cannot be used; the message says where and why."""


def is_manifest(uri: str) -> bool:
    """Whether the name is that of a list or manifest."""
    return _suffix(uri) in _LISTS + _MANIFESTS


def is_folder_of_manifests(uri: str) -> bool:
    """Whether a folder of that name is read as one manifest."""
    return _suffix(uri) == ".parquet"


def extra_columns(uri: str) -> tuple[str, ...]:
    """Names of the manifest's columns beside the path, in its order. Raises ManifestError, OSError."""
    suffix = _suffix(uri)
    if suffix in _LISTS:
        return ()
    if suffix == ".parquet":
        return _checked(uris.display(uri), _parquet(uri).schema.names)[1]
    with uris.open_input(uri) as stream:
        if suffix in (".csv", ".tsv"):
            return _checked(uris.display(uri), _csv_header(uri, _csv_lines(stream, suffix)))[1]
        names: dict[str, None] = {}
        for _, record in _json_records(uri, stream, suffix):
            names.update(dict.fromkeys(record))
    return _checked(uris.display(uri), list(names))[1] if names else ()


def rows(uri: str) -> Iterator[Row]:
    """Every named file as (uri, extra columns as text), in order. Raises ManifestError, OSError."""
    folder = uris.parent(uri)
    for place, path, extra in _named(uri):
        if not path:
            raise ManifestError(f"{uris.display(uri)}, {place}: the path is empty")
        try:
            target = uris.join(folder, path)
        except ValueError as error:
            raise ManifestError(f"{uris.display(uri)}, {place}: {error}") from None
        if uris.has_secret(target):
            raise ManifestError(
                f"{uris.display(uri)}, {place}: {uris.display(target)} holds a credential, which would end up in a "
                "table; leave it out and set it in the environment"
            )
        yield target, extra


def _named(uri: str) -> Iterator[tuple[str, str | None, dict[str, str | None]]]:
    suffix = _suffix(uri)
    if suffix == ".parquet":
        records = enumerate((r for batch in _parquet(uri).to_batches() for r in batch.to_pylist()), start=1)
        yield from _split(uri, ((f"row {number}", record) for number, record in records))
        return
    with uris.open_input(uri) as stream:
        if suffix in _LISTS:
            for number, line in enumerate(_text(stream, newline="\n"), start=1):
                if name := line.rstrip("\r\n"):
                    yield f"line {number}", name, {}
        elif suffix in (".csv", ".tsv"):
            yield from _split(uri, _csv_records(uri, stream, suffix))
        else:
            yield from _split(uri, _json_records(uri, stream, suffix))


def _split(
    uri: str, records: Iterable[tuple[str, dict[str, Any]]]
) -> Iterator[tuple[str, str | None, dict[str, str | None]]]:
    column = None
    for place, record in records:
        if column not in record:
            column = _checked(f"{uris.display(uri)}, {place}", list(record))[0]
        extra = {name: _valid(_cell(value)) for name, value in record.items() if name != column}
        yield place, _cell(record[column]), extra


def _checked(shown: str, names: list[str]) -> tuple[str, tuple[str, ...]]:
    """The path column and the others. Raises ManifestError for names that no table could have."""
    paths = [name for name in PATH_COLUMNS if name in names]
    if len(paths) != 1:
        found = "both" if paths else f"neither, but {names}"
        raise ManifestError(f"{shown}: a manifest has one column called uri or path; this one has {found}")
    if bad := [name for name in names if not _NAME.fullmatch(name)]:
        raise ManifestError(
            f"{shown}: column names {bad} are not allowed; use letters, digits, _ and -, beginning with a letter or _"
        )
    seen: dict[str, str] = {}
    for name in names:
        if other := seen.get(name.lower()):
            raise ManifestError(f"{shown}: columns {other!r} and {name!r} are one and the same to a table; rename one")
        seen[name.lower()] = name
    return paths[0], tuple(name for name in names if name != paths[0])


def _csv_lines(stream: BinaryIO, suffix: str) -> Any:
    return csv.reader(_text(stream), delimiter="\t" if suffix == ".tsv" else ",", strict=True)


def _csv_header(uri: str, reader: Iterator[list[str]]) -> list[str]:
    header = next(reader, None)
    if not header:
        raise ManifestError(f"{uris.display(uri)} is empty; its first line names the columns")
    return [name.strip() for name in header]


def _csv_records(uri: str, stream: BinaryIO, suffix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = _csv_lines(stream, suffix)
    try:
        header = _csv_header(uri, reader)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ManifestError(
                    f"{uris.display(uri)}, line {reader.line_num}: {len(cells)} cells under {len(header)} columns"
                )
            yield f"line {reader.line_num}", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ManifestError(f"{uris.display(uri)}, line {reader.line_num}: {error}") from None


def _json_records(uri: str, stream: BinaryIO, suffix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of an array, or one a line; numbers stay as they were written."""
    text = _text(stream)
    try:
        if suffix == ".json":
            whole = text.read()
            if whole.lstrip().startswith("["):
                for number, record in enumerate(_loads(whole), start=1):
                    yield f"record {number}", _object(uri, f"record {number}", record)
                return
            text = io.StringIO(whole)
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield f"line {number}", _object(uri, f"line {number}", _loads(line))
    except ManifestError:
        raise
    except ValueError as error:
        raise ManifestError(f"{uris.display(uri)} is not JSON: {error}") from None


def _loads(text: str) -> Any:
    return json.loads(text, parse_float=_Number, parse_int=_Number, object_pairs_hook=_pairs)


class _Number(str):
    """A number's own text."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError(f"a name occurs twice in {[name for name, _ in pairs]}")
    return record


def _object(uri: str, place: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ManifestError(
            f'{uris.display(uri)}, {place}: an object like {{"path": ...}} is expected, not {record!r:.80}'
        )
    return cast(dict[str, Any], record)


def _parquet(uri: str) -> Any:
    from pyarrow import ArrowException
    from pyarrow.dataset import dataset

    path = uris.local_path(uri)
    filesystem, inner = (None, path) if path is not None else uris.open_store(uri)
    try:
        return dataset(inner, filesystem=filesystem, format="parquet")
    except (ArrowException, OSError) as error:
        raise ManifestError(f"{uris.display(uri)} is not Parquet: {str(error).splitlines()[0]}") from None


def _cell(value: Any) -> str | None:
    """A cell as text; an empty one is unknown."""
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _valid(text: str | None) -> str | None:
    """Text that a table can hold; only paths may be something else than UTF-8."""
    return None if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _text(stream: BinaryIO, newline: str = "") -> io.TextIOWrapper:
    # Surrogates carry names that are not UTF-8; csv wants to see line ends as they are.
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _suffix(uri: str) -> str:
    name = uris.inner_path(uri).rstrip("/").rpartition("/")[2].lower()
    return "." + name.rpartition(".")[2] if "." in name else ""
