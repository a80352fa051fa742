"""Which media of the lake a file of annotations means: by the hash of its content, or by what is told of its path."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_MOST_PARTS = 8
# A path counts from its end: the media that share most of it with the name are meant. Every ending of a known path is a
# key, so that the work grows with the number of files, however many of them are called 000001.jpg. A name without a
# suffix (a sequence of MOT Challenge) may be that of a file with one: `clip.*`.

# How exports name the picture of a frame: see `export_types.Sample.stem`.
_OWN_NAME = r"^([0-9a-f]{64})_([0-9]{1,9})_(-[0-9]{11,19}|[0-9]{12,19})[.][A-Za-z]+$"
_ADDRESS = "^[A-Za-z][A-Za-z0-9+.-]*://"


def match_media(pictures: DataFrame, *, media: DataFrame, sources: DataFrame) -> DataFrame:
    """The pictures, each with the `media_id` that its `sha256` or `name` means, or `reason` and `message` of why none.

    `pictures` are told apart by the column `picture`; a null `name` means nothing. Where there is a hash it alone
    counts: media of that name with other content are other media. A name that `export_dataset` gave a frame means that
    frame, and fills `stream_index` and `pts`, where nothing else is told of it and its media is in the lake.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    present = sources.where("state = 'present'").select(
        "media_id", _parts_of(F.split("uri", "[?]", 2)[0]).alias("_parts")
    )
    endings = present.select("media_id", F.explode(_endings("_parts", is_known=True)).alias("_ending"))
    index = endings.groupBy("_ending").agg(F.array_sort(F.collect_set("media_id")).alias("_means"))
    by_hash = media.select(F.col("media_id").alias("_same"))

    pictures = pictures.withColumn("_own", _own_frame())
    named = pictures.withColumn("_parts", _parts_of(_path("name")))
    named = named.withColumn("_whole", F.array_join("_parts", "/"))
    looked = named.select("*", F.posexplode_outer(_endings("_parts", is_known=False)).alias("_place", "_ending"))
    # Of s1/000001.jpg and s2/000001.jpg the file name alone would mean the same media; but names may say more and less
    # of one path.
    same = Window.partitionBy("_ending")
    looked = looked.withColumn("_longest", F.max_by("_whole", F.length("_whole")).over(same))
    agrees = F.concat(F.lit("/"), "_longest").endswith(F.concat(F.lit("/"), "_whole"))
    tells = (F.col("_place") == 0) | F.bool_and(agrees).over(same)
    looked = looked.withColumn("_ending", F.when(tells, F.col("_ending")))
    looked = looked.drop("_parts", "_whole", "_place", "_longest")
    joined = looked.join(index, "_ending", "left").drop("_ending")
    others = [F.any_value(name).alias(name) for name in pictures.columns if name != "picture"]
    # The longest ending that is known has the fewest meanings.
    fewest = F.min(
        F.when(F.col("_means").isNotNull(), F.struct(F.size("_means").alias("n"), F.col("_means").alias("ids")))
    )
    best = joined.groupBy("picture").agg(*others, fewest.alias("_best"))
    best = best.withColumn("_best", F.when(F.col("sha256").isNull(), F.col("_best")))
    best = best.join(by_hash, F.coalesce(F.lower("sha256"), "_own.media_id") == F.col("_same"), "left")
    is_own = F.col("_own").isNotNull() & F.col("_same").isNotNull()
    is_one, has_hash = F.col("_best.n") == 1, F.col("_same").isNotNull()
    is_found = has_hash | F.coalesce(is_one, F.lit(False))
    several = F.format_string(
        "the name fits %d media, as %s; name more of its path, or its sha256",
        "_best.n",
        F.array_join(F.slice("_best.ids", 1, 3), ", "),
    )
    what = F.when(F.col("sha256").isNull(), F.lit("this name, or enough of its path")).otherwise(F.lit("its sha256"))
    nothing = F.format_string("no media of the lake has %s: ingest it, then run again", what)
    return best.withColumns(
        {
            "media_id": F.coalesce("_same", F.when(is_one, F.col("_best.ids")[0])),
            "stream_index": F.when(is_own, F.col("_own.stream_index")).otherwise(F.col("stream_index")),
            "pts": F.when(is_own, F.col("_own.pts")).otherwise(F.col("pts")),
            "reason": F.when(is_found, None)
            .when(F.col("_best").isNull(), F.lit("unmatched"))
            .otherwise(F.lit("ambiguous")),
            "message": F.when(is_found, None).when(F.col("_best").isNull(), nothing).otherwise(several),
        }
    ).drop("_same", "_best", "_own")


def _own_frame() -> Column:
    """The frame that a name says which an export gave, where nothing else says one."""
    from pyspark.sql import functions as F

    name = F.try_element_at(_parts_of(_path("name")), F.lit(-1))
    parts = [F.nullif(F.regexp_extract(name, _OWN_NAME, place), F.lit("")) for place in (1, 2, 3)]
    told = ("sha256", "frame_index", "stream_index", "pts")
    pts = parts[2].try_cast("bigint")
    frame = F.struct(parts[0].alias("media_id"), parts[1].cast("int").alias("stream_index"), pts.alias("pts"))
    is_untold = F.coalesce(*(F.col(name).cast("string") for name in told)).isNull()
    return F.when(is_untold & pts.isNotNull(), frame)


def _path(name: str) -> Column:
    """A name as a path: an address without what follows its path, and separators of Windows as they are elsewhere."""
    from pyspark.sql import functions as F

    # Keys of object stores may have a # in them.
    address = F.when(F.col(name).rlike("^[Hh][Tt][Tt][Pp]"), F.split(name, "[?#]", 2)[0]).otherwise(
        F.split(name, "[?]", 2)[0]
    )
    return F.when(F.col(name).rlike(_ADDRESS), address).otherwise(F.replace(name, F.lit("\\"), F.lit("/")))


def _parts_of(path: Column) -> Column:
    """The last folders of a path and its file name, as an array."""
    from pyspark.sql import functions as F

    # A + is itself in a path; the function takes it for a blank, as it is in a form.
    decoded = F.try_url_decode(F.replace(path, F.lit("+"), F.lit("%2B")))
    text = F.when(path.rlike(_ADDRESS), F.coalesce(decoded, path)).otherwise(path)
    parts = F.filter(F.split(text, "/"), lambda part: ~part.isin("", "."))
    return F.slice(parts, F.greatest(F.size(parts) - (_MOST_PARTS - 1), F.lit(1)), F.lit(_MOST_PARTS))


def _endings(parts: str, *, is_known: bool) -> Column:
    """Every ending of a path as text: a/b.jpg, b.jpg. Of known ones also without the suffix: a/b.*, b.*."""
    from pyspark.sql import functions as F

    places = F.sequence(F.lit(1), F.size(parts))
    whole = F.transform(places, lambda place: F.array_join(F.slice(parts, place, F.lit(_MOST_PARTS)), "/"))
    stems = F.transform(whole, lambda text: F.regexp_replace(text, r"[.][^./]*$", ".*"))
    if is_known:
        return F.array_distinct(F.concat(whole, stems))
    last = F.element_at(parts, -1)
    return (
        F.when(F.size(parts) == 0, None)
        .when(last.contains("."), whole)
        .otherwise(F.transform(whole, lambda text: F.concat(text, F.lit(".*"))))
    )
