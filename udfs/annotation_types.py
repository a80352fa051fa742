"""What files of annotations say, in one form for all formats: pictures, shapes on them, categories, and problems.

Nothing here is tied to media yet. Coordinates are those of the picture as the file knows it, x to the right and y down
from its top left corner: in pixels, where 0 is the left edge of the first pixel and `width_px` the right edge of the
last, or in shares of the picture's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Attributes = Mapping[str, str]


class Box(NamedTuple):
    """Edges of a box."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class Keypoint(NamedTuple):
    """A named point; `visibility` as in COCO: 0 not labelled, 1 hidden, 2 visible."""

    name: str
    x: float
    y: float
    visibility: int


class Runs(NamedTuple):
    """A mask as COCO's run lengths, column by column; `counts` is its compressed text or the numbers themselves."""

    height_px: int
    width_px: int
    counts: str | Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture, or a frame of a video, that a file speaks of.

    `key` is what shapes name it by. `name` is its file name, path or URI as written. `frame_index` is the 0-based
    place of the frame in the order of presentation, None for a still. The size is None where the file tells none.
    Files that this project wrote name a frame by `stream_index` and `pts` instead. `unit` is what the coordinates on it
    are in. A picture without a shape has been looked at and shows nothing.
    """

    key: str
    name: str
    width_px: int | None = None
    height_px: int | None = None
    unit: Literal["px", "share"] = "px"
    frame_index: int | None = None
    stream_index: int | None = None
    pts: int | None = None
    sha256: str | None = None
    annotator: str | None = None
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One thing on a picture: a box, polygons (x, y, x, y, ...), a mask, or several of these.

    Its class is `label`, or the `category` of that key. `id` is the file's own name for it, unique within the file.
    `area_px` is the area as the file states it.
    """

    picture: str
    label: str | None = None
    category: str | None = None
    id: str | None = None
    box: Box | None = None
    polygons: Sequence[Sequence[float]] | None = None
    mask: Runs | None = None
    keypoints: Sequence[Keypoint] | None = None
    is_crowd: bool = False
    area_px: float | None = None
    track_id: str | None = None
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Category:
    """A class that shapes name by its key; `label_id` is its number in the file, where it has one."""

    key: str
    label: str
    label_id: int | None = None
    keypoints: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A part of a file that cannot be used: a shape of the picture `picture`, or something that belongs to none.

    `reason` is snake_case; `message` says what was found, the value, what is allowed and what to do; `payload` is the
    part itself, as text. The rest of the file goes on. With `is_whole` nothing can be said of the picture any more, not
    even that it shows nothing.
    """

    reason: str
    message: str
    picture: str | None = None
    payload: str | None = None
    is_whole: bool = False


Said = Picture | Shape | Category | Problem


class AnnotationError(Exception):
    """A whole file cannot be used: nothing of it is imported. `reason` is snake_case, `message` for people.

    `picture` is the key of the picture that all of the file is about, where another file lists it.
    """

    def __init__(self, reason: str, message: str, *, picture: str | None = None) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.picture = picture


class Format(Protocol):
    """A module of `udfs/annotation_formats`: how one format is found and read.

    `FILES` are patterns of the names, in lower case, that its files have. It may have `categories_near(uri, seen=)`,
    which returns the categories that another file has for this one, and keeps in `seen`, a dictionary that lasts as
    long as files of one run are read, what it has read before. Raises AnnotationError, OSError.
    """

    FILES: tuple[str, ...]

    def read(self, uri: str) -> Iterator[Said]:
        """What a file says, in any order, reading it as a stream. Raises AnnotationError, OSError.

        Keys of pictures and categories hold for all files of a source: formats that number them anew in each file begin
        them with the file's URI.
        """
        ...
