"""COCO's JSON of objects and keypoints: a list each of `images`, `annotations` and `categories`, in any order.

The format is what https://cocodataset.org/#format-data describes, with what CVAT adds (`attributes`, `track_id`).
Coordinates are in pixels from the left and upper edge. The file is read as a stream, so its size does not matter.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO, TypeGuard

import ijson

from .. import uris
from ..annotation_types import AnnotationError, Box, Category, Keypoint, Picture, Problem, Runs, Said, Shape
from ._json_numbers import quote_non_numbers

FILES: tuple[str, ...] = ("*.json",)
MAX_OBJECT_BYTES = 8 << 20
"""So much text may one object have. Parsed, it takes up to 35 times of that: an object of one entry is 7 bytes long."""
MAX_DEPTH = 32
"""So deep may lists and objects be nested in one object."""

_CHUNK_BYTES = 64 << 10
_PAYLOAD_CHARACTERS = 2000
_ONE_OF = {"images": "image", "annotations": "annotation", "categories": "category"}
_STEP = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}
_IMAGE_ENTRIES = frozenset({"id", "file_name", "width", "height", "sha256", "attributes", "visionlake"})
_ANNOTATION_ENTRIES = frozenset(
    {
        *("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd", "keypoints", "num_keypoints"),
        *("attributes", "track_id", "visionlake"),
    }
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")

_Object = Mapping[str, Any]


class _Invalid(Exception):
    """An entry of an object cannot be used; `reason` becomes that of the Problem."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read(uri: str) -> Iterator[Said]:
    """What a file says: pictures, shapes and categories in its order, boxes as edges in pixels, nothing clipped.

    A keypoint is named by its place ("0", "1", ...), and its category has the names. Raises AnnotationError, OSError.
    """
    with uris.open_input(uri) as stream:
        for section, item in _Json(stream).items():
            yield _said(uri, section, item)


class _Json:
    """The objects of a file, parsed one at a time, none too large or too deep to hold. Raises AnnotationError."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._read_bytes = 0
        self._begun_at = 0  # what was read when the object began
        self._events: Iterator[tuple[str, Any]] = chain.from_iterable(self._batches())

    def items(self) -> Iterator[tuple[str, Any]]:
        """Every item of the lists, with the name of its list."""
        event, _ = next(self._events)
        if event != "start_map":
            raise _not_coco(event)
        seen: set[str] = set()
        for event, section in self._events:
            if event == "end_map":
                break
            event, _ = next(self._events)
            if section not in _ONE_OF:
                self._skip(event)
                continue
            if event != "start_array":
                raise AnnotationError("not_coco", f"{section} is not a list; COCO has lists of objects there")
            seen.add(section)
            for value in self._list_items():
                yield section, value
        for _ in self._events:  # says so if something follows
            pass
        # Without annotations, all pictures would count as looked at and empty.
        if missing := [name for name in ("images", "annotations") if name not in seen]:
            raise AnnotationError(
                "not_coco", f"it has no list {' and '.join(missing)}; COCO has images, annotations and categories"
            )

    def _list_items(self) -> Iterator[Any]:
        for event, value in self._events:
            if event == "end_array":
                return
            self._begun_at = self._read_bytes
            yield self._value(event, value, 0)

    def _value(self, event: str, value: Any, depth: int) -> Any:
        if event == "start_array":
            return self._array(_deeper(depth))
        return self._map(_deeper(depth)) if event == "start_map" else value

    def _array(self, depth: int) -> list[Any]:
        found: list[Any] = []
        for event, value in self._events:
            if event == "end_array":
                break
            # Nearly all of a file are numbers, and a call for each takes longer than parsing them.
            found.append(value if event == "number" else self._value(event, value, depth))
        return found

    def _map(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        key = ""
        for event, value in self._events:
            if event == "end_map":
                break
            if event == "map_key":
                key = value
            else:
                found[key] = self._value(event, value, depth)
        return found

    def _skip(self, event: str) -> None:
        depth = _STEP.get(event, 0)
        while depth:
            self._begun_at = self._read_bytes
            event, _ = next(self._events)
            depth = _deeper(depth, _STEP.get(event, 0))

    def _batches(self) -> Iterator[list[tuple[str, Any]]]:
        events: Any = ijson.sendable_list()
        # As Decimal, numbers beyond 64 bits would pass too, but reading takes twice as long.
        parser = ijson.basic_parse_coro(events, use_float=True)
        for chunk in quote_non_numbers(self._chunks()):
            try:
                parser.send(chunk)
            except (ijson.JSONError, ValueError) as error:
                raise _not_json(error, max(0, self._read_bytes - len(chunk))) from None
            yield events
            events.clear()
        if not self._read_bytes:
            raise AnnotationError("empty_file", "it is empty; COCO has a JSON object with images and annotations")
        try:
            parser.close()
        except (ijson.JSONError, ValueError) as error:
            what = _first_line(error)[0]
            raise AnnotationError(
                "truncated", f"it ends after {self._read_bytes} bytes, but its JSON goes on ({what}); copy it again"
            ) from None
        yield events

    def _chunks(self) -> Iterator[bytes]:
        chunk = self._stream.read(_CHUNK_BYTES).removeprefix(codecs.BOM_UTF8)
        while chunk:
            self._read_bytes += len(chunk)
            if self._read_bytes - self._begun_at > MAX_OBJECT_BYTES:
                raise AnnotationError(
                    "object_too_large",
                    f"an object after byte {self._begun_at} is larger than {MAX_OBJECT_BYTES} bytes, which is the most "
                    "that is allowed; split it, or compress its mask",
                )
            yield chunk
            chunk = self._stream.read(_CHUNK_BYTES)


def _deeper(depth: int, step: int = 1) -> int:
    if depth + step > MAX_DEPTH:
        raise AnnotationError("nested_too_deep", f"lists or objects are nested deeper than the allowed {MAX_DEPTH}")
    return depth + step


def _not_coco(event: str) -> AnnotationError:
    found = "a list, as COCO's results and exports of Label Studio are" if event == "start_array" else "no object"
    return AnnotationError(
        "not_coco",
        f"its top level is {found}; COCO has an object there with the lists images, annotations and categories",
    )


def _not_json(error: Exception, start: int) -> AnnotationError:
    if isinstance(error, UnicodeDecodeError):
        return AnnotationError("not_text", f"it has text that is none after byte {start}, as half of a surrogate pair")
    what, near = _first_line(error)
    place = f"near {near!r} " if near else ""
    if "overflow" in what:
        return AnnotationError(
            "number_too_large",
            f"{what} {place}after byte {start}; allowed are whole numbers of 64 bits and those that a double can hold: "
            "write larger ids as text",
        )
    return AnnotationError("not_json", f"it is not JSON: {what} {place}after byte {start}")


def _first_line(error: Exception) -> tuple[str, str]:
    """What the parser says, and the text that it says it of."""
    said = error.args[0] if error.args else ""
    text = said.decode("utf-8", "backslashreplace") if isinstance(said, bytes) else str(said)
    what, _, rest = text.partition("\n")
    return what, rest.partition("(right here)")[0].strip()


def _said(uri: str, section: str, item: Any) -> Said:
    try:
        if not isinstance(item, dict):
            raise _Invalid("not_an_object", f"it is {_shown(item)}; an object is expected")
        return {"images": _picture, "annotations": _shape, "categories": _category}[section](uri, item)
    except _Invalid as error:
        has_id = isinstance(item, dict) and "id" in item
        name = f"{_ONE_OF[section]} {_shown(item['id'])}" if has_id else f"{_ONE_OF[section]} without an id"
        return Problem(
            reason=error.reason,
            message=f"{name}: {error}",
            picture=_picture_of(uri, item) if section == "annotations" else None,
            payload=_compact(item)[:_PAYLOAD_CHARACTERS],
        )


def _picture_of(uri: str, item: Any) -> str | None:
    try:
        return _key(uri, item.get("image_id"), "image_id") if isinstance(item, dict) else None
    except _Invalid:
        return None


def _picture(uri: str, item: _Object) -> Picture:
    frame = _frame(item.get("visionlake"))
    return Picture(
        key=_key(uri, item.get("id"), "id"),
        name=_name(item.get("coco_url") if item.get("file_name") is None else item["file_name"]),  # as in LVIS
        width_px=_size(item.get("width"), "width"),
        height_px=_size(item.get("height"), "height"),
        sha256=_sha256(item.get("sha256", frame.get("media_id"))),
        stream_index=frame.get("stream_index"),
        pts=frame.get("pts"),
        attributes=_attributes(item, _IMAGE_ENTRIES),
    )


def _shape(uri: str, item: _Object) -> Shape:
    area = item.get("area")
    polygons, mask = _segmentation(item.get("segmentation"))
    return Shape(
        picture=_key(uri, item.get("image_id"), "image_id"),
        category=_key(uri, item["category_id"], "category_id") if "category_id" in item else None,
        id=_id(item["id"], "id") if "id" in item else None,
        box=_box(item.get("bbox")),
        polygons=polygons,
        mask=mask,
        keypoints=_keypoints(item.get("keypoints")),
        is_crowd=_is_crowd(item.get("iscrowd")),
        area_px=None if area is None else _numbers([area], "area")[0],
        track_id=_track_id(item),
        attributes=_attributes(item, _ANNOTATION_ENTRIES),
    )


def _category(uri: str, item: _Object) -> Category:
    number, label, names = item.get("id"), item.get("name"), item.get("keypoints")
    if not isinstance(label, str) or not label.strip():
        raise _Invalid("name_missing", f"name is {_shown(label)}; allowed is text that is not empty")
    if names is not None and not (isinstance(names, list) and all(isinstance(each, str) and each for each in names)):
        raise _Invalid("keypoints_invalid", f"keypoints is {_shown(names)}; allowed is a list of names")
    # A larger number would not go into the table's column; the label says it all.
    fits = isinstance(number, int) and -(1 << 31) <= number < 1 << 31
    return Category(
        key=_key(uri, number, "id"), label=label, label_id=number if fits else None, keypoints=tuple(names or ())
    )


def _key(uri: str, value: Any, entry: str) -> str:
    return f"{uri}#{_id(value, entry)}"


def _id(value: Any, entry: str) -> str:
    if type(value) is int or (isinstance(value, str) and value):
        return str(value)
    raise _Invalid("id_invalid", f"{entry} is {_shown(value)}; allowed are whole numbers, and text that is not empty")


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Invalid("name_missing", f"file_name is {_shown(value)}; allowed is text that is not empty")
    if not _URL.match(value) and (_ABSOLUTE.match(value) or ".." in re.split(r"[/\\]", value)):
        raise _Invalid(
            "name_unsafe",
            f"file_name is {_shown(value)}; allowed are URLs, and paths from the pictures' folder without ..",
        )
    return value


def _size(value: Any, entry: str) -> int | None:
    if value is None or (type(value) is int and value > 0):
        return value
    raise _Invalid("size_invalid", f"{entry} is {_shown(value)}; allowed are whole numbers above 0, or to leave it out")


def _frame(value: Any) -> _Object:
    """Which frame of which media it is, as exports of this project say."""
    if value is None:
        return {}
    numbers = [value.get("stream_index"), value.get("pts")] if isinstance(value, dict) else []
    if _are_whole(numbers, 2) and 0 <= numbers[0] < 1 << 31 and abs(numbers[1]) < 1 << 63:
        return value
    raise _Invalid("frame_invalid", f"visionlake is {_shown(value)}; allowed are media_id, stream_index and pts")


def _sha256(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and _SHA256.fullmatch(value):
        return value.lower()
    raise _Invalid("sha256_invalid", f"sha256 is {_shown(value)}; allowed are 64 hexadecimal digits")


def _numbers(values: list[Any], entry: str) -> tuple[float, ...]:
    if set(map(type, values)) <= {int, float}:
        return tuple(map(float, values))
    found = next(value for value in values if type(value) not in (int, float))
    raise _Invalid("number_invalid", f"{entry} has {_shown(found)}; allowed are numbers")


def _box(value: Any) -> Box | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != 4:
        raise _Invalid("box_invalid", f"bbox is {_shown(value)}; allowed are four numbers, [x, y, width, height]")
    x, y, width, height = _numbers(value, "bbox")
    return Box(x, y, x + width, y + height)


def _segmentation(value: Any) -> tuple[tuple[tuple[float, ...], ...] | None, Runs | None]:
    if value is None or value == []:
        return None, None
    if isinstance(value, list) and all(isinstance(each, list) for each in value):
        return tuple(_numbers(each, "segmentation") for each in value if each) or None, None
    if isinstance(value, dict) and _are_whole(value.get("size"), 2):
        counts = value.get("counts")
        if isinstance(counts, str) or _are_whole(counts):
            height, width = value["size"]
            return None, Runs(height, width, counts)
    raise _Invalid(
        "segmentation_invalid",
        f"segmentation is {_shown(value)}; allowed are a list of polygons, [[x, y, x, y, ...], ...], and "
        '{"size": [height, width], "counts": text or whole numbers}',
    )


def _are_whole(value: Any, count: int | None = None) -> TypeGuard[list[int]]:
    return isinstance(value, list) and set(map(type, value)) == {int} and count in (None, len(value))


def _keypoints(value: Any) -> tuple[Keypoint, ...] | None:
    if value is None or value == []:
        return None
    if isinstance(value, list) and len(value) % 3 == 0:
        numbers = _numbers(value, "keypoints")
        if set(numbers[2::3]) <= {0, 1, 2}:
            points = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
            return tuple(Keypoint(str(place), x, y, int(v)) for place, (x, y, v) in enumerate(points))
    raise _Invalid(
        "keypoints_invalid", f"keypoints is {_shown(value)}; allowed are x, y and v for each, where v is 0, 1 or 2"
    )


def _is_crowd(value: Any) -> bool:
    if value is None or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise _Invalid("iscrowd_invalid", f"iscrowd is {_shown(value)}; allowed are 0 and 1")


def _track_id(item: _Object) -> str | None:
    value = item.get("track_id", _own_attributes(item).get("track_id"))
    return None if value is None else _id(value, "track_id")


def _attributes(item: _Object, known: frozenset[str]) -> dict[str, str]:
    """Other entries, and those of the object `attributes`: text as it is, anything else as JSON, none for null."""
    entries = _own_attributes(item) | {name: value for name, value in item.items() if name not in known}
    if "track_id" in known:  # wherever it stands, it has become the shape's
        entries.pop("track_id", None)
    return {
        name: value if isinstance(value, str) else _compact(value)
        for name, value in entries.items()
        if value is not None
    }


def _own_attributes(item: _Object) -> dict[str, Any]:
    own = item.get("attributes")
    return own if isinstance(own, dict) else {"attributes": own}


def _shown(value: Any) -> str:
    return "missing or null" if value is None else _compact(value)[:80]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
