"""Which files are due: today's listing against what `sources` and the quarantine know, in one pass.

Size, time and entity tag tell whether a file changed; what did not is not read again, whether it was good or bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from visionlake.errors import UsageError
from visionlake.expectations import declared_names, sources

from ._sql import quoted
from ._staging import FOLDER as STAGING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from visionlake.udfs.listing import Part

    from ._stage import Discovery

# So many rows are carried as values: nothing has to be listed twice, and finding nothing costs nothing afterwards.
CARRIED_ROWS = 10_000
_TASKS = 64
_DECLARED = sources.TABLE.column_names

# One pass: what is listed, known and quarantined about a file comes together by its uri. In `listed` the place comes
# first, so that the smallest struct is that of the first input; in `bad` the input, so that of several rows about a
# file the largest is one that knows it. The casts make all fields nullable, which the conversion to Arrow needs.
_LISTED = """
SELECT uri, struct(place, kind, size_bytes, mtime, etag, described, message) AS listed,
  CAST(NULL AS {known_type}) AS known, CAST(NULL AS {seen_type}) AS seen, CAST(NULL AS {bad_type}) AS bad,
  false AS replay
FROM {{listed}}
"""
_KNOWN = """
SELECT uri, NULL,
  CASE WHEN state <> 'replaced' THEN CAST(struct(
    media_id, size_bytes, mtime, etag, state, first_seen, last_seen, struct({described})
  ) AS {known_type}) END,
  CAST(struct(media_id, first_seen) AS {seen_type}), NULL, false
FROM {{sources}}
"""
_BAD = """
SELECT input_key, NULL, NULL, NULL,
  CAST(struct(payload.input, payload.size_bytes, try_cast(payload.mtime AS timestamp), payload.etag) AS {bad_type}),
  replay_requested_at IS NOT NULL
FROM (
  SELECT input_key, from_json(payload, 'input string, size_bytes bigint, mtime string, etag string') AS payload,
    replay_requested_at
  FROM {{quarantine}} WHERE stage = 'ingest_media'
)
"""
_DUE = """
WITH facts AS ({facts}),
files AS (
  SELECT uri, min(listed) AS listed, max_by(known, known.last_seen) AS known, max(bad) AS bad,
    bool_or(replay) OR {is_rebuild} AS again, map_from_entries(collect_list(seen)) AS first_seen
  FROM facts GROUP BY uri
),
compared AS (
  SELECT *,
    known.size_bytes <=> listed.size_bytes AND known.mtime <=> listed.mtime
      AND coalesce(known.etag = listed.etag, true) AND known IS NOT NULL AS is_known,
    bad.size_bytes <=> listed.size_bytes AND bad.mtime <=> listed.mtime
      AND coalesce(bad.etag = listed.etag, true) AND bad IS NOT NULL AND NOT again AS is_bad
  FROM files
),
judged AS (
  SELECT *, CASE
    WHEN listed IS NULL THEN CASE
      WHEN known.state = 'present' AND known.described.input IN ({inputs}) THEN 'missing'
      WHEN bad.input IN ({inputs}) THEN 'missing'
    END
    WHEN listed.kind = 'invalid' THEN 'invalid'
    WHEN listed.kind = 'unreadable' THEN CASE WHEN is_bad THEN 'held' ELSE 'unreadable' END
    WHEN listed.kind <> 'file' THEN NULL
    WHEN again THEN 'read'
    WHEN is_known THEN CASE
      WHEN known.state = 'missing' OR NOT listed.described <=> known.described THEN 'update'
    END
    WHEN NOT is_bad THEN 'read'
  END AS action
  FROM compared
)
SELECT uri, action, listed.size_bytes, listed.mtime, listed.etag, listed.described, listed.message, known, first_seen
FROM judged WHERE action IS NOT NULL
"""


def find_due_files(discovery: Discovery) -> DataFrame:
    """Files to look at, one row per `uri`, with an `action`: read, update, missing, or unreadable (a folder).

    `size_bytes`, `mtime`, `etag` and `described` (the input and the manifest's columns) are today's, `known` is the row
    of `sources` that said what lies there, `first_seen` when each content was first seen there, `now` the run's time.
    A file that several inputs name belongs to the first of them.

    Raises UsageError where an input is not there or cannot be used.
    """
    from pyspark.sql import functions as F

    lake = discovery.lake
    tables = {name: lake.table(name) for name in ("sources", "quarantine") if lake.exists(name)}
    old_columns = [name for name in tables["sources"].columns if name not in _DECLARED] if "sources" in tables else []
    parts, columns = _plan(discovery, old_columns)
    described = "".join(f", `{name}`: string" for name in columns)
    types = {
        "known_type": "struct<media_id: string, size_bytes: bigint, mtime: timestamp, etag: string, state: string, "
        f"first_seen: timestamp, last_seen: timestamp, described: struct<input: string{described}>>",
        "seen_type": "struct<media_id: string, first_seen: timestamp>",
        "bad_type": "struct<input: string, size_bytes: bigint, mtime: timestamp, etag: string>",
    }
    facts = [_LISTED.format(**types)]
    if "sources" in tables:
        old = ["input", *(f"`{name}`" if name in old_columns else "NULL" for name in columns)]
        facts.append(_KNOWN.format(described=", ".join(old), **types))
    if "quarantine" in tables:
        facts.append(_BAD.format(**types))
    inputs = ", ".join(quoted(text) for text in discovery.config.inputs).replace("{", "{{").replace("}", "}}")
    due = discovery.spark.sql(
        _DUE.format(facts="UNION ALL".join(facts), inputs=inputs, is_rebuild=str(discovery.is_rebuild).lower()),
        args=None,
        listed=_listed(discovery, parts, columns),
        **tables,
    )
    return _settled(discovery, due).withColumn("now", F.lit(discovery.now))


def _plan(discovery: Discovery, old_columns: Sequence[str]) -> tuple[list[Part], list[str]]:
    """Parts to list, and the manifests' columns: those that `sources` has, then the new ones."""
    from visionlake.udfs.listing import InputError, manifest_columns, plan_parts

    columns = {name.lower(): name for name in old_columns}
    try:
        parts = plan_parts(discovery.config.inputs)
        for name in manifest_columns(parts):
            columns.setdefault(name.lower(), name)
    except InputError as error:
        raise UsageError(f"ingest_media: {error}") from None
    if private := sorted(name for name in columns if name.startswith("_")):
        raise UsageError(f"ingest_media: manifest columns {private} begin with _, as none may; give them other names")
    if taken := sorted(set(_DECLARED) & set(columns)):
        raise UsageError(
            f"ingest_media: manifest columns {taken} are columns of the table sources itself; give them other names "
            f"(taken are {sorted(_DECLARED)})"
        )
    return parts, list(columns.values())


def _listed(discovery: Discovery, parts: Sequence[Part], columns: Sequence[str]) -> DataFrame:
    import pyarrow as pa

    from visionlake.udfs.listing import bundle, list_files

    config = discovery.config
    skip = {part.uri for part in parts if part.kind == "manifest"} | _of_the_lake(discovery, parts)
    work = partial(
        list_files, columns=columns, exclude=config.exclude, min_age_s=config.min_age_s, skip=frozenset(skip)
    )
    tasks = discovery.spark.createDataFrame(pa.table({"parts": pa.array(bundle(parts, _TASKS), pa.string())}))
    described = "".join(f", `{name}`: string" for name in columns)
    return tasks.mapInArrow(
        work,
        "uri string, kind string, place bigint, size_bytes bigint, mtime timestamp, etag string, "
        f"described struct<input: string{described}>, message string",
    )


def _of_the_lake(discovery: Discovery, parts: Sequence[Part]) -> set[str]:
    """Folders that are the lake's own: all of it, or just its tables where an input lies inside the lake."""
    from visionlake.udfs import uris

    if discovery.lake.in_catalog:
        return set()
    root = uris.to_uri(discovery.lake.uri)
    if any(f"{part.base}/".startswith(f"{root}/") for part in parts):
        return {uris.child(root, name) for name in (*declared_names(), STAGING)}
    return {root}


def _settled(discovery: Discovery, due: DataFrame) -> DataFrame:
    """The rows to work on. What lies below a folder that cannot be listed is unknown, not missing.

    Raises UsageError for a manifest that turned out to be unusable.
    """
    from pyspark.sql import functions as F

    special = ("invalid", "unreadable", "held")
    listed = due.persist()  # what is listed twice may differ
    head = listed.limit(CARRIED_ROWS + 1).toArrow()
    if head.num_rows <= CARRIED_ROWS:
        due = discovery.spark.createDataFrame(head, due.schema)
        listed.unpersist()
        columns = head.select(["uri", "action", "message"])
    else:
        columns = due.where(F.col("action").isin(*special)).select("uri", "action", "message").toArrow()
    found = [row for row in columns.to_pylist() if row["action"] in special]
    if invalid := [row["message"] for row in found if row["action"] == "invalid"]:
        raise UsageError(f"ingest_media: {min(invalid)}")
    for row in found:
        below = F.col("uri").startswith(row["uri"].rstrip("/") + "/")
        due = due.where(~(below & (F.col("action") == "missing")))
    return due.where("action <> 'held'") if found else due
