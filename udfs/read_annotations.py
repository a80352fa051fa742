"""Files of annotations in, what they say out: the Arrow function that reads any format on executors."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache, cached_property
from typing import IO, Any

import numpy as np
import pyarrow as pa

from . import uris
from .annotation_formats import find_format
from .annotation_types import AnnotationError, Category, Picture, Problem, Said, Shape

ITEM = (
    "uri string, place bigint, kind string, picture string, name string, frame_index bigint, "
    "stream_index int, pts bigint, sha256 string, annotator string, body string"
)
SCHEMA = pa.schema(
    {
        "uri": pa.string(),
        "place": pa.int64(),
        "kind": pa.string(),
        "picture": pa.string(),
        "name": pa.string(),
        "frame_index": pa.int64(),
        "stream_index": pa.int32(),
        "pts": pa.int64(),
        "sha256": pa.string(),
        "annotator": pa.string(),
        "body": pa.string(),
    }.items()
)
_BATCH_ROWS = 4096
_BATCH_BYTES = 16 << 20
_SHOWN_NAMES = 10


def read_annotations(batches: Iterable[pa.RecordBatch], *, format_name: str) -> Iterator[pa.RecordBatch]:
    """What the files in column `uri` say, as rows of `SCHEMA`, in the order of each file (`place`).

    `kind` is picture, shape or problem; `body` is JSON of the fields of that class in `annotation_types`. A shape's
    category has become its `label` and `label_id`. A file goes on only once it was read to its end: of one that
    breaks off, half of the objects of a picture would look like all of them. It then is one problem.
    """
    rows: list[dict[str, Any]] = []
    size = 0
    seen: dict[str, Any] = {}
    for batch in batches:
        for uri in batch.column("uri").to_pylist():
            for row in _file_rows(uri, format_name, seen):
                rows.append(row)
                size += len(row["body"])
                if len(rows) >= _BATCH_ROWS or size >= _BATCH_BYTES:
                    yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
                    rows, size = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


class _Categories:
    """The categories of a file. Of several with one key, nobody can say which one a shape means."""

    def __init__(self) -> None:
        self._found: dict[str, Category] = {}
        self._twins: dict[str, str] = {}

    def add(self, category: Category) -> None:
        first = self._found.setdefault(category.key, category)
        if first.label != category.label:
            self._twins.setdefault(category.key, category.label)

    def of(self, key: str) -> Category | tuple[str, str]:
        """The category of a key, or reason and message of why there is none."""
        number, found = key.rpartition("#")[2], self._found.get(key)
        if found is None:
            return "category_unknown", f"category {number} is none of the file's; it lists {self._listed}"
        if key in self._twins:
            names = f"{found.label!r} and {self._twins[key]!r}"
            return "category_ambiguous", f"category {number} is both {names}; give each an id of its own"
        return found

    @cached_property
    def _listed(self) -> str:
        names = sorted({each.label for each in self._found.values()})
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        return ", ".join(names[:_SHOWN_NAMES]) + more or "none"


def _file_rows(uri: str, format_name: str, seen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogatepass") as spool:
        categories = _Categories()
        ids = array("q")
        try:
            found = find_format(format_name)
            near = getattr(found, "categories_near", None)
            for category in near(uri, seen=seen) if near else ():
                categories.add(category)
            for said in found.read(uri):
                if isinstance(said, Category):
                    categories.add(said)
                    continue
                if isinstance(said, Shape) and said.id is not None:
                    ids.append(hash(said.id))
                spool.write(json.dumps([type(said).__name__, as_values(said)]) + "\n")
        except (AnnotationError, OSError) as error:
            yield _row(uri, 0, file_problem(uri, error))
            return
        spool.seek(0)
        yield from _again(uri, spool, categories, _repeated(ids))


def _again(uri: str, spool: IO[str], categories: _Categories, repeated: frozenset[int]) -> Iterator[dict[str, Any]]:
    """Rows of a file that was read to its end. Of several shapes with one id the first stays."""
    seen: set[str] = set()
    for place, line in enumerate(spool):
        name, values = json.loads(line)
        if name == Shape.__name__:
            problem = _name_class(values, categories)
            shape_id = values.get("id")
            if shape_id is not None and hash(shape_id) in repeated:
                if shape_id in seen:
                    problem = ("duplicate_id", f"there is another annotation with the id {shape_id} before it")
                seen.add(shape_id)
            if problem:
                body = json.dumps(values)[:2000]
                yield _row(
                    uri, place, Problem(reason=problem[0], message=problem[1], picture=values["picture"], payload=body)
                )
                continue
        yield _as_row(uri, place, name, values)


def _name_class(values: dict[str, Any], categories: _Categories) -> tuple[str, str] | None:
    """Give a shape the label of its category; what is wrong where there is none."""
    key = values.pop("category", None)
    if key is not None:
        category = categories.of(key)
        if not isinstance(category, Category):
            return category
        values["label"], values["label_id"] = category.label, category.label_id
        names = category.keypoints
        for place, point in enumerate(values.get("keypoints") or ()):
            if place < len(names):
                point[0] = names[place]
    if not values.get("label"):
        return "label_missing", "an annotation wants a label or a category"
    return None


def _repeated(ids: array[int]) -> frozenset[int]:
    """Hashes that occur more than once."""
    found, counts = np.unique(np.frombuffer(ids, np.int64) if ids else np.zeros(0, np.int64), return_counts=True)
    return frozenset(found[counts > 1].tolist())


def file_problem(uri: str, error: AnnotationError | OSError) -> Problem:
    """What a file that cannot be used comes to."""
    reason = error.reason if isinstance(error, AnnotationError) else "read_failed"
    text = error.message if isinstance(error, AnnotationError) else str(error)
    message = f"{uris.display(uri)}: {text}; nothing of this file is imported"
    return Problem(reason=reason, message=message, picture=getattr(error, "picture", None), is_whole=True)


def as_values(said: Said) -> dict[str, Any]:
    """The fields that are not empty, as JSON can hold them."""
    values = ((name, getattr(said, name)) for name in _names(type(said)))
    return {name: value for name, value in values if value is not None and value is not False and value != {}}


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def _row(uri: str, place: int, said: Said) -> dict[str, Any]:
    return _as_row(uri, place, type(said).__name__, as_values(said))


def _as_row(uri: str, place: int, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    is_picture = name == Picture.__name__
    # What belongs to no picture stands alone.
    key = values.get("key") if is_picture else values.get("picture", f"{uri}#{name}{place}")
    return {
        "uri": uri,
        "place": place,
        "kind": name.lower(),
        "picture": _writable(key),
        "name": _writable(values["name"]) if is_picture else None,
        "frame_index": values.get("frame_index"),
        "stream_index": values.get("stream_index"),
        "pts": values.get("pts"),
        "sha256": values.get("sha256"),
        "annotator": _writable(values.get("annotator")),
        "body": _writable(json.dumps(values, ensure_ascii=False)),
    }


def _writable(text: Any) -> Any:
    """Text as it is, but for halves of surrogate pairs, which no table can hold."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")
