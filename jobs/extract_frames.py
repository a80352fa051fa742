"""Extract frames: decode, sample and store the frames of every media, with their identity and quality measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from visionlake.expectations import frames, media, sources
from visionlake.expectations._checks import SHOWN_KEYS
from visionlake.expectations._table import ERROR_TYPE, Column
from visionlake.jobs._again import STILL_AWAY, with_places
from visionlake.jobs._deal import deal_out
from visionlake.jobs._decoding import DecodingConfig
from visionlake.jobs._fields import Fps, Seconds
from visionlake.jobs._stage import Input, Stage, setting
from visionlake.udfs.frame_types import FrameOptions

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame

UNKNOWN_DURATION_S = 60.0
MOST_TASKS = 10_000


class Config(DecodingConfig):
    """Settings of `extract_frames`."""

    fps: Fps | None = setting(None, description="frames per second of presentation time; unset: every frame")
    keyframes_only: bool = setting(False, description="only frames at which decoding can start")
    start_s: Seconds | None = setting(None, description="from here on, seconds after the first frame")
    end_s: Seconds | None = setting(None, description="up to here, seconds after the first frame")
    max_frames: int | None = setting(None, gt=0, description="at most so many frames per stream")
    max_side_px: int | None = setting(None, gt=0, description="longer side of the stored frame; never enlarged")
    square_pixels: bool = setting(False, description="resample to square pixels")
    image_format: Literal["jpeg", "png", "none"] = setting("jpeg", description="how pictures are stored")
    jpeg_quality: int = setting(92, ge=1, le=100, description="JPEG quality")

    @model_validator(mode="after")
    def _check_span(self) -> Self:
        if self.start_s is not None and self.end_s is not None and self.start_s >= self.end_s:
            raise ValueError(f"start_s = {self.start_s} is not before end_s = {self.end_s}")
        return self

    def options(self) -> FrameOptions:
        """The settings as the decoder takes them."""
        names = ("keyframes_only", "start_s", "end_s", "max_frames", "max_side_px", "square_pixels", "image_format")
        values = {name: getattr(self, name) for name in names}
        return FrameOptions(fps=self.fps, jpeg_quality=self.jpeg_quality, **values)


def transform(inputs: Mapping[str, DataFrame], config: Config) -> DataFrame:
    """Frames of the media, read from where their content lies at present; one error row where that fails."""
    picked = with_places(inputs["media"].select("media_id", "kind", "duration_s"), inputs["sources"])
    return decode(deal_out(picked, by="duration_s", key="media_id", most=MOST_TASKS).drop("duration_s"), config)


def decode(rows: DataFrame, config: Config, *, passed: Sequence[str] = ()) -> DataFrame:
    """Frames of the files in `rows` (`uri`, and if known `media_id`, `kind`, `size_bytes`, `mtime`).

    String columns named in `passed` come out again on every row.
    """
    from visionlake.udfs.extract_frames import extract_frames

    table = frames.TABLE.with_columns(Column(name=n, type="string", comment="passed through") for n in passed)
    schema = table.arrow_schema(with_error=True)
    work = partial(extract_frames, schema=schema, options=config.options(), limits=config.limits())
    return rows.mapInArrow(work, f"{table.ddl}, error {ERROR_TYPE}")


def weight(config: Config) -> str:
    """Rows that a media may yield, as a SQL expression over `media`."""
    if config.max_frames:
        return str(float(config.max_frames))
    rate = float(config.fps) if config.fps else 30.0
    return f"CASE WHEN kind = 'image' THEN 1.0 ELSE {rate} * coalesce(duration_s, {UNKNOWN_DURATION_S}) END"


def row_bytes(config: Config) -> str:
    """Bytes that a stored frame may have, as a SQL expression over `media`: a guess by pixels and format."""
    per_pixel = {"none": 0.0, "jpeg": 0.4, "png": 2.0}[config.image_format]
    stream = "get(video_streams, 0)"
    pixels = f"coalesce({stream}.width_px * {stream}.height_px, picture.width_px * picture.height_px, 2000000)"
    side = f"least({pixels}, {config.max_side_px**2})" if config.max_side_px else pixels
    return f"300.0 + {per_pixel} * {side}"


def measure(rows: DataFrame, parents: DataFrame, config: Config) -> DataFrame:
    """Numbers for the gate that need a look across rows: steps backward in time, frozen frames, counts off."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    stream = ["media_id", "stream_index"]
    by_time = Window.partitionBy(*stream).orderBy("pts")
    steps = rows.select(
        *stream,
        (F.col("phash") == F.lag("phash").over(by_time)).alias("same"),
        (F.col("frame_index") <= F.lag("frame_index").over(by_time)).alias("backward"),
    )
    per_media = steps.groupBy("media_id").agg(
        F.count("*").alias("found"),
        F.sum(F.col("same").cast("double")).alias("same"),
        F.sum(F.col("backward").cast("double")).alias("backward"),
    )
    joined = parents.select("media_id", expected(config).alias("expected")).join(per_media, "media_id", "left")
    found = F.coalesce("found", F.lit(0))
    off = F.abs(found - F.col("expected")) > F.greatest(F.lit(2.0), 0.1 * F.col("expected"))
    return joined.agg(
        F.coalesce(F.sum("backward"), F.lit(0.0)).alias("pts_backward_steps"),
        _some_media(F.col("backward") > 0).alias("pts_backward_steps_keys"),
        F.coalesce(F.sum("same") / F.sum("found"), F.lit(0.0)).alias("frozen_share"),
        _some_media(F.col("same") > 0.5 * F.col("found")).alias("frozen_share_keys"),
        F.coalesce(F.avg(off.cast("double")), F.lit(0.0)).alias("extracted_count_off_share"),
        _some_media(off).alias("extracted_count_off_share_keys"),
    )


def _some_media(bad: SparkColumn) -> SparkColumn:
    """The ids of some media for which `bad` holds, the same ones every time."""
    from pyspark.sql import functions as F

    return F.slice(F.array_sort(F.collect_set(F.when(bad, F.col("media_id")))), 1, SHOWN_KEYS)


def expected(config: Config) -> Any:
    """Frames that the first video stream's facts promise; null where they promise nothing."""
    from pyspark.sql import functions as F

    stream = F.get("video_streams", F.lit(0))
    seconds = F.coalesce(stream["duration_s"], F.col("duration_s"))
    begin, end = (
        F.lit(float(config.start_s or 0)),
        F.least(seconds, F.lit(float(config.end_s))) if config.end_s else seconds,
    )
    counted = (end - begin) * float(config.fps) if config.fps else stream["frame_count"].cast("double")
    if config.keyframes_only or (not config.fps and (config.start_s or config.end_s)):
        counted = F.lit(None).cast("double")
    known = counted.isNotNull()
    if config.max_frames:
        counted = F.least(counted, F.lit(float(config.max_frames)))
    several = F.size("video_streams") > 1
    return F.when(F.col("kind") == "image", F.lit(1.0)).when(several, None).when(known, F.greatest(counted, F.lit(0.0)))


STAGE = Stage(
    name="extract_frames",
    summary="decode, sample and store the frames of every media",
    config=Config,
    inputs=(Input(table=media.TABLE, depends_on=("kind",)), Input(table=sources.TABLE)),
    outputs=(frames.TABLE,),
    transform=transform,
    weight=weight,
    row_bytes=row_bytes,
    measure=measure,
    unreadable=STILL_AWAY,
)


if __name__ == "__main__":
    from visionlake.jobs._submit import main

    main("extract_frames")
