"""What files say of a picture, and the media that it turned out to be, become a row of `annotations`, or errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from . import uris
from ._errors import MediaError
from .annotation_shapes import Canvas, ShapeError, instances
from .frame_times import FrameTimes
from .frame_types import Limits
from .ontology import Ontology
from .upright import UPRIGHT, Orientation, from_exif, from_turn

Turn = Literal["auto", "upright", "stored"]
_PAYLOAD_CHARACTERS = 2000
_BATCH_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Width and height of the pixels as they are stored, and how they are turned upright."""

    size: tuple[int, int]
    turn: Orientation


class _PictureError(Exception):
    """Nothing of this picture can be used."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """How annotations are taken: for which source, under whose labels, and how the pictures lay that they are of."""

    source: str
    ontology: Ontology | None = None
    turn: Turn = "auto"
    limits: Limits = field(default_factory=Limits)


def place_annotations(
    batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, options: PlaceOptions
) -> Iterator[pa.RecordBatch]:
    """Rows of `schema` (`annotations`, a struct, or `error` with its `output_key`) for pictures with all said of them.

    In: `items` (structs of uri, place, kind and body, see `read_annotations`, in order), the media that the picture is
    of (`media_id`, `kind`, `still` and `video_streams` as table `media` has them, its places as `find_place` takes
    them; rows of one media one after the other), and `frame_index`, or `stream_index` and `pts`; or `reason` and
    `message` of why there is none.
    """
    rows: list[dict[str, Any]] = []
    times = FrameTimes(limits=options.limits)
    for batch in batches:
        for group in batch.to_pylist():
            rows += ({"source": options.source, **row} for row in _rows(group, times, options))
            if len(rows) >= _BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema=schema)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=schema)


def _rows(group: Mapping[str, Any], times: FrameTimes, options: PlaceOptions) -> list[dict[str, Any]]:
    said: dict[str, list[tuple[Mapping[str, Any], dict[str, Any]]]] = {"picture": [], "shape": [], "problem": []}
    for item in group["items"]:
        said[item["kind"]].append((item, json.loads(item["body"])))
    rows = [_told(item, problem) for item, problem in said["problem"]]
    if any(problem.get("is_whole") for _, problem in said["problem"]):
        return rows
    shapes = [(item, shape) for item, shape in said["shape"]]
    try:
        first, picture = _the_picture(said["picture"], shapes)
    except _PictureError as error:
        about = said["picture"] or shapes
        return [*rows, *(_bad(item, values, error.reason, error.message) for item, values in about)]
    if first is None or picture is None:
        return rows
    again = [_bad(item, twin, "duplicate_id", "there is another picture with this id before it")
             for item, twin in said["picture"][1:]]  # fmt: skip
    try:
        row, bad = _annotated(group, first, picture, shapes, times, options)
    except _PictureError as error:
        count = f"; {len(shapes)} annotations on it" if shapes else ""
        return [*rows, *again, _bad(first, picture, error.reason, error.message + count)]
    return [{"annotations": row}, *rows, *again, *bad]


def _the_picture(
    pictures: list[tuple[Mapping[str, Any], dict[str, Any]]], shapes: list[Any]
) -> tuple[Mapping[str, Any] | None, dict[str, Any] | None]:
    if not pictures and shapes:
        raise _PictureError("picture_unknown", "the file lists no such picture, or nothing usable about it")
    if len({picture["name"] for _, picture in pictures}) > 1:
        names = ", ".join(sorted({picture["name"] for _, picture in pictures})[:5])
        raise _PictureError("duplicate_id", f"several pictures have this id: {names}; which one is meant is not known")
    return pictures[0] if pictures else (None, None)


def _annotated(
    group: Mapping[str, Any],
    item: Mapping[str, Any],
    picture: Mapping[str, Any],
    shapes: list[tuple[Mapping[str, Any], dict[str, Any]]],
    times: FrameTimes,
    options: PlaceOptions,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A row of `annotations`, and the shapes that are left out of it. Raises _PictureError."""
    if group["reason"]:
        raise _PictureError(group["reason"], group["message"])
    stream_index, pts = _time(group, times)
    canvas = _canvas(_lying(group, stream_index), picture, options.turn, is_stored_frame=group.get("pts") is not None)
    items = {id(shape): item for item, shape in shapes}
    found, bad = [], []
    for shape, result in instances([shape for _, shape in shapes], canvas):
        if isinstance(result, ShapeError):
            bad.append(_bad(items[id(shape)], shape, result.reason, result.message, on=picture["name"]))
            continue
        named = _renamed(result, options.ontology)
        if isinstance(named, str):
            bad.append(_bad(items[id(shape)], shape, "label_unknown", named, on=picture["name"]))
        elif named is not None:
            found.append(named)
    width, height = canvas.upright_size
    row = {
        "media_id": group["media_id"],
        "stream_index": stream_index,
        "pts": pts,
        "source": options.source,
        "annotator": picture.get("annotator"),
        "uri": item["uri"],
        "image_name": picture["name"],
        "full_width_px": width,
        "full_height_px": height,
        "instances": found,
        "attributes": [*picture.get("attributes", {}).items()],
    }
    return row, bad


def _time(group: Mapping[str, Any], times: FrameTimes) -> tuple[int, int]:
    """Stream and pts. Raises _PictureError."""
    number, is_video = group["frame_index"], group["kind"] == "video"
    if group.get("pts") is not None:
        return _checked(group, times)
    if not is_video:
        if number is not None:
            raise _PictureError("not_a_video", f"frame {number}, but the media is a still; is it a video of that name?")
        return 0, 0
    if number is None:
        raise _PictureError("frame_number_missing", "the media is a video, and no frame of it is named")
    try:
        return times.of(group, number)
    except MediaError as error:
        raise _PictureError(error.reason, error.message) from None


def _checked(group: Mapping[str, Any], times: FrameTimes) -> tuple[int, int]:
    """Stream and pts of a frame that is named by these. Raises _PictureError where there is no such frame."""
    stream_index, pts = group["stream_index"], group["pts"]
    try:
        is_there = times.has(group, stream_index, pts) if group["kind"] == "video" else (stream_index, pts) == (0, 0)
    except MediaError as error:
        raise _PictureError(error.reason, error.message) from None
    if not is_there:
        raise _PictureError("frame_missing", f"stream {stream_index} has no frame with the pts {pts}")
    return stream_index, pts


def _lying(group: Mapping[str, Any], stream_index: int) -> _Stored:
    """How the pixels of a media lie as they are stored. Raises _PictureError."""
    if picture := group["still"]:
        stored, turn = picture, from_exif(picture["exif_orientation"] or 1)
    else:
        stored = next((each for each in group["video_streams"] if each["stream_index"] == stream_index), {})
        turn = from_turn(stored.get("rotation_deg") or 0, is_mirrored=bool(stored.get("is_mirrored")))
    width, height = stored.get("width_px"), stored.get("height_px")
    if width is None or height is None:
        raise _PictureError("size_unknown", "the media's size is not known")
    return _Stored(size=(width, height), turn=turn)


def _canvas(lies: _Stored, picture: Mapping[str, Any], turn: Turn, *, is_stored_frame: bool) -> Canvas:
    """The picture that coordinates are of: as it is stored, or turned upright. Raises _PictureError."""
    sizes = {"stored": lies.size, "upright": lies.turn.size(*lies.size)}
    said: tuple[Any, Any] = (picture.get("width_px"), picture.get("height_px"))
    if is_stored_frame and None not in said:  # of the table `frames`: upright, and maybe smaller
        width, height = sizes["upright"]
        if abs(said[1] * width - said[0] * height) > max(width, height):  # beyond what is due to rounding
            raise _misfit(said, sizes)
        scale, drawn = (width / said[0], height / said[1]), None if said == (width, height) else said
        return Canvas(width_px=width, height_px=height, turn=UPRIGHT, scale=scale, drawn_px=drawn)
    if None in said:
        # Shares, and pixels without a size beside them, come from tools that turn a picture as they open it.
        kind = "stored" if turn == "stored" and not is_stored_frame else "upright"
    else:
        fitting = [kind for kind in (("stored", "upright") if turn == "auto" else (turn,)) if sizes[kind] == said]
        if not fitting:
            raise _misfit(said, sizes)
        kind = fitting[0]
    width, height = sizes[kind]
    scale = (float(width), float(height)) if picture.get("unit") == "share" else (1.0, 1.0)
    return Canvas(width_px=width, height_px=height, turn=lies.turn if kind == "stored" else UPRIGHT, scale=scale)


def _misfit(said: tuple[Any, Any], sizes: Mapping[str, tuple[int, int]]) -> _PictureError:
    shown = ", ".join(f"{width} x {height} {kind}" for kind, (width, height) in sizes.items())
    return _PictureError("size_mismatch", f"annotated at {said[0]} x {said[1]} px, but the media is {shown}")


def _renamed(instance: dict[str, Any], ontology: Ontology | None) -> dict[str, Any] | str | None:
    """The instance with the project's label, None where that is dropped, or what is wrong with it."""
    if ontology is None:
        return instance
    label = instance["label"]
    meant = dict(ontology.aliases).get(label, label)
    if label in ontology.drop:
        return None
    if meant not in ontology.classes:
        return f"the ontology says nothing of {label!r}: give it a class in aliases, add it to classes, or drop it"
    return {**instance, "label": meant, "label_id": ontology.classes.index(meant)}


def _told(item: Mapping[str, Any], problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem that the reader has found. That of a whole file names it already."""
    text = problem["message"] if problem.get("is_whole") else f"{_file_name(item)}: {problem['message']}"
    return _error(item, problem["reason"], text, problem.get("payload"))


def _bad(
    item: Mapping[str, Any], values: Mapping[str, Any], reason: str, message: str, *, on: str | None = None
) -> dict[str, Any]:
    """An error of a picture, or of a shape `on` one."""
    annotation = f"annotation {values['id']}" if "id" in values else None
    words = (_file_name(item), on or values.get("name"), annotation, message)
    text = ": ".join(word for word in words if word)
    return _error(item, reason, text, json.dumps(values, ensure_ascii=False)[:_PAYLOAD_CHARACTERS])


def _file_name(item: Mapping[str, Any]) -> str:
    return uris.inner_path(item["uri"]).rpartition("/")[2].encode("utf-8", "replace").decode("utf-8")


def _error(item: Mapping[str, Any], reason: str, message: str, said: str | None) -> dict[str, Any]:
    place = {"uri": item["uri"], "place": item["place"], "said": said}
    payload = json.dumps(place, ensure_ascii=False)
    return {
        "output_key": f"{item['uri']}#{item['place']}",
        "error": {"reason": reason, "message": message, "payload": payload},
    }
