"""Import annotations: what people or other tools say of media, from COCO, VOC, YOLO, CVAT, Label Studio or MOT."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from pydantic import field_validator

from visionlake.expectations import annotation_files, media, sources
from visionlake.expectations._table import ERROR_TYPE, arrow_schema
from visionlake.expectations.annotations import TABLE as ANNOTATIONS  # a package has a name of its own for __future__'s
from visionlake.jobs._again import with_places
from visionlake.jobs._annotation_files import find_due_source
from visionlake.jobs._deal import deal_out
from visionlake.jobs._decoding import DecodingConfig
from visionlake.jobs._match_media import match_media
from visionlake.jobs._ontology import OntologySection
from visionlake.jobs._stage import Input, Stage, setting
from visionlake.udfs.annotation_formats import find_format, format_names
from visionlake.udfs.place_annotations import PlaceOptions, Turn

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TASKS = 64
_NAMED = ("name", "frame_index", "stream_index", "pts", "sha256", "annotator")
PLACED = {
    "source": "string",
    "annotations": f"struct<{ANNOTATIONS.ddl.replace('`', '')}>",
    "output_key": "string",
    "error": ERROR_TYPE,
}


class Config(DecodingConfig):
    """Settings of one source of annotations, `[import_annotations.<source>]`."""

    max_error_share: float = setting(
        0.5, affects_output=False, ge=0, le=1, description="share of rows that may be bad before the gate stops"
    )
    source: str = setting("annotations", affects_output=False, description="the section's own name; not to be set")
    format: str = setting(description=f"one of {', '.join(format_names())}")
    inputs: tuple[str, ...] = setting(
        affects_output=False, is_path=True, min_length=1, description="folders, globs (** for any depth), files"
    )
    exclude: tuple[str, ...] = setting(
        (), affects_output=False, description='patterns of files to leave out, by name or path: ["results.json"]'
    )
    min_age_s: float = setting(
        2.0, affects_output=False, ge=0, description="a file changed less than so many seconds ago waits"
    )
    orientation: Turn = setting(
        "auto", description='how annotated pictures lay: by their size, or "upright", or "stored", with EXIF ignored'
    )
    ontology: OntologySection | None = setting(
        None, description="classes, aliases and what to drop; unset: [ontology], or labels as they are"
    )

    @field_validator("format")
    @classmethod
    def _is_known(cls, value: str) -> str:
        find_format(value)
        return value

    def options(self) -> PlaceOptions:
        """The settings as the placing takes them."""
        return PlaceOptions(
            source=self.source,
            ontology=self.ontology.ontology() if self.ontology else None,
            turn=self.orientation,
            limits=self.limits(),
        )


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Rows of `annotations` and `annotation_files` for all files of a source, or errors."""
    from pyspark.sql import functions as F

    from visionlake.udfs.place_annotations import place_annotations

    files = inputs["due"].select("source", F.explode("files").alias("file")).select("source", "file.*")
    pictures = _once(match_media(_pictures(files, config), media=inputs["media"], sources=inputs["sources"]))
    facts = inputs["media"].select("media_id", "kind", F.col("picture").alias("still"), "video_streams")
    found = pictures.join(with_places(facts, inputs["sources"]), "media_id", "left")
    tasks = max(TASKS, int(found.sparkSession.conf.get("spark.sql.shuffle.partitions") or TASKS))
    # The times of a video are looked up once, by the task that has all of its frames.
    ready = found.repartition(tasks, "media_id").sortWithinPartitions("media_id", "frame_index", "picture")
    placed = ready.mapInArrow(
        partial(place_annotations, schema=arrow_schema(PLACED), options=config.options()),
        ", ".join(f"{name} {ddl}" for name, ddl in PLACED.items()),
    )
    file = F.struct(
        *(F.col(c.name) if c.name in files.columns else F.lit(None).cast(c.type).alias(c.name)
          for c in annotation_files.TABLE.columns)
    )  # fmt: skip
    return placed.unionByName(files.select("source", file.alias("annotation_files")), allowMissingColumns=True)


def _pictures(files: DataFrame, config: Config) -> DataFrame:
    """A row for each picture with all that the files say of it, in their order."""
    from pyspark.sql import functions as F

    from visionlake.udfs.read_annotations import ITEM, read_annotations

    dealt = deal_out(files, by="size_bytes", key="uri", most=TASKS)
    said = dealt.mapInArrow(partial(read_annotations, format_name=config.format), ITEM)
    told = F.struct(F.col("uri").alias("said_in"), "place", *_NAMED)
    first = F.min(F.when(F.col("kind") == "picture", told))
    items = F.array_sort(F.collect_list(F.struct("uri", "place", "kind", "body")))
    return said.groupBy("picture").agg(items.alias("items"), first.alias("first")).select("picture", "items", "first.*")


def _once(pictures: DataFrame) -> DataFrame:
    """Of several pictures that are the same frame, by the same annotator, the first is kept; the others say so."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # What is matched with nothing is a frame of its own.
    media = F.coalesce("media_id", "picture")
    frame = (media, F.coalesce("frame_index", F.lit(0)), F.col("stream_index"), F.col("pts"), F.col("annotator"))
    same = Window.partitionBy(*frame).orderBy("said_in", "place")
    is_again = F.col("media_id").isNotNull() & (F.row_number().over(same) > 1)
    text = F.format_string("%s, in %s, is the same frame", F.first("name").over(same), F.first("said_in").over(same))
    marked = pictures.withColumns({"_again": is_again, "_text": text})
    reason = F.when(F.col("_again"), F.lit("annotated_twice")).otherwise(F.col("reason"))
    message = F.when(F.col("_again"), F.col("_text")).otherwise(F.col("message"))
    return marked.withColumns({"reason": reason, "message": message}).drop("_again", "_text", "said_in", "place")


STAGE = Stage(
    name="import_annotations",
    summary="annotations of people and other tools, matched to media",
    config=Config,
    inputs=(Input(table=media.TABLE), Input(table=sources.TABLE)),
    outputs=(ANNOTATIONS, annotation_files.TABLE),
    records=(annotation_files.TABLE,),
    transform=transform,
    discover=find_due_source,
    unit="source",
    parent_key=("source",),
    is_named=True,
    redoes_staged=True,
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("import_annotations")
