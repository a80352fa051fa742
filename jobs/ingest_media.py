"""Ingest media: find the files, read what is new or changed once, and record contents and the places they lie at."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from visionlake.expectations import media, sources
from visionlake.expectations._table import ERROR_TYPE, arrow_type
from visionlake.jobs._deal import deal_out
from visionlake.jobs._decoding import DecodingConfig
from visionlake.jobs._discovery import find_due_files
from visionlake.jobs._schemas import struct_type
from visionlake.jobs._stage import Stage, setting

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

TASKS = 64
TRANSIENT = ("read_failed", "source_missing", "changed_while_read")


class Config(DecodingConfig):
    """Settings of `ingest_media`. What files there are is looked at in every run, so those settings rebuild nothing."""

    max_error_share: float = setting(
        0.5, affects_output=False, ge=0, le=1, description="share of files that may be bad before the gate stops"
    )
    inputs: tuple[str, ...] = setting(
        affects_output=False,
        is_path=True,
        min_length=1,
        description="folders, globs (** for any depth), files, lists (.txt, .lst), manifests (.csv, .json, .parquet)",
    )
    exclude: tuple[str, ...] = setting(
        (), affects_output=False, description='patterns of files to leave out, by name or path: ["*.json", "tmp/*"]'
    )
    min_age_s: float = setting(
        2.0,
        affects_output=False,
        ge=0,
        description="a file changed less than so many seconds ago waits for the next run",
    )
    keep_position: bool = setting(False, description="keep GPS positions")
    max_file_bytes: int = setting(1 << 40, gt=0, description="larger files are refused")


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Rows of `media` and `sources` for due files (see `find_due_files`), or an error; several for a replaced file."""
    import pyarrow as pa
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    from visionlake.udfs.read_sources import read_sources

    due = inputs["due"]
    media_type = struct_type(media.TABLE.ddl)
    error_type = struct_type(f"error {ERROR_TYPE}")["error"].dataType
    found = {"media_id": pa.string(), "media": pa.struct(media.TABLE.arrow_schema()), "error": arrow_type(ERROR_TYPE)}
    work = partial(
        read_sources,
        found=pa.schema(found.items()),
        limits=config.limits(),
        keep_position=config.keep_position,
        max_bytes=config.max_file_bytes,
    )
    schema = StructType(list(due.schema.fields)).add("media_id", "string")
    schema = schema.add("media", media_type).add("error", error_type)
    same = F.when(F.col("action") == "update", F.col("known.media_id"))
    dealt = deal_out(due, by="size_bytes", key="uri", most=_tasks(due))
    read = dealt.mapInArrow(work, schema).withColumn("media_id", F.coalesce(same, F.col("media_id")))

    known = F.col("known")
    has_error = F.col("error.reason").isNotNull()
    here, before = _present(due), _no_longer(due)
    # What could not be read just now says nothing about the content that was known to be there.
    is_same_file = known["size_bytes"].eqNullSafe(F.col("size_bytes")) & known["mtime"].eqNullSafe(F.col("mtime"))
    is_away = is_same_file & F.coalesce(F.col("error.reason").isin(*TRANSIENT), F.lit(False))
    is_other = known.isNotNull() & ~known["media_id"].eqNullSafe(F.col("media_id")) & ~is_away
    no_media, no_error = F.lit(None).cast(media_type), F.lit(None).cast(error_type)
    rows = F.array(
        F.when(
            F.col("media_id").isNotNull() | has_error,
            F.struct(
                F.col("media"),
                F.when(F.col("media_id").isNotNull(), here).alias("sources"),
                F.when(has_error, F.col("error")).alias("error"),
            ),
        ),
        F.when(is_other, F.struct(no_media.alias("media"), before.alias("sources"), no_error.alias("error"))),
    )
    # A file that was quarantined and is gone yields a row without content: its quarantine ends with that.
    return read.select("uri", F.explode_outer(F.array_compact(rows)).alias("row")).select("uri", "row.*")


def _present(due: DataFrame) -> Column:
    from pyspark.sql import functions as F

    # A listing knows no tag, reading does; content that is not read again keeps the one it had.
    same = F.when(F.col("action") == "update", F.col("known.etag"))
    return _sources_row(
        due,
        media_id=F.col("media_id"),
        size_bytes=F.col("size_bytes"),
        mtime=F.col("mtime"),
        etag=F.coalesce(F.col("etag"), same),
        described=F.col("described"),
        state=F.lit("present"),
        first_seen=F.coalesce(F.try_element_at("first_seen", F.col("media_id")), F.col("now")),
        last_seen=F.col("now"),
    )


def _no_longer(due: DataFrame) -> Column:
    """The row of the content that lay there: replaced, or missing where nothing lies there now."""
    from pyspark.sql import functions as F

    names = ("media_id", "size_bytes", "mtime", "etag", "described", "first_seen", "last_seen")
    state = F.when(F.col("size_bytes").isNull(), F.lit("missing")).otherwise(F.lit("replaced"))
    return _sources_row(due, state=state, **{name: F.col("known")[name] for name in names})


def _sources_row(due: DataFrame, *, described: Column, **values: Column) -> Column:
    """A row of `sources`, with the manifests' columns at the end."""
    from pyspark.sql import functions as F

    values |= {"uri": F.col("uri"), "run_id": F.lit(None)}
    manifest = due.select("described.*").columns
    values |= {name: described[name] for name in manifest}
    declared = {column.name: column.type for column in sources.TABLE.columns}
    types = declared | dict.fromkeys(manifest, "string")
    return F.struct(*(values[name].cast(ddl).alias(name) for name, ddl in types.items()))


def _tasks(due: DataFrame) -> int:
    """A cluster that shuffles into more partitions than usual has the cores for them."""
    return max(TASKS, int(due.sparkSession.conf.get("spark.sql.shuffle.partitions") or TASKS))


STAGE = Stage(
    name="ingest_media",
    summary="find files, hash and probe what is new, record contents and places",
    config=Config,
    outputs=(media.TABLE, sources.TABLE),
    transform=transform,
    discover=find_due_files,
    unit="uri",
    parent_key=("uri",),
    keeps_children=True,
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("ingest_media")
