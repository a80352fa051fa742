"""Where a label came from: file, frame, model, waves, gates and versions, gathered as plain data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionlake._text import clean
from visionlake.errors import UsageError
from visionlake.expectations import declaration, declared_names, detections, frames, sources
from visionlake.expectations._table import Table
from visionlake.udfs.uris import display, to_uri

from ._look_up import NEAR, NoSuchMedia, find_labels, find_media, find_pts, rows_of
from ._origin import Written, find_origins
from ._stage import StageConfig

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from ._lake import Lake

_FOUND = ("instances", "regions")
_BAD = ("stage", "producer", "reason", "message", "input_key", "output_key", "run_id", "wave_id", "at")
_NO_WAVE = (
    "no wave in `waves` says that it wrote this: its run was ended before that, and the next run will say it; or "
    "it was written by something else"
)
_SEVERAL = "one of these waves wrote it; which, the table's change feed no longer tells"


def explain(
    lake: Lake,
    media: str,
    *,
    stream: int = 0,
    pts: int | None = None,
    at_s: float | None = None,
    model: str | None = None,
    sections: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Where a frame of a media and its labels came from, as values that JSON knows; times in UTC.

    The frame is that at `pts`, that nearest to `at_s` seconds, or the one with the most objects. `model` is the
    beginning of a model's id or a name in `sections`, which gives ids by the names of sections of a pipeline; without
    it all models that looked at the frame are told of. Raises UsageError where there is no such media, frame or model.
    """
    media_id = _find_media(lake, media)
    frame = _find_frame(lake, media_id, stream=stream, pts=pts, at_s=at_s)
    pts = pts if frame is None else frame["pts"]
    bad = _quarantined(lake, media_id, stream, pts)
    near = [] if frame else _nearest(lake, media_id, stream, pts)
    if frame is None and not bad:
        raise UsageError(_no_frame(lake, media_id, stream, pts, at_s=at_s, near=near))
    labels = [] if frame is None else _labels(lake, media_id, stream, frame["pts"])
    looked = sorted({row["model_id"] for row in labels} | {row["producer"] for row in bad if _is_model(row)})
    known = _models(lake)
    chosen = looked if model is None or frame is None else _chosen(model, {*looked, *known}, looked, sections or {})
    labels = [row for row in labels if row["model_id"] in chosen]
    _add_origins(lake, media_id, [*([frame] if frame else []), *labels])
    return _plain(
        {
            "lake": display(lake.uri),
            "as_of": lake.as_of and lake.as_of.text,
            "media": _media(lake, media_id),
            "files": _files(lake, media_id),
            "stream_index": stream,
            "pts": pts,
            "frame": frame,
            "nearest_pts": near,
            "frame_problems": [row for row in bad if not _is_model(row)],
            "models": [_model(name, known.get(name), labels, bad) for name in chosen],
            "models_that_looked": looked,
        }
    )


def _find_media(lake: Lake, name: str) -> str:
    """The media of that name. What could not be read is told with its reason."""
    from pyspark.sql import functions as F

    try:
        return find_media(lake, name)
    except NoSuchMedia as error:
        if not lake.exists("quarantine"):
            raise
        uri = to_uri(name)
        is_it = (F.col("input_key") == uri) | F.col("input_key").endswith(f"/{uri.rpartition('/')[2]}")
        rows = lake.table("quarantine").where(is_it & (F.col("stage") == "ingest_media")).orderBy(F.desc("at")).head(1)
        if not rows:
            raise
        raise UsageError(f"{clean(name)} is in quarantine: {rows[0]['reason']}: {rows[0]['message']}") from error


def _find_frame(
    lake: Lake, media_id: str, *, stream: int, pts: int | None, at_s: float | None
) -> dict[str, Any] | None:
    """The row of `frames`, but for the picture; None where there is no such frame."""
    from pyspark.sql import functions as F

    if not lake.exists("frames"):
        return None
    rows = rows_of(lake, "frames", media_id, stream).drop("image")
    if at_s is not None:
        rows = rows.where("pts_s IS NOT NULL").orderBy(F.abs(F.col("pts_s") - at_s), "pts")
    elif pts is not None:
        rows = rows.where(F.col("pts") == pts)
    elif rows.isEmpty():
        return None
    else:
        rows = rows.where(F.col("pts") == find_pts(rows, find_labels(lake, media_id, stream, None, ()), None))
    found = rows.limit(1).collect()
    return found[0].asDict(recursive=True) if found else None


def _nearest(lake: Lake, media_id: str, stream: int, pts: int | None) -> list[int]:
    """Times of frames that there are, those near `pts` first."""
    from pyspark.sql import functions as F

    if not lake.exists("frames"):
        return []
    rows = rows_of(lake, "frames", media_id, stream).select("pts")
    order = F.col("pts") if pts is None else F.abs(F.col("pts") - pts)
    return [row["pts"] for row in rows.orderBy(order, "pts").limit(NEAR).collect()]


def _no_frame(
    lake: Lake, media_id: str, stream: int, pts: int | None, *, at_s: float | None, near: Sequence[int]
) -> str:
    """What to say where there is neither a frame nor a reason for it: what there is."""
    from pyspark.sql import functions as F

    if near and at_s is not None:
        return f"no frame in stream {stream} of this media has a time in seconds; give its pts, for example {near[0]}"
    if near:
        return f"no frame at pts {pts}; the nearest are: {', '.join(map(str, near))}"
    if lake.exists("frames"):
        mine = lake.table("frames").where(F.col("media_id") == media_id)
        streams = sorted(row["stream_index"] for row in mine.select("stream_index").distinct().collect())
        if streams:
            return f"no frames in stream {stream} of this media; there are some in {', '.join(map(str, streams))}"
    return "this media has no frames, and nothing in quarantine: none were extracted yet"


def _quarantined(lake: Lake, media_id: str, stream: int, pts: int | None) -> list[dict[str, Any]]:
    """Rows in quarantine of the frame, and those of the whole media that tell of no frame."""
    from pyspark.sql import functions as F

    if not lake.exists("quarantine"):
        return []
    frame = f"{media_id}/{stream}/{pts}"
    of_media = (F.col("input_key") == media_id) & (F.col("output_key").isNull() | F.col("output_key").eqNullSafe(frame))
    rows = lake.table("quarantine").where((F.col("input_key") == frame) | of_media).select(*_BAD)
    found = [row.asDict() for row in rows.orderBy("stage", "producer", "reason").collect()]
    ids = {row["wave_id"] for row in found} - {None}
    waves: dict[str, dict[str, Any]] = {}
    if ids and lake.exists("waves"):
        told = lake.table("waves").where(F.col("wave_id").isin(*ids)).collect()
        waves = {wave["wave_id"]: _wave(wave.asDict(recursive=True)) for wave in told}
    return [{**row, "wave": waves.get(row["wave_id"])} for row in found]


def _labels(lake: Lake, media_id: str, stream: int, pts: int) -> list[dict[str, Any]]:
    """What models found in the frame, by label; no boxes and no masks."""
    found = []
    for name in declared_names():
        table = declaration(name)
        if isinstance(table, Table) and table.key == detections.TABLE.key and lake.exists(name):
            rows = rows_of(lake, name, media_id, stream).where(f"pts = {pts}")
            found += [_label(name, row.asDict(recursive=True)) for row in _summed_up(rows).collect()]
    return sorted(found, key=lambda row: (row["model_id"], row["table"]))


def _summed_up(rows: DataFrame) -> DataFrame:
    """Rows without what is large: of what was found just names and scores."""
    from pyspark.sql import functions as F

    kinds = {field.name: field.dataType for field in rows.schema.fields}
    plain = [name for name, kind in kinds.items() if kind.typeName() not in ("array", "binary", "map", "struct")]
    lists = []
    for name in _FOUND:
        if name in kinds:
            inner = getattr(kinds[name], "elementType", None)
            names = [part for part in ("label", "score") if part in getattr(inner, "names", ())]
            lists.append(F.transform(name, _struct_of(names)).alias(name))
    return rows.select(*plain, *lists)


def _struct_of(names: Sequence[str]) -> Callable[[Column], Column]:
    from pyspark.sql import functions as F

    return lambda one: F.struct(*(one[name].alias(name) for name in names))


def _label(table: str, row: dict[str, Any]) -> dict[str, Any]:
    found = [one for name in _FOUND for one in row.pop(name, None) or ()]
    scores = [one["score"] for one in found if one.get("score") is not None]
    counts = Counter(str(one.get("label")) for one in found)
    return {
        "table": table,
        **row,
        "count": len(found),
        "count_by_label": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "top_score": max(scores, default=None),
    }


def _models(lake: Lake) -> dict[str, dict[str, Any]]:
    """What is known of all models that ever labelled, by their id."""
    if not lake.exists("models"):
        return {}
    return {row["model_id"]: row.asDict(recursive=True) for row in lake.table("models").collect()}


def _chosen(model: str, known: Iterable[str], looked: Sequence[str], sections: Mapping[str, str]) -> list[str]:
    """The ids that a name means: a section's, or those that begin so, rather ones that looked at the frame."""
    wanted = sections.get(model, model)
    begins = [name for name in sorted(known) if name.startswith(wanted)]
    chosen = [name for name in begins if name in looked] or begins or [wanted] * (model in sections)
    if not chosen:
        there = ", ".join(looked) or "none"
        raise UsageError(f"no model {clean(model)}; those that looked at this frame: {there}")
    return chosen


def _is_model(bad: Mapping[str, Any]) -> bool:
    """Whether a row in quarantine is a model's: other stages are their own producers."""
    return bad["stage"] != bad["producer"]


def _model(
    name: str, facts: Mapping[str, Any] | None, labels: Sequence[dict[str, Any]], bad: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One model with its rows for the frame."""
    rows = [row for row in labels if row["model_id"] == name]
    problems = [row for row in bad if row["producer"] == name]
    note = None if rows or problems else "it has not looked at this frame"
    return {**(facts or {"model_id": name}), "labels": rows, "quarantined": problems, "note": note}


def _add_origins(lake: Lake, media_id: str, rows: Sequence[dict[str, Any]]) -> None:
    """Tell each row of the frame, and of its labels, which wave wrote it."""
    written = []
    for row in rows:
        table = row.get("table", "frames")
        key = detections.TABLE.key if "model_id" in row else frames.TABLE.key
        written.append(
            Written(
                table=table, input_table="frames" if "model_id" in row else "media",
                key={name: row[name] for name in key}, input_version=row.get("input_version"),
                producer=row.get("model_id"), run_id=row.get("run_id"),
            )
        )  # fmt: skip
    for row, waves in zip(rows, find_origins(lake, media_id, written), strict=True):
        row["wave"] = _wave(waves[0]) if len(waves) == 1 else None
        is_open = len(waves) > 1
        row["wave_candidates"] = [wave["wave_id"] for wave in waves] if is_open else []
        row["wave_note"] = _SEVERAL if is_open else None if waves else _NO_WAVE


def _wave(wave: dict[str, Any]) -> dict[str, Any]:
    """A wave's row, with the settings that somebody set of what its stage does."""
    config = json.loads(wave["config"] or "{}")
    chosen = {n: v for n, v in config.items() if n not in StageConfig.model_fields and v not in (None, [], {})}
    left_out = ("config", "model", "parent_key")
    return {**{name: value for name, value in wave.items() if name not in left_out}, "settings": chosen}


def _media(lake: Lake, media_id: str) -> dict[str, Any]:
    from pyspark.sql import functions as F

    names = ("media_id", "kind", "container", "size_bytes", "duration_s", "captured_at", "captured_local")
    if not lake.exists("media"):
        return {"media_id": media_id}
    rows = lake.table("media").where(F.col("media_id") == media_id).select(*names).collect()
    return rows[0].asDict() if rows else {"media_id": media_id}


def _files(lake: Lake, media_id: str) -> list[dict[str, Any]]:
    """Where the content lay, present files first; `manifest` holds the columns of manifests."""
    from pyspark.sql import functions as F

    rows = lake.table("sources").where(F.col("media_id") == media_id)
    found = []
    for row in rows.orderBy(F.col("state") != "present", "first_seen", "uri").collect():
        values = row.asDict(recursive=True)
        manifest = {name: values.pop(name) for name in [*values] if name not in sources.TABLE.column_names}
        found.append({**values, "manifest": manifest})
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it; times in UTC."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):  # without a zone, as Spark gives it, it is in that of this machine
        return value.astimezone(UTC).isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
