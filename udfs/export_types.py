"""What exports are made of: samples (a frame with its labels), the plan of a data set, and where its files go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, Protocol

from .rle import Rle

Task = Literal["detection", "segmentation"]


@dataclass(frozen=True, kw_only=True)
class Category:
    """A class: its id in formats that keep ids (COCO), its name, and the names of its keypoints, if it has any."""

    id: int
    name: str
    keypoints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExportObject:
    """One object, in pixels of the stored frame, origin at its top left corner, edges not rounded.

    `box` is (x_min, y_min, x_max, y_max). `score` is null for what people said. `area` is what an annotation states;
    null where nobody did. `polygons` are flat lists of x, y; an object may have polygons, a mask, both or neither.
    `keypoints` are (name, x, y, visibility) with visibility as in COCO.
    """

    category_id: int
    label: str
    box: tuple[float, float, float, float]
    score: float | None = None
    area: float | None = None
    iscrowd: bool = False
    mask: Rle | None = None
    polygons: Sequence[Sequence[float]] | None = None
    keypoints: Sequence[tuple[str, float, float, int]] | None = None
    track_id: str | None = None
    annotation_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A frame and what is in it. `labelled_by` is the source of annotations or the model id that the objects are of.

    `image` are the bytes of the stored picture; null where a format reads samples without their pictures.
    `image_name` is what the media is called where it came from, for people.
    """

    media_id: str
    stream_index: int
    pts: int
    pts_s: float | None
    frame_index: int | None
    split: str
    width_px: int
    height_px: int
    image_format: str
    image: bytes | None
    image_name: str | None
    labelled_by: str
    objects: tuple[ExportObject, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name of its files without their ending. Those of a stream sort as shown, for pts from 0 to 10^12 - 1."""
        return f"{self.media_id}_{self.stream_index}_{self.pts:012d}"

    @property
    def picture_name(self) -> str:
        """The name of its picture."""
        return f"{self.stem}.{'jpg' if self.image_format == 'jpeg' else self.image_format}"


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What holds for a whole data set. `splits` are those it has; categories lie in the order of their ids."""

    name: str
    task: Task
    categories: tuple[Category, ...]
    splits: tuple[str, ...]

    def index_of(self, category_id: int) -> int:
        """The position of a class among all, from 0, for formats that count classes so."""
        return [category.id for category in self.categories].index(category_id)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Samples that are written together: at most so many frames of a split, or one sequence (stream of a media)."""

    split: str
    number: int


class Target(Protocol):
    """Where files go: paths are relative to the data set's folder, with / between. Each is written once, and whole."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file."""
        ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A file to be written piece by piece; it is there once the block has ended."""
        ...


class ExportFormat(Protocol):
    """A module of `udfs.export_formats`."""

    TASKS: tuple[Task, ...]
    """What it can hold."""
    UNIT: Literal["frames", "sequence"]
    """What a shard is: some frames of a split, or all frames of one stream of a media."""

    def write_shard(self, shard: Shard, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
        """Write the files of a shard. Samples come in the order of (media_id, stream_index, pts), with pictures."""
        ...

    def write_split(self, split: str, samples: Iterator[Sample], plan: ExportPlan, target: Target) -> None:
        """Write what tells of a whole split. Samples come in the same order, without pictures, however many."""
        ...

    def set_files(self, plan: ExportPlan) -> Mapping[str, bytes]:
        """The small files of the whole data set."""
        ...
