"""When a source of annotations is due: its files, or the media that they may speak of, are not what they were."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

from visionlake.errors import UsageError
from visionlake.expectations import annotation_files
from visionlake.expectations._table import arrow_schema

from ._whole import is_asked_again

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from ._stage import Discovery

FACTS = ("uri", "size_bytes", "mtime", "etag")
DUE = {
    "source": "string",
    "files": "array<struct<uri string, size_bytes bigint, mtime timestamp, etag string>>",
}
_TASKS = 64


def find_due_source(discovery: Discovery) -> DataFrame:
    """The source with all of its files, one row; none where nothing has changed since it was imported last.

    All files of a source are imported together: two that speak of the same picture are seen side by side, whichever of
    them is new. What is in the lake decides what pictures they mean, so that new media make a source due as well.

    Raises UsageError where an input is not there or cannot be used.
    """
    import pyarrow as pa

    files = _listed(discovery)
    rows = [{"source": discovery.config.source, "files": files}] if _is_due(discovery, files) else []
    return discovery.spark.createDataFrame(pa.Table.from_pylist(rows, schema=arrow_schema(DUE)))


def _is_due(discovery: Discovery, files: list[dict[str, Any]]) -> bool:
    from pyspark.sql import functions as F

    lake, config = discovery.lake, discovery.config
    tables = ("sources", "media")
    if discovery.is_rebuild or discovery.seen is None:
        return True
    if any(lake.exists(name) and lake.version(name) != discovery.seen.get(name) for name in tables):
        return True
    if is_asked_again(lake, stage="import_annotations", key=config.source):
        return True
    if not lake.exists(annotation_files.TABLE.name):
        return True
    known = lake.table(annotation_files.TABLE.name).where(F.col("source") == config.source).select(*FACTS)
    return known.orderBy("uri").toArrow().to_pylist() != files


def _listed(discovery: Discovery) -> list[dict[str, Any]]:
    """The files of the inputs that have names of the format, with size, time and tag, in the order of their URIs."""
    import pyarrow as pa

    from visionlake.udfs.annotation_formats import find_format
    from visionlake.udfs.listing import FILE, YOUNG, bundle, list_files

    config = discovery.config
    patterns = find_format(config.format).FILES
    parts = _parts(config)
    work = partial(list_files, columns=(), exclude=config.exclude, min_age_s=config.min_age_s)
    tasks = discovery.spark.createDataFrame(pa.table({"parts": pa.array(bundle(parts, _TASKS), pa.string())}))
    found = tasks.mapInArrow(
        work,
        "uri string, kind string, place bigint, size_bytes bigint, mtime timestamp, etag string, "
        "described struct<input: string>, message string",
    ).toArrow()
    files: dict[str, dict[str, Any]] = {}
    for row in found.to_pylist():
        if row["kind"] == "unreadable":
            raise UsageError(f"{_section(config)}: {row['uri']} cannot be listed: {row['message']}")
        if row["kind"] == FILE and _has_name(row["uri"], patterns):
            files[row["uri"]] = {name: row[name] for name in FACTS}
    if not files:
        seen = sorted(f"{row['uri']} ({row['kind']})" for row in found.to_pylist() if row["kind"] in (FILE, YOUNG))
        raise UsageError(
            f"{_section(config)}: format = {config.format!r} reads {', '.join(patterns)}, and inputs = "
            f"{list(config.inputs)} has none such that is older than min_age_s = {config.min_age_s:g}, but "
            f"{', '.join(seen[:3]) or 'no file at all'}"
        )
    return [files[uri] for uri in sorted(files)]


def _section(config: Any) -> str:
    return f"import_annotations.{config.source}"


def _parts(config: Any) -> list[Any]:
    """What to list. A file is one of annotations here, also where ingest would read it as a manifest."""
    from visionlake.udfs.listing import InputError, plan_parts

    try:
        parts = plan_parts(config.inputs)
    except InputError as error:
        raise UsageError(f"{_section(config)}: {error}") from None
    return [replace(part, kind="file", of=1) if part.kind == "manifest" else part for part in parts if not part.slice]


def _has_name(uri: str, patterns: tuple[str, ...]) -> bool:
    from visionlake.udfs.uris import inner_path

    name = inner_path(uri).rpartition("/")[2].lower()
    return any(fnmatchcase(name, pattern) for pattern in patterns)
