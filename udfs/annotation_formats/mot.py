"""MOT Challenge: a folder for each sequence, with `seqinfo.ini` and with the boxes of all its frames in `gt/gt.txt`.

The format is that of Milan et al., MOT16: A Benchmark for Multi-Object Tracking (2016), arXiv:1603.00831; MOT15, MOT17
and MOT20 are read as well. Frames and pixels count from 1 in the files, from 0 in what comes out. Where a `labels.txt`
lies beside `gt.txt`, as CVAT and our own exports write it, its lines name the classes.
"""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Iterator, Sequence

from .. import uris
from ..annotation_types import AnnotationError, Box, Picture, Problem, Said, Shape

FILES: tuple[str, ...] = ("gt.txt", "seqinfo.ini", "labels.txt")
MAX_INI_BYTES = 1 << 20
MAX_LABELS_BYTES = 1 << 20
MAX_LINE_CHARACTERS = 1 << 20
MAX_FRAMES = 10_000_000
CLASSES = (
    "pedestrian",
    "person on vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non motorized vehicle",
    "static person",
    "distractor",
    "occluder",
    "occluder on the ground",
    "occluder full",
    "reflection",
    "crowd",
)
"""Names of the classes 1 to 13."""

_VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
_PAYLOAD_CHARACTERS = 2000
_NO_CLASS = "-1"
_SHOWN_NAMES = 20
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")


class _Invalid(Exception):
    """A line or entry cannot be used; `reason` becomes that of the Problem."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read(uri: str) -> Iterator[Said]:
    """What `gt.txt` says, boxes as edges in pixels, after the frames that the `seqinfo.ini` of its sequence counts.

    Where there is none, the frames are those that `gt.txt` mentions, of a video called like the folder of the sequence.
    A `seqinfo.ini` by itself says nothing: were `gt.txt` damaged, all of its frames would seem to show nothing. A
    `labels.txt` is read with the `gt.txt` beside it. Raises AnnotationError, OSError.
    """
    if uris.inner_path(uri).lower().endswith("labels.txt"):
        return
    if not uris.inner_path(uri).lower().endswith(".ini"):
        info = uris.child(uris.parent(uris.parent(uri)), "seqinfo.ini")
        if _is_there(info):
            yield from _frames(info)
        yield from _boxes(uri)
    elif not _is_there(uris.child(uris.parent(uri), "gt/gt.txt")):
        # Sequences to be tested on have none.
        yield Problem(
            reason="annotations_missing",
            message="there is no gt/gt.txt beside it, so that nothing is known of its frames; leave it out, or add it",
            payload=_ini_text(uri)[:_PAYLOAD_CHARACTERS],
        )


def _frames(uri: str) -> Iterator[Picture | Problem]:
    folder = uris.parent(uri)
    text = _ini_text(uri)
    section = _section(text)
    payload = text[:_PAYLOAD_CHARACTERS]
    width_px = height_px = None
    try:
        width_px, height_px = _size(section)
    except _Invalid as error:
        yield Problem(reason=error.reason, message=str(error), payload=payload)
    try:
        length = _length(section)
        names = _names(section, length)
    except _Invalid as error:
        yield Problem(reason=error.reason, message=str(error), payload=payload)
        return
    for frame, (name, frame_index) in enumerate(names, start=1):
        yield Picture(
            key=_key(folder, frame), name=name, frame_index=frame_index, width_px=width_px, height_px=height_px
        )


def _names(section: configparser.SectionProxy, length: int) -> Iterator[tuple[str, int | None]]:
    """Of each frame its still's name and None, or its video's name and its place in it. Raises _Invalid at once."""
    name, folder, suffix = (section.get(entry, "").strip() for entry in ("name", "imDir", "imExt"))
    if not name:
        raise _Invalid("name_missing", "name is missing; allowed is the name of the sequence's folder or video")
    is_video = suffix.lower() in _VIDEO_SUFFIXES
    if is_video or not folder or not suffix:
        video = _safe(name + suffix * is_video)
        return ((video, index) for index in range(length))
    _safe(f"{name}/{folder}/{suffix}")
    return ((f"{name}/{folder}/{frame:06d}{suffix}", None) for frame in range(1, length + 1))


def _safe(name: str) -> str:
    if _ABSOLUTE.match(name) or ".." in re.split(r"[/\\]", name):
        raise _Invalid("name_unsafe", f"the name is {_shown(name)}; allowed are relative paths without ..")
    return name


def _length(section: configparser.SectionProxy) -> int:
    length = _whole(section.get("seqLength"), "seqLength", at_least=1)
    if length > MAX_FRAMES:
        raise AnnotationError("too_large", f"seqLength is {length}; allowed are up to {MAX_FRAMES} frames")
    return length


def _size(section: configparser.SectionProxy) -> tuple[int | None, int | None]:
    width, height = section.get("imWidth"), section.get("imHeight")
    if width is None and height is None:
        return None, None
    return _whole(width, "imWidth", at_least=1), _whole(height, "imHeight", at_least=1)


def _ini_text(uri: str) -> str:
    with uris.open_input(uri) as stream:
        content = stream.read(MAX_INI_BYTES + 1)
    if len(content) > MAX_INI_BYTES:
        raise AnnotationError("too_large", f"it is larger than the {MAX_INI_BYTES} bytes that are allowed")
    if not content.strip():
        raise AnnotationError("empty_file", "it is empty; a section [Sequence] is expected")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(error) from None


def _section(text: str) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        return parser["Sequence"]
    except (configparser.Error, KeyError) as error:
        first = " ".join(str(error).split())[:300]
        raise AnnotationError("not_ini", f"it is no INI file with a section [Sequence]: {first}") from None


def _boxes(uri: str) -> Iterator[Said]:
    folder = uris.parent(uris.parent(uri))
    video = None if _is_there(uris.child(folder, "seqinfo.ini")) else _folder_name(folder)
    classes = _classes_near(uri)
    seen: set[int] = set()
    for number, line in _lines(uri):
        key = None
        words = [word.strip() for word in line.split(",")]
        try:
            frame = _whole(words[0], "the frame", at_least=1, at_most=MAX_FRAMES)
            key = _key(folder, frame)
            if video and frame not in seen:
                seen.add(frame)
                yield Picture(key=key, name=video, frame_index=frame - 1)
            yield _shape(words, key, classes)
        except _Invalid as error:
            yield Problem(
                reason=error.reason,
                message=f"line {number}: {error}",
                picture=key,
                payload=line.strip()[:_PAYLOAD_CHARACTERS],
            )


def _lines(uri: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    is_empty = True
    with uris.open_input(uri) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig") as text:
        try:
            for number, line in enumerate(iter(lambda: text.readline(MAX_LINE_CHARACTERS + 1), ""), start=1):
                if len(line) > MAX_LINE_CHARACTERS:
                    raise AnnotationError(
                        "too_large", f"line {number} has more than {MAX_LINE_CHARACTERS} characters, the most allowed"
                    )
                if line.strip():
                    is_empty = False
                    yield number, line
        except UnicodeDecodeError as error:
            raise _not_text(error) from None
    if is_empty:
        raise AnnotationError("empty_file", "it has no line; what it would say is not known")


def _classes_near(uri: str) -> Sequence[str]:
    """Names of the classes 1, 2, ...: of the `labels.txt` beside it, where that has some, else those of MOT."""
    try:
        with uris.open_input(uris.child(uris.parent(uri), "labels.txt")) as stream:
            content = stream.read(MAX_LABELS_BYTES + 1)
    except FileNotFoundError:
        return CLASSES
    if len(content) > MAX_LABELS_BYTES:
        raise AnnotationError("too_large", f"labels.txt beside it is larger than the {MAX_LABELS_BYTES} bytes allowed")
    try:
        names = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise AnnotationError("not_text", "labels.txt beside it, which names its classes, is not UTF-8") from None
    return names if any(names) else CLASSES


def _shape(words: list[str], key: str, classes: Sequence[str]) -> Shape:
    if not 6 <= len(words) <= 10:
        raise _Invalid(
            "line_invalid",
            f"it has {len(words)} numbers; allowed are 6 to 10: frame, id, left, top, width, height, consider, class, "
            "visibility (or, in MOT15, three of a place in the world)",
        )
    track = _whole(words[1], "the id")
    entries = ("left", "top", "width", "height")
    left, top, width, height = (_number(word, entry) for word, entry in zip(words[2:6], entries, strict=True))
    return Shape(
        picture=key,
        label=_label(words, classes),
        box=Box(left - 1, top - 1, left - 1 + width, top - 1 + height),
        track_id=None if track == -1 else str(track),  # -1 says that it is not known whose box it is
        attributes=_attributes(words),
    )


def _label(words: list[str], classes: Sequence[str]) -> str:
    # Ten numbers are those of MOT15, which knows pedestrians only: the last three are a place in the world.
    word = words[7] if len(words) in (8, 9) else _NO_CLASS
    number = _whole(word, "the class")
    if word == _NO_CLASS:
        return CLASSES[0]
    if not 1 <= number <= len(classes) or not classes[number - 1]:
        names = ", ".join(f"{place} {name}" for place, name in enumerate(classes[:_SHOWN_NAMES], start=1) if name)
        more = f" and {len(classes) - _SHOWN_NAMES} more" if len(classes) > _SHOWN_NAMES else ""
        raise _Invalid("category_unknown", f"the class is {number}; allowed are {names}{more}, and -1 for a pedestrian")
    return classes[number - 1]


def _attributes(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if len(words) > 6 and (consider := _number(words[6], "consider")) != 1:
        found["consider"] = words[6] if consider else "0"
    if len(words) == 9 and _number(words[8], "visibility") != -1:
        found["visibility"] = words[8]
    return found


def _whole(word: str | None, what: str, *, at_least: int | None = None, at_most: int | None = None) -> int:
    if word and _WHOLE.fullmatch(word.strip()):
        number = int(word)
        if (at_least is None or number >= at_least) and (at_most is None or number <= at_most):
            return number
    limits = ("" if at_least is None else f" from {at_least}") + ("" if at_most is None else f" to {at_most}")
    raise _Invalid("number_invalid", f"{what} is {_shown(word)}; allowed are whole numbers{limits}")


def _number(word: str, what: str) -> float:
    try:
        # Python alone would also read 1_0, and digits of other scripts.
        if word.isascii() and "_" not in word:
            return float(word)
    except ValueError:
        pass
    raise _Invalid("number_invalid", f"{what} is {_shown(word)}; allowed are numbers, such as 12 or 12.5")


def _key(folder: str, frame: int) -> str:
    return f"{folder}#{frame}"


def _folder_name(folder: str) -> str:
    name = uris.inner_path(folder).rstrip("/").rpartition("/")[2]
    if not name:
        raise AnnotationError("name_missing", "it lies in no folder of a sequence; allowed is SEQUENCE/gt/gt.txt")
    # A name that is not UTF-8 would not go into a table.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_there(uri: str) -> bool:
    try:
        uris.open_input(uri).close()
    except FileNotFoundError:
        return False
    return True


def _not_text(error: UnicodeDecodeError) -> AnnotationError:
    return AnnotationError("not_text", f"it is not UTF-8 ({error.reason}); save it as UTF-8")


def _shown(value: str | None) -> str:
    return "missing" if not value else repr(value)[:80]
