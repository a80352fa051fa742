"""What goes between the detection stage and its backends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from ._errors import ModelError
from .masks import Mask
from .ontology import Ontology
from .view_options import ViewOptions

Precision = Literal["float32", "bfloat16", "float16"]
Task = Literal["detection", "instance", "semantic", "panoptic"]
"""What is wanted of a model: boxes; objects with masks; a mask for every class; or objects and classes, in which each
pixel belongs to one object."""
_SOURCES = ("model", "labels", "prompts", "registry_uri")
_CHOICES = ("precision", "score_threshold", "nms_iou", "max_instances", "classes")


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """Settings of one detector. What is None is as the model declares it."""

    backend: str
    model: str | None = None
    weights: str | None = None
    labels: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None
    registry_uri: str | None = field(default=None, repr=False)  # it may hold a password
    task: Task | Literal["segmentation"] = "detection"  # segmentation: what the model does best, other than boxes
    device: str = "auto"
    precision: Precision | None = None
    batch_size: int | None = None
    score_threshold: float | None = None
    nms_iou: float | None = None
    max_instances: int | None = None
    classes: tuple[str, ...] | None = None
    views: ViewOptions = field(default_factory=ViewOptions)
    ontology: Ontology | None = None


def _unknown_classes(names: Sequence[str], labels: Sequence[str], *, of: str) -> str:
    """What to say of classes that a model does not have."""
    near = sorted({match for name in names for match in get_close_matches(name, labels, n=1)})
    allowed = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(labels[:20])}"
    more = f" and {len(labels) - 20} more" if not near and len(labels) > 20 else ""
    return f"classes: {', '.join(names)} not among the {len(labels)} labels of {of}; {allowed}{more}"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model before it is loaded: `digests` cover its weights and its card, `declared` holds its own settings.

    What follows `tasks` is for people, and no part of the model's id. What is not known is None.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    first_label_id: int
    digests: Mapping[str, str]
    declared: Mapping[str, Any]
    sources: tuple[str, ...] = ()  # of what names a model those settings that the backend heeds
    tasks: tuple[Task, ...] = ("detection",)  # what it can do; of the kinds of segmentation the best one first
    source: str | None = None  # where it comes from, a URI; None: it is what the options name
    registry_version: str | None = None  # what a registry or a hub calls this state of it
    licence: str | None = None
    card: Mapping[str, Any] = field(default_factory=dict)  # what its card says beyond all this

    def resolved(self, options: DetectOptions) -> dict[str, Any]:
        """The settings that can change the output: those of `options`, else the model's own; and what is set of views.

        Raises ModelError for a setting that the backend does not declare (it would be ignored), for classes that the
        model does not have, for a task that it cannot do, and for views that cannot be.
        """
        if unknown := sorted({*(options.classes or ())} - {*self.labels}):
            raise ModelError(_unknown_classes(unknown, self.labels, of=self.name))
        chosen = asdict(options)
        heeded = {*self.declared, *self.sources}
        if ignored := [n for n in (*_SOURCES, *_CHOICES) if chosen[n] is not None and n not in heeded]:
            raise ModelError(f"backend {options.backend!r} has no setting {', '.join(ignored)}; leave it out")
        given = {name: chosen[name] for name in self.declared if chosen.get(name) is not None}
        task, views = self._task(options.task), options.views.changed()
        if views and task != "detection":
            raise ModelError(
                f"{', '.join(views)}: views are for boxes, and cannot be put together again with task {task!r}"
            )
        renamed = self._renamed(options)
        ontology = {"ontology": renamed} if renamed else {}
        return {**views, **ontology, **self.declared, **given, "task": task}

    def _renamed(self, options: DetectOptions) -> list[tuple[str, tuple[int, str] | None]]:
        """What the ontology makes of the labels; nothing where it leaves them as they are."""
        if options.ontology is None:
            return []
        found = options.ontology.mapping(options.classes or self.labels)
        own = {label: (self.first_label_id + place, label) for place, label in enumerate(self.labels)}
        return [] if all(own[label] == meant for label, meant in found.items()) else sorted(found.items())

    def _task(self, wanted: str) -> Task:
        for task in self.tasks:
            if wanted in (task, "segmentation" if task != "detection" else task):
                return task
        advice = {"detection": "label with it in [segment_objects.<name>]"}.get(
            wanted,
            "label with it in [detect_objects.<name>]" if self.tasks == ("detection",) else "choose one of these",
        )
        raise ModelError(f"task {wanted!r}: model {self.name} does {', '.join(self.tasks)}; {advice}")

    def model_id(self, options: DetectOptions) -> str:
        """`name@version:digest`. Settings as the model declares them are left out, so that new ones change no id."""
        declared = {**self.declared, "task": "detection"}
        changed = {n: v for n, v in self.resolved(options).items() if n not in declared or v != declared[n]}
        text = json.dumps({"digests": dict(self.digests), "settings": changed}, sort_keys=True)
        return f"{self.name}@{self.version}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A picture as the network wants it: uint8, height x width x 3; and the way back to pixels of the picture.

    A point of the input is `(x * scale_x + left, y * scale_y + top)` for a point of the picture.
    """

    pixels: npt.NDArray[np.uint8]
    width_px: int
    height_px: int
    scale_x: float
    scale_y: float
    left: float
    top: float
    input_px: tuple[int, int] | None = None
    """Height and width that the network's own way to resize brings `pixels` to, if that is known."""

    @classmethod
    def unchanged(cls, picture: Image.Image) -> Self:
        """The picture (RGB) as it is, for networks with a way of their own to resize."""
        width, height = picture.size
        pixels = np.array(picture)
        return cls(pixels=pixels, width_px=width, height_px=height, scale_x=1.0, scale_y=1.0, left=0.0, top=0.0)

    @property
    def bucket(self) -> tuple[int, ...]:
        """What pictures of a batch have in common: the size of the input."""
        return self.input_px or self.pixels.shape

    @property
    def size_bytes(self) -> int:
        """Memory that it takes while it waits."""
        return self.pixels.nbytes


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The classes that are seen in one picture (K), and the pixels of each."""

    label_ids: npt.NDArray[np.int64]
    masks: tuple[Mask, ...]


@dataclass(frozen=True, kw_only=True)
class Instances:
    """What was found in one picture, best first. `boxes` is N x 4 (x_min, y_min, x_max, y_max in its pixels).

    `masks` and `regions` are None where the task has none.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    label_ids: npt.NDArray[np.int64]
    masks: tuple[Mask, ...] | None = None
    regions: Regions | None = None

    @classmethod
    def of_masks(cls, masks: Sequence[Mask | None], *, scores: Sequence[float], label_ids: Sequence[int]) -> Self:
        """Objects as their masks have them, which their boxes hold exactly; those without a pixel are left out."""
        kept = [(m, score, label_id) for m, score, label_id in zip(masks, scores, label_ids, strict=True) if m]
        return cls(
            boxes=np.array([m.box for m, _, _ in kept], np.float64).reshape(-1, 4),
            scores=np.array([score for _, score, _ in kept], np.float64),
            label_ids=np.array([label_id for _, _, label_id in kept], np.int64),
            masks=tuple(m for m, _, _ in kept),
        )


class Batched(Protocol):
    """A picture that is ready for a detector. Only those with the same `bucket` may share a batch."""

    @property
    def width_px(self) -> int:
        """Of the picture."""
        ...

    @property
    def height_px(self) -> int:
        """Of the picture."""
        ...

    @property
    def bucket(self) -> tuple[int, ...]:
        """What the pictures of a batch have in common."""
        ...

    @property
    def size_bytes(self) -> int:
        """Memory that it takes while it waits."""
        ...


_Ready = TypeVar("_Ready", bound=Batched)


class Detector(Protocol[_Ready]):
    """A loaded model."""

    labels: tuple[str, ...]
    first_label_id: int
    batch_size: int
    """Pictures that it is given together; lowered where memory turns out not to be enough for so many."""
    # It may have a `device_type`: with "cuda" pictures are decoded ahead in threads, which call `prepare`.

    def prepare(self, picture: Image.Image) -> _Ready:
        """The picture (RGB) as the detector wants it."""
        ...

    def detect(self, batch: Sequence[_Ready]) -> list[Instances]:
        """What is in each picture of a batch, all of one bucket."""
        ...


class Backend(Protocol):
    """A module `udfs/backends/<name>.py`."""

    def describe(self, options: DetectOptions) -> ModelInfo:
        """The model's facts, without loading it. Raises ModelError."""
        ...

    def load(self, options: DetectOptions) -> Detector:
        """The model, ready. Raises ModelError."""
        ...
