"""What Python code and notebooks call: run a pipeline, extract frames without a lake, look at frames."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from visionlake.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from visionlake.jobs._config import Pipeline
    from visionlake.jobs._results import Reporter, RunResult

T = TypeVar("T", bound=BaseModel)

_CAPTION = ("media_id", "stream_index", "pts_s", "label")
_AS_TEXT = ("bigint", "double", "float")
_PICTURE_TYPES = {b"\x89PNG": "image/png", b"RIFF": "image/webp"}


def run(
    pipeline: str | Path | Pipeline,
    *,
    spark: SparkSession | None = None,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
    first: str | None = None,
    last: str | None = None,
    limit: int | None = None,
    rebuild: bool = False,
    reporter: Reporter | None = None,
) -> RunResult:
    """Run a pipeline file: every stage, or those named (`only`; from `first` to `last`), on what is new.

    `overrides` are texts like "extract_frames.fps=2"; `limit` bounds the media of this run; `rebuild` processes
    everything again. Without `spark` the active session is used, or a local one started. A gate that stops is no
    exception: look at the result. Raises ConfigError and UsageError.
    """
    from visionlake._reporter import TerminalReporter
    from visionlake._run import nouns
    from visionlake._terminal import make_console
    from visionlake.jobs import _pipeline
    from visionlake.jobs._config import Pipeline, load_pipeline
    from visionlake.jobs._session import get_session

    if not isinstance(pipeline, Pipeline):
        pipeline = load_pipeline(pipeline, overrides=overrides)
    elif overrides:
        raise UsageError("overrides go with the path of a pipeline file; this pipeline is loaded already")
    pipeline.choose(only=only, first=first, last=last)
    spark = spark or get_session(settings=pipeline.spark)
    options: dict[str, Any] = {"only": only, "first": first, "last": last, "limit": limit, "rebuild": rebuild}
    if reporter is not None:
        return _pipeline.run(pipeline, spark=spark, reporter=reporter, **options)
    with TerminalReporter(make_console(stderr=True), nouns=nouns(pipeline)) as shown:
        return _pipeline.run(pipeline, spark=spark, reporter=shown, **options)


def extract_frames(df: DataFrame, **settings: Any) -> DataFrame:
    """Frames of the files that the column `uri` of `df` names (paths or URIs), without lake or gates.

    `settings` are those of `[extract_frames]`, for example `fps=5`. Returns the columns of `frames`, the
    `uri`, and `error`, a struct that is not null in a row that says what could not be read. Every evaluation decodes
    again: write the result. Raises UsageError for a setting or a table that does not fit.
    """
    from visionlake.jobs.extract_frames import Config, decode

    if "uri" not in df.columns:
        raise UsageError(f"the table has no column uri; it has {', '.join(df.columns)}")
    config = _checked(Config, settings)
    # Rows are few and files are large: as many tasks as the session shuffles into, whatever files the rows came from.
    tasks = int(df.sparkSession.conf.get("spark.sql.shuffle.partitions") or 200)
    return decode(df.select("uri").repartition(tasks), config, passed=("uri",))


def detect_objects(df: DataFrame, **settings: Any) -> DataFrame:
    """Objects in the pictures (JPEG, PNG, WebP) that the column `image` of `df` holds, without lake or gates.

    `settings` are those of `[detect_objects.<name>]`, for example `weights="model.pt2"`. Returns the other columns of
    `df`, those of `detections`, and `error`, a struct that is not null where a picture cannot be read. Every evaluation
    runs the model again: write the result. Raises UsageError for a setting or a table that does not fit.
    """
    from pyspark.sql import functions as F

    from visionlake.expectations._table import Column
    from visionlake.jobs.detect_objects import Config, detect, pin

    if settings.get("select") is not None:
        raise UsageError("select chooses among the frames of a lake; here, choose among the rows of the table itself")
    types = {field.name: field.dataType.simpleString() for field in df.schema.fields}
    if types.get("image") != "binary":
        what = f"its column image is {types['image']}" if "image" in types else f"it has {', '.join(types)}"
        raise UsageError(f"the table wants a column image of type binary, the bytes of a JPEG, PNG or WebP; {what}")
    del types["image"]
    if clash := sorted({*types} & {"model_id", "frame_width_px", "frame_height_px", "instances", "error"}):
        raise UsageError(f"the table has {', '.join(clash)}, as the result will have: rename or drop what it has")
    if isinstance(weights := settings.get("weights"), str | Path):
        settings["weights"] = str(Path(weights).expanduser().absolute())  # workers have folders of their own
    # pandas has no null among integers and takes NaN for null: as text both come through. Names may hold anything.
    columns = {f"c{place}": (name, kind) for place, (name, kind) in enumerate(types.items())}
    carried = {new: "string" if kind in _AS_TEXT else kind for new, (_, kind) in columns.items()}
    table = df.select(
        "image", *(F.col(_quoted(columns[new][0])).cast(kind).alias(new) for new, kind in carried.items())
    )
    passed = [Column(name=new, type=kind, comment="passed through") for new, kind in carried.items()]
    found = detect(table, pin(_checked(Config, settings)), passed=passed)
    return found.select(
        *(F.col(new).cast(kind).alias(name) for new, (name, kind) in columns.items()), *found.columns[len(columns) :]
    )


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``')}`"


def _checked(model: type[T], settings: dict[str, Any]) -> T:
    """The settings as a stage's configuration. Raises UsageError."""
    from visionlake.jobs._fields import describe_field
    from visionlake.jobs._stages import one_of

    try:
        return model(**settings)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        fields = model.model_fields
        if name in fields:
            allowed = f"allowed is {describe_field(fields[name])}"
        else:
            allowed = f"unknown setting; {one_of(name, sorted(fields))}"
        raise UsageError(f"{name} = {settings.get(name)!r}: {allowed}") from None


@dataclass(frozen=True)
class FrameGrid:
    """Pictures with captions, as a notebook shows them."""

    pictures: tuple[tuple[bytes, str], ...]
    width_px: int

    def _repr_html_(self) -> str:
        cells = (
            f'<figure style="margin:0;width:{self.width_px}px">'
            f'<img style="width:100%" src="data:{_picture_type(image)};base64,{base64.b64encode(image).decode()}">'
            f'<figcaption style="font:11px monospace">{html.escape(caption)}</figcaption></figure>'
            for image, caption in self.pictures
        )
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(cells)}</div>'

    def save(self, path: str | Path) -> None:
        """Write the grid as an HTML file that holds its pictures."""
        page = f'<!doctype html><meta charset="utf-8"><title>frames</title>{self._repr_html_()}\n'
        Path(path).write_text(page, encoding="utf-8")


def show_frames(df: DataFrame, *, limit: int = 12, width_px: int = 240) -> FrameGrid:
    """The first frames of `df` that hold a picture (column `image`), for a notebook to show inline.

    Pictures are not decoded here: the browser does that. Raises UsageError where there is no such column.
    """
    if "image" not in df.columns:
        raise UsageError(f"the table has no column image; it has {', '.join(df.columns)}")
    named = [name for name in _CAPTION if name in df.columns]
    rows = df.where("image IS NOT NULL").select("image", *named).limit(limit).collect()
    pictures = tuple((bytes(row["image"]), " ".join(_short(row[name]) for name in named)) for row in rows)
    return FrameGrid(pictures, width_px)


def _short(value: object) -> str:
    return f"{value:.3f} s" if isinstance(value, float) else str(value)[:12]


def _picture_type(image: bytes) -> str:
    return _PICTURE_TYPES.get(image[:4], "image/jpeg")
