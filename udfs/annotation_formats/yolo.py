"""YOLO's layout: pictures, a text file of boxes or polygons for each, and `data.yaml` with the names of the classes.

The format is what https://docs.ultralytics.com/datasets/detect and https://docs.ultralytics.com/datasets/segment
describe. Coordinates are shares of the width and height of the upright picture, from its left and upper edge.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from .. import uris
from ..annotation_types import AnnotationError, Box, Category, Picture, Problem, Said, Shape

_YAML_FILES = ("data.yaml", "dataset.yaml")
_PICTURE_FILES = ("*.jpg", "*.jpeg", "*.png", "*.webp", "*.bmp", "*.tif", "*.tiff")
FILES: tuple[str, ...] = ("*.txt", *_YAML_FILES, *_PICTURE_FILES)
MAX_YAML_BYTES = 1 << 20
MAX_LABEL_BYTES = 64 << 20
MAX_LINE_CHARACTERS = 1 << 20
MAX_DEPTH = 32
"""So deep may lists and mappings be nested in YAML."""

_PAYLOAD_CHARACTERS = 2000
# Lists of pictures and of classes, and words about them, which tools write beside the labels.
_NO_LABELS = frozenset(
    {"classes.txt", "train.txt", "val.txt", "test.txt", "readme.txt", "readme.dataset.txt", "readme.roboflow.txt"}
)
# Nine digits go into the table's column.
_INDEX = re.compile(r"[0-9]{1,9}")


_Names = tuple[Category, ...] | AnnotationError


class _Invalid(Exception):
    """A line cannot be used; `reason` becomes that of the Problem."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read(uri: str) -> Iterator[Said]:
    """What a file says: `data.yaml` the categories, a file of labels the shapes of its picture, a picture that it is.

    A picture's own file is not opened. Its key is that of its labels: their path without the suffix, with `labels` in
    place of the last folder called `images`. Raises AnnotationError, OSError.
    """
    name = uris.inner_path(uri).rpartition("/")[2].lower()
    if name in _YAML_FILES:
        yield from _categories(_document(_text(uri, MAX_YAML_BYTES)))
    elif not name.endswith(".txt"):
        yield Picture(key=_key(uri, is_picture=True), name=_picture_name(uri), unit="share")
    elif name not in _NO_LABELS:
        key = _key(uri, is_picture=False)
        try:
            yield from _shapes(_text(uri, MAX_LABEL_BYTES), key)
        except (AnnotationError, OSError) as error:
            raise AnnotationError(getattr(error, "reason", "read_failed"), str(error), picture=key) from error


def categories_near(uri: str, *, seen: dict[str, _Names]) -> tuple[Category, ...]:
    """The categories of the nearest `data.yaml` in a folder of labels or above. Raises AnnotationError."""
    if not uris.inner_path(uri).lower().endswith(".txt"):
        return ()
    found = _names_of(uris.parent(uri), seen)
    if not isinstance(found, AnnotationError):
        return found
    raise AnnotationError(found.reason, found.message, picture=_key(uri, is_picture=False))


def _names_of(folder: str, seen: dict[str, _Names]) -> _Names:
    if folder not in seen:
        own = next((one for name in _YAML_FILES if (one := _names_in(uris.child(folder, name))) is not None), None)
        above = uris.parent(folder)
        seen[folder] = own if own is not None else () if above == folder else _names_of(above, seen)
    return seen[folder]


def _names_in(uri: str) -> _Names | None:
    """The categories of a file, or what is wrong with it; None where there is no such file."""
    try:
        document = _document(_text(uri, MAX_YAML_BYTES))
        if document.get("kpt_shape"):
            raise AnnotationError(
                "unsupported_pose",
                "it has kpt_shape, so that lines hold keypoints; these are read from COCO's files only",
            )
        return tuple(one for one in _categories(document) if isinstance(one, Category))
    except FileNotFoundError:
        return None
    except AnnotationError as error:
        return AnnotationError(error.reason, f"its classes are in {uris.display(uri)}: {error.message}")
    except OSError as error:
        return AnnotationError("read_failed", f"its classes are in {uris.display(uri)}: {error}")


def _key(uri: str, *, is_picture: bool) -> str:
    folder, _, name = uris.inner_path(uri).rpartition("/")
    parts = folder.split("/")
    if is_picture and "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return uris.with_inner_path(uri, "/".join([*parts, name.rpartition(".")[0]]))


def _picture_name(uri: str) -> str:
    # A name that is not UTF-8 would not go into a table.
    path = uris.inner_path(uri).lstrip("/")
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _text(uri: str, limit: int) -> str:
    with uris.open_input(uri) as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise AnnotationError("too_large", f"it is larger than {limit} bytes, which is the most that is allowed")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError("not_text", f"it is not UTF-8 from byte {error.start} on; save it as UTF-8") from None


def _categories(document: Mapping[str, Any]) -> Iterator[Category | Problem]:
    names = document.get("names")
    if not names or not isinstance(names, (list, dict)):
        raise AnnotationError(
            "names_missing", f"names is {_shown(names)}; allowed are a list of names, and a mapping of numbers to names"
        )
    for index, label in names.items() if isinstance(names, dict) else enumerate(names):
        try:
            number = _index(str(index), "the number of a class")
            yield Category(key=str(number), label=_label(index, label), label_id=number)
        except _Invalid as error:
            yield Problem(
                reason=error.reason, message=f"names: {error}", payload=f"{index}: {label}"[:_PAYLOAD_CHARACTERS]
            )


def _document(text: str) -> Mapping[str, Any]:
    """The mapping of a file's top level, an empty one where that is none. Raises AnnotationError."""
    if not text.strip():
        raise AnnotationError("empty_file", "it is empty; the names of the classes are expected under `names`")
    try:
        _refuse_bombs(text)
        # Of all loaders this one leaves texts as they are: to others, a class called `no` is a false.
        loader = yaml.BaseLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            return {}
        _refuse_twins(node)
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # numbers of characters that are none
        first = " ".join(str(error).split())[:300]
        raise AnnotationError("not_yaml", f"it is not YAML: {first}") from None


def _refuse_twins(document: yaml.MappingNode) -> None:
    """Raises AnnotationError where `names`, or a class in it, is there twice: which one is meant, nobody could say."""
    names = [value for key, value in document.value if key.value == "names"]
    keys = [key.value for value in names if isinstance(value, yaml.MappingNode) for key, _ in value.value]
    found = Counter(key for key in ["names"] * len(names) + keys if isinstance(key, str))
    if twice := [key for key, count in found.items() if count > 1]:
        raise AnnotationError("names_ambiguous", f"the key {twice[0]!r} is there twice; write it once")


def _refuse_bombs(text: str) -> None:
    """Raises AnnotationError for what would take far more memory than the text has bytes."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if getattr(event, "anchor", None) is not None:
            raise AnnotationError("alias_refused", "it has anchors or aliases (& and *); write names without them")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise AnnotationError("nested_too_deep", f"its lists are nested deeper than the allowed {MAX_DEPTH}")


def _label(index: Any, label: Any) -> str:
    if not isinstance(label, str) or not label.strip():
        raise _Invalid("label_missing", f"class {index} is {_shown(label)}; allowed is text that is not empty")
    return label


def _shapes(text: str, key: str) -> Iterator[Shape | Problem]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if len(line) > MAX_LINE_CHARACTERS:
            raise AnnotationError(
                "too_large", f"line {number} has more than the {MAX_LINE_CHARACTERS} characters that are allowed"
            )
        words = line.split()
        if not words:
            continue
        try:
            yield _shape(words, key)
        except _Invalid as error:
            yield Problem(
                reason=error.reason,
                message=f"line {number}: {error}",
                picture=key,
                payload=line.strip()[:_PAYLOAD_CHARACTERS],
            )


def _shape(words: list[str], key: str) -> Shape:
    count = len(words)
    if count != 5 and (count < 7 or count % 2 == 0):
        raise _Invalid(
            "line_invalid",
            f"it has {count} words; allowed are 5 (class, x and y of the box's middle, width, height), and a class "
            "with x and y of at least three points",
        )
    category = str(_index(words[0], "the class"))
    numbers = [_number(word) for word in words[1:]]
    if count > 5:
        return Shape(picture=key, category=category, polygons=[numbers])
    x, y, width, height = numbers
    return Shape(picture=key, category=category, box=Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _index(word: str, what: str) -> int:
    if not _INDEX.fullmatch(word):
        raise _Invalid("number_invalid", f"{what} is {_shown(word)}; allowed are whole numbers from 0 to 999999999")
    return int(word)


def _number(word: str) -> float:
    try:
        # Python alone would also read 1_0, and digits of other scripts.
        if word.isascii() and "_" not in word:
            return float(word)
    except ValueError:
        pass
    raise _Invalid("number_invalid", f"{_shown(word)} is no number; allowed are such as 0.25, shares of the picture")


def _shown(value: Any) -> str:
    return "missing" if value in (None, "") else repr(value)[:80]
