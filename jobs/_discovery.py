"""Which files are due: today's listing against what `sources` and the quarantine know, in one pass.

Size, time and entity tag tell whether a file changed; what did not is not read again, whether it was good or bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import TYPE_CHECKING

from visionlake.errors import UsageError
from visionlake.expectations import sources

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from visionlake.udfs.listing import Part

    from ._stage import Discovery

# So many rows are carried as values: nothing has to be listed twice, and finding nothing costs nothing afterwards.
CARRIED_ROWS = 10_000
_TASKS = 64


def find_due_files(discovery: Discovery) -> DataFrame:
    """Files to look at, one row per `uri`, with an `action`: read, update, missing, or unreadable (a folder).

    `size_bytes`, `mtime`, `etag` and `described` (the input and the manifest's columns) are today's, `known` is the row
    of `sources` that said what lies there, `first_seen` when each content was first seen there, `now` the run's time.
    A file that several inputs name belongs to the first of them.

    Raises UsageError where an input is not there or cannot be used.
    """
    from pyspark.sql import functions as F

    parts, columns = _plan(discovery)
    listed = _listed(discovery, parts, columns)
    states = (listed, _known(discovery, columns), _quarantined(discovery))
    merged = reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), states).groupBy("uri")
    state = merged.agg(
        F.min("listed").alias("listed"),
        F.max_by("known", "known.last_seen").alias("known"),
        F.max("bad").alias("bad"),
        F.coalesce(F.bool_or("replay"), F.lit(False)).alias("replay"),
        F.map_from_entries(F.collect_list("seen")).alias("first_seen"),
    )
    due = state.withColumn("action", _action(discovery)).where("action IS NOT NULL")
    due = due.select(
        "uri",
        "action",
        "listed.size_bytes",
        "listed.mtime",
        "listed.etag",
        "listed.described",
        "listed.message",
        "known",
        "first_seen",
        F.lit(discovery.now).alias("now"),
    )
    return _settled(discovery, due)


def _plan(discovery: Discovery) -> tuple[list[Part], list[str]]:
    """Parts to list, and the manifests' columns: those that `sources` has, then the new ones."""
    from visionlake.udfs.listing import InputError, manifest_columns, plan_parts

    lake, declared = discovery.lake, {name.lower() for name in sources.TABLE.column_names}
    present = lake.table("sources").columns if lake.exists("sources") else []
    columns = {name.lower(): name for name in present if name.lower() not in declared}
    try:
        parts = plan_parts(discovery.config.inputs)
        for name in manifest_columns(parts):
            columns.setdefault(name.lower(), name)
    except InputError as error:
        raise UsageError(f"ingest_media: {error}") from None
    if taken := sorted(declared & set(columns)):
        raise UsageError(
            f"ingest_media: manifest columns {taken} are columns of the table sources itself; give them other names "
            f"(taken are {sorted(declared)})"
        )
    return parts, list(columns.values())


def _listed(discovery: Discovery, parts: Sequence[Part], columns: Sequence[str]) -> DataFrame:
    import pyarrow as pa
    from pyspark.sql import functions as F

    from visionlake.udfs import uris
    from visionlake.udfs.listing import bundle, list_files

    config, lake = discovery.config, discovery.lake
    skip = {part.uri for part in parts if part.kind == "manifest"}
    if not lake.in_catalog:
        skip.add(uris.to_uri(lake.uri))
    work = partial(
        list_files,
        columns=columns,
        exclude=config.exclude,
        min_age_s=config.min_age_s,
        skip=frozenset(skip),
    )
    tasks = discovery.spark.createDataFrame(pa.table({"parts": pa.array(bundle(parts, _TASKS), pa.string())}))
    described = "".join(f", `{name}`: string" for name in columns)
    rows = tasks.mapInArrow(
        work,
        "uri string, kind string, place bigint, size_bytes bigint, mtime timestamp, etag string, "
        f"described struct<input: string{described}>, message string",
    )
    # `place` comes first: the smallest struct is the first input's.
    facts = ("place", "kind", "size_bytes", "mtime", "etag", "described", "message")
    return rows.select("uri", F.struct(*facts).alias("listed"))


def _known(discovery: Discovery, columns: Sequence[str]) -> DataFrame:
    """Per row of `sources`, what lies there at present or did before it went missing, and when it was first seen."""
    from pyspark.sql import functions as F

    described = "".join(f", `{name}`: string" for name in columns)
    known_type = (
        "struct<media_id: string, size_bytes: bigint, mtime: timestamp, etag: string, state: string, "
        f"first_seen: timestamp, last_seen: timestamp, described: struct<input: string{described}>>"
    )
    seen_type = "struct<media_id: string, first_seen: timestamp>"
    if not discovery.lake.exists("sources"):
        return discovery.spark.createDataFrame([], f"uri string, known {known_type}, seen {seen_type}")
    rows = discovery.lake.table("sources")
    have = {name.lower() for name in rows.columns}
    extra = [(F.col(f"`{n}`") if n.lower() in have else F.lit(None)).alias(n) for n in columns]
    facts = ("media_id", "size_bytes", "mtime", "etag", "state", "first_seen", "last_seen")
    known = F.struct(*facts, F.struct("input", *extra))
    # The casts make every field nullable, which the conversion to Arrow needs where a struct itself may be null.
    return rows.select(
        "uri",
        F.when(F.col("state") != "replaced", known).cast(known_type).alias("known"),
        F.struct("media_id", "first_seen").cast(seen_type).alias("seen"),
    )


def _quarantined(discovery: Discovery) -> DataFrame:
    """What each bad file looked like when it was read, and whether a replay of it was asked for."""
    from pyspark.sql import functions as F

    # `input` comes first: of several rows about a file, one that knows it is the largest struct.
    bad_type = "struct<input: string, size_bytes: bigint, mtime: timestamp, etag: string>"
    if not discovery.lake.exists("quarantine"):
        return discovery.spark.createDataFrame([], f"uri string, bad {bad_type}, replay boolean")
    rows = discovery.lake.table("quarantine").where("stage = 'ingest_media'")
    payload = F.from_json("payload", "input string, size_bytes bigint, mtime string, etag string")
    bad = F.struct(payload["input"], payload["size_bytes"], payload["mtime"].try_cast("timestamp"), payload["etag"])
    return rows.select(
        F.col("input_key").alias("uri"),
        bad.cast(bad_type).alias("bad"),
        F.col("replay_requested_at").isNotNull().alias("replay"),
    )


def _action(discovery: Discovery) -> Column:
    """What to do about a file; null where nothing is. `held` is an unreadable folder that was reported before."""
    from pyspark.sql import functions as F

    listed, known, bad = F.col("listed"), F.col("known"), F.col("bad")
    again = F.col("replay") | F.lit(discovery.is_rebuild)
    is_bad = bad.isNotNull() & _same(listed, bad) & ~again
    is_known = known.isNotNull() & _same(listed, known)
    differs = (known["state"] == "missing") | ~listed["described"].eqNullSafe(known["described"])
    file = F.when(again, "read").when(is_known, F.when(differs, "update")).when(~is_bad, "read")
    inputs = list(discovery.config.inputs)
    was_here = (known["state"] == "present") & known["described"]["input"].isin(inputs)
    gone = F.coalesce(was_here, F.lit(False)) | F.coalesce(bad["input"].isin(inputs), F.lit(False))
    kind = listed["kind"]
    return (
        F.when(listed.isNull(), F.when(gone, "missing"))
        .when(kind == "invalid", "invalid")
        .when(kind == "unreadable", F.when(is_bad, "held").otherwise("unreadable"))
        .when(kind == "file", file)
    )


def _same(one: Column, other: Column) -> Column:
    """Whether size, time and, where both are known, entity tag agree."""
    from pyspark.sql import functions as F

    tags = F.coalesce(one["etag"] == other["etag"], F.lit(True))
    return one["size_bytes"].eqNullSafe(other["size_bytes"]) & one["mtime"].eqNullSafe(other["mtime"]) & tags


def _settled(discovery: Discovery, due: DataFrame) -> DataFrame:
    """The rows to work on. What lies below a folder that cannot be listed is unknown, not missing.

    Raises UsageError for a manifest that turned out to be unusable.
    """
    from pyspark.sql import functions as F

    special = ("invalid", "unreadable", "held")
    head = due.limit(CARRIED_ROWS + 1).toArrow()
    if head.num_rows <= CARRIED_ROWS:
        due = discovery.spark.createDataFrame(head, due.schema)
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
