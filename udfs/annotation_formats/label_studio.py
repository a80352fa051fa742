"""Label Studio's JSON export: a list of tasks, each with the annotations that people have made of it.

The format is what https://labelstud.io/guide/task_format describes. Coordinates there are per cent of the original
picture, here pixels from its left and upper edge. The file is read as a stream, a task at a time.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO
from urllib.parse import unquote

import ijson
import numpy as np
import numpy.typing as npt

from .. import uris
from ..annotation_types import AnnotationError, Box, Picture, Problem, Runs, Said, Shape
from ..rle import encode_mask
from ._json_numbers import quote_non_numbers

FILES: tuple[str, ...] = ("*.json",)
MAX_TASK_BYTES = 16 << 20
"""So much text may a task have. Parsed, it takes up to 35 times of that."""
MAX_DEPTH = 64
"""So deep may lists and objects be nested in a task."""
MAX_BRUSH_VALUES = 400_000_000
"""So many values may a brush mask have, four to a pixel."""

_CHUNK_BYTES = 64 << 10
_PAYLOAD_CHARACTERS = 2000
_MAX_NAME_CHARACTERS = 4096
_SUPPORTED = ("rectanglelabels", "polygonlabels", "brushlabels", "rectangle", "polygon", "brush")
# What people say of a region or of the whole picture; of a region it repeats the coordinates.
_REMARKS = frozenset({"choices", "labels", "textarea", "rating", "number", "taxonomy", "datetime", "pairwise"})
_COORDINATES = frozenset({"x", "y", "points", "vertices", "sequence", "rle", "imageDataURL", "start"})
_GEOMETRY = _COORDINATES | {"width", "height", "rotation", "closed", "format"}
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
# Where Label Studio serves a file from that was uploaded, or that lies in a folder of its own machine.
_UPLOAD = re.compile(r"(?:https?://[^/?#]+)?/(?:[^?#]*/)?data/upload/(?:[0-9]+/)?(?:[0-9a-f]{8}-)?([^/?#]+)(?:[?#].*)?")
_LOCAL_FILE = re.compile(r"[^?#]*/data/local-files/?\?(?:[^#]*&)?d=([^&#]*).*")


class _Invalid(Exception):
    """Something cannot be used; `reason` becomes that of the Problem."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class _About:
    """What the results of an annotation have in common, and what some say of the regions of others, by region id.

    What they say of no region, or of none that there is, is said of the picture: it stands under None.
    """

    picture: str
    size: tuple[int, int] | None
    regions: frozenset[str | None]
    labels: Mapping[str | None, list[Any]]
    remarks: Mapping[str | None, Mapping[str, str]]


def read(uri: str) -> Iterator[Said]:
    """What a file says: a picture for each annotation of a task, by its annotator, and shapes on it in pixels.

    Annotations that were cancelled, and predictions, are left out. Raises AnnotationError, OSError.
    """
    with uris.open_input(uri) as stream:
        for number, task in enumerate(_tasks(stream)):
            yield from _task(uri, number, task)


class _Metered:
    """A stream that ends with an error where a task does not end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._parts = quote_non_numbers(self._chunks())
        self.task_bytes = 0
        self.is_blank = True

    def read(self, size: int = -1) -> bytes:
        """The next part of the file, of whatever size, and nothing after its end; to read no byte gives none."""
        return next((part for part in self._parts if part), b"") if size else b""

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._stream.read(_CHUNK_BYTES):
            self.task_bytes += len(chunk)
            self.is_blank = self.is_blank and not chunk.strip()
            if self.task_bytes > MAX_TASK_BYTES:
                raise AnnotationError("too_large", f"a task is larger than the {MAX_TASK_BYTES} bytes that are allowed")
            yield chunk


def _tasks(stream: BinaryIO) -> Iterator[Any]:
    stream.seek(len(codecs.BOM_UTF8) if stream.read(3) == codecs.BOM_UTF8 else 0)
    metered = _Metered(stream)
    events: Any = ijson.basic_parse(metered, use_float=True)
    try:
        if next(events)[0] != "start_array":
            raise AnnotationError(
                "not_label_studio", "its top level is no list; a list of tasks is expected, as the export `JSON` has it"
            )
        for event, value in events:
            if event == "end_array":
                break
            metered.task_bytes = 0
            yield _value(event, value, events, 0)
        for _ in events:  # says so if something follows
            pass
    except UnicodeDecodeError:
        raise AnnotationError("not_text", "it has text that is none, such as half of a surrogate pair") from None
    except ijson.JSONError as error:
        if metered.is_blank:
            raise AnnotationError("empty_file", "it is empty; a list of tasks is expected") from None
        raise _not_json(error) from None


def _value(event: str, value: Any, events: Iterator[tuple[str, Any]], depth: int) -> Any:
    if event not in ("start_array", "start_map"):
        return value
    if depth == MAX_DEPTH:
        raise AnnotationError("nested_too_deep", f"lists or objects are nested deeper than the allowed {MAX_DEPTH}")
    if event == "start_map":
        found: dict[str, Any] = {}
        for event, key in events:
            if event == "end_map":
                break
            found[key] = _value(*next(events), events, depth + 1)
        return found
    items: list[Any] = []
    for event, item in events:
        if event == "end_array":
            break
        # Nearly all of a brush mask are numbers, and a call for each would take long.
        items.append(item if event == "number" else _value(event, item, events, depth + 1))
    return items


def _not_json(error: Exception) -> AnnotationError:
    said = error.args[0] if error.args else ""
    text = said.decode("utf-8", "backslashreplace") if isinstance(said, bytes) else str(said)
    what = text.partition("\n")[0]
    if "premature EOF" in what:
        return AnnotationError("truncated", "it ends, but its JSON goes on; copy it again")
    if "UTF8" in what:
        return AnnotationError("not_text", f"it is not UTF-8: {what}")
    if "overflow" in what:
        return AnnotationError("number_too_large", f"{what}; allowed are whole numbers of 64 bits, and doubles")
    return AnnotationError("not_json", f"it is not JSON: {what}")


def _task(uri: str, number: int, task: Any) -> Iterator[Said]:
    annotations = task.get("annotations", task.get("completions")) or [] if isinstance(task, dict) else None
    if not isinstance(annotations, list) or not isinstance(task.get("data"), dict):
        yield Problem(
            reason="task_invalid",
            message=f"task {number} is none; allowed are objects with data and a list of annotations, as the export "
            "`JSON` (not `JSON-MIN`) gives them",
            payload=_payload(task),
        )
        return
    for place, annotation in enumerate(annotations):
        if isinstance(annotation, dict) and annotation.get("was_cancelled"):
            continue
        own = annotation.get("id") if isinstance(annotation, dict) else None
        # Numbers in brackets are places in the file, of what has no id.
        name = f"{_id(task.get('id')) or f'[{number}]'}/{_id(own) or f'[{place}]'}"
        yield from _annotation(f"{uri}#{name}", name, task["data"], annotation)


def _annotation(key: str, name: str, data: Mapping[str, Any], annotation: Any) -> Iterator[Said]:
    try:
        results = _results(annotation)
        about = _about(key, results)
        yield Picture(
            key=key,
            name=_picture_name(data),
            width_px=about.size[0] if about.size else None,
            height_px=about.size[1] if about.size else None,
            annotator=_annotator(annotation.get("completed_by")),
            attributes=about.remarks.get(None, {}),
        )
    except _Invalid as error:
        yield Problem(
            reason=error.reason, message=f"annotation {name}: {error}", picture=key, payload=_payload(annotation)
        )
        return
    for result in results:
        region = _id(result.get("id"))
        try:
            yield from _shapes(result, about, None if region is None else f"{name}/{region}")
        except _Invalid as error:
            yield Problem(
                reason=error.reason,
                message=f"annotation {name}, region {region}: {error}",
                picture=key,
                payload=_payload(result),
            )


def _results(annotation: Any) -> list[dict[str, Any]]:
    results = annotation.get("result") if isinstance(annotation, dict) else None
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise _Invalid("annotation_invalid", "it is none; allowed are objects with a list `result` of objects")
    return results


def _about(key: str, results: list[dict[str, Any]]) -> _About:
    regions = frozenset(_id(each.get("id")) for each in results if not _is_remark(each)) - {None}
    labels: dict[str | None, list[Any]] = {}
    remarks: dict[str | None, dict[str, str]] = {}
    relations: dict[str | None, list[dict[str, Any]]] = {}
    for each in filter(_is_remark, results):
        of = each.get("from_id") if _kind(each) == "relation" else each.get("id")
        region = own if (own := _id(of)) in regions else None
        if _kind(each) == "relation":
            relations.setdefault(region, []).append({name: each[name] for name in each if name != "type"})
        elif region and _kind(each) == "labels":
            labels.setdefault(region, []).extend(_list(_content(each).get("labels")))
        elif not _is_lost(each, regions):
            name = _id(each.get("from_name")) or _kind(each) or "remark"
            remarks.setdefault(region, {})[name] = _remark(_content(each))
    for region, each in relations.items():
        remarks.setdefault(region, {})["relations"] = _payload(each, MAX_TASK_BYTES)
    return _About(picture=key, size=_size(results), regions=regions, labels=labels, remarks=remarks)


def _is_remark(result: Mapping[str, Any]) -> bool:
    kind = _kind(result)
    return kind in _REMARKS or (kind not in _SUPPORTED and _COORDINATES.isdisjoint(_content(result)))


def _is_lost(result: Mapping[str, Any], regions: Collection[str | None]) -> bool:
    """Whether they are labels of a region that is not there."""
    is_there = _id(result.get("id")) in regions
    return _kind(result) == "labels" and not is_there and not _COORDINATES.isdisjoint(_content(result))


def _remark(value: Mapping[str, Any]) -> str:
    said = {name: value[name] for name in value if name not in _GEOMETRY}
    return _text(said) if len(said) > 1 else "".join(map(_text, said.values()))


def _text(value: Any) -> str:
    """Plain values as text, those of a list with a comma between, and anything else as JSON."""
    values = _list(value)
    if all(isinstance(each, (str, int, float)) for each in values):
        return ",".join(each if isinstance(each, str) else json.dumps(each) for each in values)
    return json.dumps(value, ensure_ascii=False)


def _size(results: list[dict[str, Any]]) -> tuple[int, int] | None:
    """Width and height of the original as the results have it, None where none does. Raises _Invalid."""
    told = [(each.get("original_width"), each.get("original_height")) for each in results]
    sizes = {(_side(width), _side(height)) for width, height in told if (width, height) != (None, None)}
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise _Invalid("size_invalid", f"its regions are of pictures of {shown}; allowed is one size")
    return sizes.pop() if sizes else None


def _side(value: Any) -> int:
    if type(value) not in (int, float) or value < 1 or value != int(value):
        raise _Invalid(
            "size_invalid",
            f"original_width or original_height is {_shown(value)}; allowed are whole numbers above 0",
        )
    return int(value)


def _picture_name(data: Mapping[str, Any]) -> str:
    if "image" in data:
        found = [data["image"]]
    else:
        texts = [value for value in data.values() if isinstance(value, str)]
        found = [text for text in texts if _own_name(text).partition("?")[0].lower().endswith(_PICTURE_SUFFIXES)]
    if len(found) != 1 or not isinstance(found[0], str) or not found[0].strip():
        raise _Invalid(
            "name_missing", f"the task's data is {_shown(data)}; allowed is one picture, as text under `image`"
        )
    return _safe(_own_name(found[0]))


def _own_name(text: str) -> str:
    """The name that a picture had before it came to Label Studio; others as they are."""
    own = _LOCAL_FILE.fullmatch(text) or _UPLOAD.fullmatch(text)
    return unquote(own[1]) if own else text


def _safe(name: str) -> str:
    is_path = not _URL.match(name)
    if is_path and not name:
        raise _Invalid("name_missing", "the picture's name is empty; allowed are URLs and relative paths")
    if len(name) > _MAX_NAME_CHARACTERS or (is_path and (_ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name))):
        raise _Invalid(
            "name_unsafe",
            f"the picture's name is {_shown(name)}; allowed are URLs, and relative paths without .., of up to "
            f"{_MAX_NAME_CHARACTERS} characters",
        )
    return name


def _annotator(value: Any) -> str | None:
    """Who it was: an account's number as text, or the email of an object."""
    return _id(value.get("email")) or _id(value.get("id")) if isinstance(value, dict) else _id(value)


def _shapes(result: dict[str, Any], about: _About, shape_id: str | None) -> Iterator[Shape]:
    kind, value, region = _kind(result), _content(result), _id(result.get("id"))
    if kind not in _SUPPORTED:
        if _is_remark(result) and not _is_lost(result, about.regions):
            return
        raise _Invalid(
            "unsupported_shape", f"its type is {_shown(result.get('type'))}; supported are {', '.join(_SUPPORTED)}"
        )
    if result.get("image_rotation") not in (None, 0):
        raise _Invalid(
            "unsupported_rotation",
            f"image_rotation is {_shown(result['image_rotation'])}; allowed is 0: turn the picture itself",
        )
    labels = _labels(value.get(kind) or value.get("labels") or about.labels.get(region))
    if about.size is None:
        raise _Invalid(
            "size_invalid", "original_width and original_height are missing, without which there are no pixels"
        )
    shape = _GEOMETRIES[kind.removesuffix("labels")](Shape(picture=about.picture), value, about.size)
    attributes = {**shape.attributes, **_attributes(result), **(about.remarks.get(region, {}) if region else {})}
    for number, label in enumerate(labels, start=1):
        own = shape_id if number == 1 or shape_id is None else f"{shape_id}/{number}"
        yield replace(shape, label=label, id=own, attributes=attributes)


def _labels(value: Any) -> tuple[str, ...]:
    labels = _list(value)
    if not labels or not all(isinstance(each, str) and each.strip() for each in labels):
        raise _Invalid("label_missing", f"its labels are {_shown(value)}; allowed is a list of texts, at least one")
    return tuple(dict.fromkeys(labels))


def _attributes(result: Mapping[str, Any]) -> dict[str, str]:
    """The score and what annotators have noted."""
    meta = result.get("meta")
    entries = {f"meta.{name}": value for name, value in meta.items()} if isinstance(meta, dict) else {"meta": meta}
    entries["score"] = result.get("score")
    return {name: _text(value) for name, value in entries.items() if value not in (None, [])}


def _rectangle(shape: Shape, value: Mapping[str, Any], size: tuple[int, int]) -> Shape:
    left, width = (_number(value.get(entry), entry) * size[0] / 100 for entry in ("x", "width"))
    top, height = (_number(value.get(entry), entry) * size[1] / 100 for entry in ("y", "height"))
    degrees = _number(value.get("rotation") or 0, "rotation")
    if not degrees:
        return replace(shape, box=Box(left, top, left + width, top + height))
    # Clockwise, as y goes down, about the corner that was the top left one.
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    sides = ((0, 0), (width, 0), (width, height), (0, height))
    corners = [(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in sides]
    xs, ys = zip(*corners, strict=True)
    return replace(
        shape,
        box=Box(min(xs), min(ys), max(xs), max(ys)),
        polygons=[[number for corner in corners for number in corner]],
        attributes={"rotation_deg": str(value["rotation"])},
    )


def _polygon(shape: Shape, value: Mapping[str, Any], size: tuple[int, int]) -> Shape:
    points = value.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise _Invalid("number_invalid", f"points is {_shown(points)}; allowed is a list of points, [x, y] each")
    if value.get("closed") is False:
        raise _Invalid("polygon_invalid", "the polygon is open; allowed are closed ones: finish it in Label Studio")
    numbers = [_number(point[axis], "points") * size[axis] / 100 for point in points for axis in (0, 1)]
    return replace(shape, polygons=[numbers])


def _brush(shape: Shape, value: Mapping[str, Any], size: tuple[int, int]) -> Shape:
    width, height = size
    if value.get("format") != "rle":
        raise _Invalid("mask_invalid", f"the mask's format is {_shown(value.get('format'))}; allowed is 'rle'")
    try:
        data = bytes(value["rle"]) if isinstance(value.get("rle"), list) else b""
        mask = decode_brush(data, width_px=width, height_px=height)
    except (ValueError, TypeError) as error:
        raise _Invalid("mask_invalid", f"the mask's run lengths are none: {error}") from None
    return replace(shape, mask=Runs(height, width, encode_mask(mask)["counts"]))


_GEOMETRIES = {"rectangle": _rectangle, "polygon": _polygon, "brush": _brush}


def decode_brush(data: bytes, *, width_px: int, height_px: int) -> npt.NDArray[np.bool_]:
    """The mask of Label Studio's run-length code: where the fourth value of a pixel, its opacity, is not 0.

    The code is that of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack, bits from the highest: in 32
    how many values there are, in 5 how many bits a value has, in 4 each how many bits a length of the kinds 0 to 3
    has (these less one); then runs: whether it repeats, in 2 the kind of its length, the length less one, and one
    value, or as many as it is long. Raises ValueError where that does not fit a picture of this size.
    """
    bits = _Bits(data)
    count, value_bits = bits.take(32), bits.take(5) + 1
    length_bits = [bits.take(4) + 1 for _ in range(4)]
    if count > MAX_BRUSH_VALUES:
        raise ValueError(f"it has {count} values; allowed are {MAX_BRUSH_VALUES}")
    if count != width_px * height_px * 4:
        raise ValueError(f"it has {count} values; a picture of {width_px} x {height_px} has four for each pixel")
    is_on = np.zeros(count // 4, np.bool_)
    begin = 0
    while begin < count:
        repeats = bits.take(1)
        end = begin + 1 + bits.take(length_bits[bits.take(2)])
        if end > count:
            raise ValueError(f"a run ends at value {end} of {count}")
        # Pixels whose fourth value lies in the run.
        pixels = slice(begin // 4, end // 4)
        if repeats:
            is_on[pixels] = bits.take(value_bits) > 0
        else:
            is_on[pixels] = bits.take_many(end - begin, value_bits)[3 - begin % 4 :: 4]
        begin = end
    return is_on.reshape(height_px, width_px)


class _Bits:
    """Numbers of any count of bits from bytes, highest bit first. Raises ValueError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> int:
        start, end = self._go(count)
        word = int.from_bytes(self._data[start // 8 : (end + 7) // 8], "big")
        return (word >> (-end % 8)) & ((1 << count) - 1)

    def take_many(self, count: int, size: int) -> npt.NDArray[np.bool_]:
        """Of `count` numbers of `size` bits each, whether they are not 0."""
        start, end = self._go(count * size)
        part = np.frombuffer(self._data, np.uint8)[start // 8 : (end + 7) // 8]
        bits = np.unpackbits(part)[start % 8 :][: end - start]
        return np.logical_or.reduce(bits.reshape(count, size), axis=1)

    def _go(self, count: int) -> tuple[int, int]:
        start, self._at = self._at, self._at + count
        if self._at > 8 * len(self._data):
            raise ValueError(f"it ends after {len(self._data)} bytes, in the middle of a run")
        return start, self._at


def _kind(result: Mapping[str, Any]) -> str:
    kind = result.get("type")
    return kind if isinstance(kind, str) else ""


def _content(result: Mapping[str, Any]) -> Mapping[str, Any]:
    value = result.get("value")
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    """A list as it is, nothing as an empty one, and anything else as a list of one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _id(value: Any) -> str | None:
    return str(value) if type(value) is int or (isinstance(value, str) and value) else None


def _number(value: Any, entry: str) -> float:
    if type(value) not in (int, float):
        raise _Invalid("number_invalid", f"{entry} is {_shown(value)}; allowed are numbers, in per cent of the picture")
    return value


def _payload(value: Any, limit: int = _PAYLOAD_CHARACTERS) -> str:
    # A brush mask may have millions of numbers, of which a few are enough.
    text = ""
    for part in json.JSONEncoder(ensure_ascii=False).iterencode(value):
        text += part
        if len(text) >= limit:
            break
    return text[:limit]


def _shown(value: Any) -> str:
    return "missing or null" if value is None else _payload(value, 80)
