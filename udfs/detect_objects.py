"""Pictures in, boxes out: the pandas function that stage and DataFrame function share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Generic, TypeVar

import pandas as pd
import pyarrow as pa
from PIL import Image

from ._ahead import map_ahead
from ._errors import MediaError, ModelError
from ._halving import in_halves
from ._watched import HangsError, Watched
from .backends import find_backend
from .detector_types import Batched, DetectOptions, Detector, Instances
from .frame_types import Limits
from .frames_again import frames_again
from .masks import Mask, union_of
from .stored_picture import open_stored
from .views import load_detector

MAX_ROWS = 256
MAX_SIZES = 8  # of pictures that wait for others of their size
MAX_WAITING_BYTES = 512 << 20
DECODE_THREADS = 4  # beside a GPU
LOAD_LIMIT_S = 600.0

T = TypeVar("T")
Key = TypeVar("Key")
"""What a picture came with: the columns that its row keeps."""
Picture = Callable[[], Image.Image]
"""Decodes a picture. Raises MediaError."""


def detect_objects(
    batches: Iterable[pd.DataFrame],
    *,
    columns: Sequence[str],
    options: DetectOptions,
    model_id: str,
    max_pixels: int,
    batch_limit_s: float,
) -> Iterator[pd.DataFrame]:
    """One row per picture, with the input's columns but `image`.

    Added are `frame_width_px`, `frame_height_px`, `instances`, `regions` and `error`. `columns` are those of the
    output, in their order; what is neither among these nor in the input is null, except `model_id`. Pictures of equal
    input size are evaluated in batches of the model's size, filled across the frames of `batches`. A picture that
    cannot be decoded gives a row with `error`; reasons: image_missing, image_unreadable, image_unsupported,
    image_too_large.

    Raises ModelError, with the model's id, for a model that cannot be loaded, gives no numbers or hangs.
    """

    def pictures() -> Iterator[tuple[tuple[pd.DataFrame, int], Picture]]:
        for batch in batches:
            passed = batch.drop(columns="image")  # kept as pandas has it: to take values out would change their types
            for place, image in enumerate(batch["image"]):
                yield (passed, place), partial(open_stored, image, max_pixels=max_pixels)

    model = _Model(options, model_id=model_id, limit_s=batch_limit_s)
    for rows in model.each(_labelled(pictures(), model)):
        yield _frame(rows, columns, model_id)


def detect_again(
    batches: Iterable[pa.RecordBatch],
    *,
    schema: pa.Schema,
    options: DetectOptions,
    model_id: str,
    limits: Limits,
    batch_limit_s: float,
) -> Iterator[pa.RecordBatch]:
    """The same for frames by reference, as rows of `schema`: each row of `batches` is a `part` of `frames_again`.

    Decoding goes on in its own process while the model works. Reasons are those of `frames_again`.
    """

    def pictures() -> Iterator[tuple[dict[str, Any], Picture]]:
        for batch in batches:
            for part in batch.to_pylist():
                key = {"media_id": part["media_id"], "stream_index": part["stream_index"], "model_id": model_id}
                for pts, picture in frames_again(part, limits=limits):
                    yield key | {"pts": pts}, partial(_decoded, picture)

    model = _Model(options, model_id=model_id, limit_s=batch_limit_s)
    for rows in model.each(_labelled(pictures(), model)):
        yield pa.RecordBatch.from_pylist([key | found for key, found in rows], schema=schema)


def _decoded(picture: Image.Image | MediaError) -> Image.Image:
    if isinstance(picture, MediaError):
        raise picture
    return picture


def _labelled(pictures: Iterable[tuple[Key, Picture]], model: _Model) -> Iterator[list[tuple[Key, dict[str, Any]]]]:
    """What is in each picture, or its error, beside what it came with, some rows at a time."""
    rows: list[tuple[Key, dict[str, Any]]] = []
    waiting: dict[tuple[int, ...], list[_Waiting[Key]]] = {}  # by size: padding depends on neighbours
    size_bytes = 0
    for key, prepared in _prepared(pictures, model):
        if isinstance(prepared, MediaError):
            rows.append((key, {"error": prepared.as_row()}))
        else:
            alike = waiting.setdefault(prepared.bucket, [])
            alike.append(_Waiting(key=key, prepared=prepared))
            size_bytes += prepared.size_bytes
            full = [prepared.bucket] if len(alike) >= model.batch_size else []
            while full or len(waiting) > MAX_SIZES or size_bytes > MAX_WAITING_BYTES:
                batch = waiting.pop(full.pop() if full else next(iter(waiting)))
                size_bytes -= sum(one.prepared.size_bytes for one in batch)
                rows += _evaluated(model, batch)
        if len(rows) >= MAX_ROWS:
            yield rows
            rows = []
    for alike in waiting.values():
        rows += _evaluated(model, alike)
    if rows:
        yield rows


def _prepared(pictures: Iterable[tuple[Key, Picture]], model: _Model) -> Iterator[tuple[Key, Batched | MediaError]]:
    """The pictures as the model wants them, or what is wrong with them.

    A GPU would wait for one thread that decodes; a processor has no thread to spare.
    """

    def prepare(one: tuple[Key, Picture]) -> tuple[Key, Batched | MediaError]:
        key, picture = one
        try:
            return key, model.prepare(picture())
        except MediaError as error:
            return key, error

    pictures = iter(pictures)
    first = next(pictures, None)
    if first is not None:
        yield prepare(first)  # in this thread, which loads the model
        threads = DECODE_THREADS if model.is_on_gpu else 0
        yield from map_ahead(prepare, pictures, threads=threads, most=2 * DECODE_THREADS)


@dataclass(frozen=True, kw_only=True)
class _Waiting(Generic[Key]):
    """A picture on its way into a batch, and what it came with."""

    key: Key
    prepared: Batched


class _Model:
    """The process's detector, watched: what goes wrong says which model it was."""

    def __init__(self, options: DetectOptions, *, model_id: str, limit_s: float) -> None:
        self._id, self._limit_s, self._options = model_id, limit_s, options
        self._names: dict[int, tuple[int, str | None] | None] = {}
        self._detector: Detector | None = None
        # The thread also loads: threads of torch are settings of a thread. It stays when another model comes, since
        # decoders that were started in it end with it.
        if os.getpid() not in _threads:
            _threads[os.getpid()] = Watched("detector")
        self._thread = _threads[os.getpid()]

    def each(self, values: Iterable[T]) -> Iterator[T]:
        """The values, which are made with this model, each in the model's thread. Raises ModelError."""
        try:
            yield from self._thread.each(values)
        except HangsError as error:
            _forget()
            raise ModelError(f"model {self._id} hangs: {error}") from None

    @property
    def batch_size(self) -> int:
        return self._loaded().batch_size

    @property
    def is_on_gpu(self) -> bool:
        return getattr(self._loaded(), "device_type", "cpu") == "cuda"

    def prepare(self, picture: Image.Image) -> Batched:
        return self._loaded().prepare(picture)

    def detect(self, batch: Sequence[Batched]) -> list[Instances]:
        detector = self._loaded()
        with self._limited(self._limit_s, advice="mend it, or raise batch_limit_s for a slow machine"):
            found, most = in_halves(detector.detect, batch)
        if most < len(batch):
            detector.batch_size = most
        return found

    def label(self, label_id: int) -> tuple[int, str | None] | None:
        """Id and name that a label is stored with; the name is None for one that the model does not have.

        None for one that the ontology drops.
        """
        if label_id not in self._names:
            detector, ontology = self._loaded(), self._options.ontology
            place = label_id - detector.first_label_id
            name = detector.labels[place] if 0 <= place < len(detector.labels) else None
            if name is None or ontology is None:
                self._names[label_id] = label_id, name
            else:
                self._names[label_id] = ontology.mapping([name])[name]
        return self._names[label_id]

    def _loaded(self) -> Detector:
        """Loaded for the first picture, kept for the process's further tasks; another model takes its place."""
        if self._detector is None:
            key = (os.getpid(), self._id, self._options)  # weights may change under one path
            if key not in _kept:
                _let_go()
                with self._limited(LOAD_LIMIT_S, advice="mend the model"):
                    _kept[key] = self._load()
                gc.freeze()  # Spark collects after each task, and would walk over all that the model brought along
            self._detector = _kept[key]
        return self._detector

    def _load(self) -> Detector:
        """Load what the id names: whoever planned the work may have seen other files than there are here and now."""
        backend = find_backend(self._options.backend)
        detector = load_detector(backend, self._options)
        if (found := backend.describe(self._options).model_id(self._options)) != self._id:
            raise ModelError(f"its files are those of {found} here: they were replaced, or are not the same everywhere")
        return detector

    @contextmanager
    def _limited(self, limit_s: float, *, advice: str) -> Iterator[None]:
        try:
            with self._thread.limited(limit_s, advice=advice):
                yield
        except Exception as error:
            raise ModelError(f"model {self._id}: {str(error) or type(error).__name__}") from error


_kept: dict[tuple[int, str, DetectOptions], Detector] = {}
_threads: dict[int, Watched] = {}  # by process


def _let_go() -> None:
    """Let go of the model that there is."""
    if _kept:
        _kept.clear()
        gc.unfreeze()  # else what refers to itself would stay for ever
        gc.collect()


def _forget() -> None:
    """Let go of the model that there is, and of its thread, which ends once it has nothing to do."""
    for thread in _threads.values():
        thread.close()
    _threads.clear()
    _let_go()


def _evaluated(model: _Model, waiting: Sequence[_Waiting[Key]]) -> list[tuple[Key, dict[str, Any]]]:
    results = model.detect([one.prepared for one in waiting])
    return [
        (
            one.key,
            {
                "frame_width_px": one.prepared.width_px,
                "frame_height_px": one.prepared.height_px,
                "instances": _instances(found, model.label),
                "regions": _regions(found, model.label),
            },
        )
        for one, found in zip(waiting, results, strict=True)
    ]


_Naming = Callable[[int], tuple[int, str | None] | None]


def _instances(found: Instances, naming: _Naming) -> list[dict[str, Any]] | None:
    """The objects; none at all where only regions were asked for."""
    if found.regions is not None and found.masks is None:
        return None
    names = ("x_min", "y_min", "x_max", "y_max")
    masks = found.masks or [None] * len(found.scores)
    values = zip(found.label_ids.tolist(), found.scores.tolist(), found.boxes.tolist(), masks, strict=True)
    return [
        {
            "label_id": meant[0], "label": meant[1], "score": score, "box": dict(zip(names, box, strict=True)),
            "area_px": mask and mask.area_px, "mask": mask and mask.rle, "parents": None,
        }
        for label_id, score, box, mask in values
        if (meant := naming(label_id)) is not None
    ]  # fmt: skip


def _regions(found: Instances, naming: _Naming) -> list[dict[str, Any]] | None:
    """The classes; those that have become one, as one."""
    if found.regions is None:
        return None
    parts: dict[tuple[int, str | None], list[Mask]] = {}
    for label_id, mask in zip(found.regions.label_ids.tolist(), found.regions.masks, strict=True):
        if (meant := naming(label_id)) is not None:
            parts.setdefault(meant, []).append(mask)
    together = {meant: union_of(masks) for meant, masks in parts.items()}
    return [
        {"label_id": label_id, "label": label, "area_px": mask.area_px, "mask": mask.rle}
        for (label_id, label), mask in together.items()
    ]


def _frame(
    rows: Sequence[tuple[tuple[pd.DataFrame, int], dict[str, Any]]], columns: Sequence[str], model_id: str
) -> pd.DataFrame:
    parts = [[key for key, _ in part] for _, part in groupby(rows, lambda row: id(row[0][0]))]  # of one frame
    found = pd.concat([part[0][0].iloc[[place for _, place in part]] for part in parts], ignore_index=True)
    texts = [name for name in found if isinstance(found[name].dtype, pd.StringDtype)]
    found = found.astype(dict.fromkeys(texts, object))  # or they stay in pieces, which Spark does not take
    for name in columns:
        if name not in found.columns:
            values = [model_id if name == "model_id" else new.get(name) for _, new in rows]
            found[name] = pd.Series(values, dtype=object)
    return found.reindex(columns=list(columns))
