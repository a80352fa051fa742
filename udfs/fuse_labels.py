"""What several models found in a frame, fused to one row: the Arrow function of the stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ._pool import number_labels
from .detector_types import Instances
from .fusion import Fused, Pool, best_of_parents, gather, nms, soft_nms, weighted_boxes_fusion

Method = Literal["wbf", "nms", "soft_nms"]
Decay = Literal["gaussian", "linear"]
Labels = Literal["apart", "together"]
_FRAMES = 256  # of a batch, that are plain Python at a time: a cluster's may hold ten thousand
_EDGES = ("x_min", "y_min", "x_max", "y_max")
_COMMON = {"max_instances": None, "labels": "apart"}
_DECLARED: Mapping[tuple[str, str | None], Mapping[str, Any]] = {
    ("wbf", None): {"iou": 0.55, "score_threshold": 0.0},
    ("nms", None): {"iou": 0.5, "score_threshold": 0.0},
    ("soft_nms", "gaussian"): {"sigma": 0.5, "score_threshold": 0.001},
    ("soft_nms", "linear"): {"iou": 0.3, "score_threshold": 0.001},
}


@dataclass(frozen=True, kw_only=True)
class FuseOptions:
    """Settings of one fusion. `sources` are model_ids. What is None is as the method declares it."""

    sources: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    method: Method = "wbf"
    decay: Decay | None = None
    iou: float | None = None
    sigma: float | None = None
    score_threshold: float | None = None
    max_instances: int | None = None
    labels: Labels = "apart"

    def resolved(self) -> dict[str, Any]:
        """Every setting that the method heeds. Raises ValueError for one that it would ignore."""
        decay = (self.decay or "gaussian") if self.method == "soft_nms" else None
        words = f'method = "{self.method}"' + (f' with decay = "{decay}"' if decay else "")
        declared = _DECLARED[self.method, decay]
        given = {name: getattr(self, name) for name in ("iou", "sigma", "score_threshold")}
        given = {name: value for name, value in given.items() if value is not None}
        ignored = [*({"decay"} if self.decay and not decay else ()), *sorted({*given} - {*declared})]
        if ignored:
            raise ValueError(f"{', '.join(ignored)}: {words} has no such setting; leave it out")
        common = {name: getattr(self, name) for name in _COMMON}
        return {**declared, **given, **common}

    def model_id(self) -> str:
        """`fusion@<method>-1:<digest>`, of the sources in their order and of all that is not as the method declares."""
        decay = (self.decay or "gaussian") if self.method == "soft_nms" else None
        declared = {**_DECLARED[self.method, decay], **_COMMON}
        changed = {name: value for name, value in self.resolved().items() if value != declared[name]}
        if self.weights and len({*self.weights}) > 1:  # equal ones say nothing
            changed["weights"] = [float(weight) for weight in self.weights]
        if decay == "linear":
            changed["decay"] = decay
        text = json.dumps({"sources": self.sources, "settings": changed}, sort_keys=True)
        return f"fusion@{self.method}-1:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def fuse_labels(
    batches: Iterable[pa.RecordBatch], *, schema: pa.Schema, options: FuseOptions
) -> Iterator[pa.RecordBatch]:
    """One row per frame, with `schema`. The input has the frame's key and `labels`, the rows of all sources.

    Each of these has `model_id`, `frame_width_px`, `frame_height_px`, `instances` and `input_version`; see `fuse` for
    what comes of them.
    """
    model_id = options.model_id()
    for batch in batches:
        for start in range(0, batch.num_rows, _FRAMES):
            frames = batch.slice(start, _FRAMES).to_pylist()
            rows = [{**frame, "model_id": model_id, **fuse(frame["labels"], options=options)} for frame in frames]
            yield pa.RecordBatch.from_pylist(rows, schema=schema)


def fuse(labels: Sequence[Mapping[str, Any]], *, options: FuseOptions) -> dict[str, Any]:
    """What the sources found in one frame, fused; or `error`, with the reason sizes_differ or bad_boxes.

    Boxes are compared by the names of their labels; a label has the id that the first of the sources with that name in
    this frame gives it. `parents` are the instances that a fused one stands for, the most trusted first. Its mask is
    that of the parent with the highest score times weight times IoU with the fused box, and its box becomes that
    parent's, which holds the mask exactly. `input_version` is the smallest of the sources'.
    """
    found = {row["model_id"]: row for row in labels}
    rows = [found[source] for source in options.sources]
    sizes = [(row["frame_width_px"], row["frame_height_px"]) for row in rows]
    if len({*sizes}) > 1:
        told = ", ".join(f"{source} {w} x {h}" for source, (w, h) in zip(options.sources, sizes, strict=True))
        return {"error": _error("sizes_differ", f"the sources saw frames of different sizes: {told}; label it again")}
    try:
        instances = _fused_instances([row["instances"] for row in rows], options)
    except (ValueError, TypeError) as error:
        return {"error": _error("bad_boxes", f"{error}; sources are {', '.join(options.sources)}")}
    versions = [row["input_version"] for row in rows if row["input_version"] is not None]
    return {
        "frame_width_px": sizes[0][0],
        "frame_height_px": sizes[0][1],
        "instances": instances,
        "input_version": min(versions, default=None),
    }


def _fused_instances(found: Sequence[Sequence[Mapping[str, Any]]], options: FuseOptions) -> list[dict[str, Any]]:
    """The fused instances as the table holds them, best first."""
    names, numbers = number_labels([[one["label"] for one in each] for each in found])
    sources = [_as_instances(each, ids) for each, ids in zip(found, numbers, strict=True)]
    settings = options.resolved()
    pool = gather(sources, weights=options.weights, labels=options.labels)
    fused = _suppressed(pool, options.method, settings)
    label_ids: dict[str, int] = {}
    for one in (one for each in found for one in each):
        label_ids.setdefault(one["label"], one["label_id"])
    weights = options.weights or (1.0,) * len(sources)
    trusted = [replace(each, scores=each.scores * weight) for each, weight in zip(sources, weights, strict=True)]
    masks = best_of_parents(fused, trusted, [[one if one.get("mask") else None for one in each] for each in found])
    rows = []
    for box, score, number, mask, parents in zip(
        fused.instances.boxes.tolist(), fused.instances.scores.tolist(), fused.instances.label_ids, masks,
        fused.parents, strict=True,
    ):  # fmt: skip
        label = names[number]
        rows.append({
            "label_id": label_ids[label], "label": label, "score": score,
            "box": mask["box"] if mask else dict(zip(_EDGES, box, strict=True)),
            "area_px": mask and mask["area_px"], "mask": mask and mask["mask"],
            "parents": [{"model_id": options.sources[s], "instance_index": index} for s, index in parents],
        })  # fmt: skip
    kept = [row for row in rows if row["score"] >= settings["score_threshold"]]
    return kept[: settings["max_instances"]]


def _suppressed(pool: Pool, method: Method, settings: Mapping[str, Any]) -> Fused:
    if method == "wbf":
        return weighted_boxes_fusion(pool, iou=settings["iou"])
    if method == "nms":
        return nms(pool, overlap=settings["iou"])
    least = settings["score_threshold"]
    if "sigma" in settings:
        return soft_nms(pool, method="gaussian", sigma=settings["sigma"], score_threshold=least)
    return soft_nms(pool, method="linear", overlap=settings["iou"], score_threshold=least)


def _as_instances(found: Sequence[Mapping[str, Any]], label_ids: np.ndarray) -> Instances:
    boxes = [[one["box"][edge] for edge in _EDGES] for one in found]
    scores = [one["score"] for one in found]
    return Instances(
        boxes=np.array(boxes, np.float64).reshape(-1, 4), scores=np.array(scores, np.float64), label_ids=label_ids
    )


def _error(reason: str, message: str) -> dict[str, str | None]:
    return {"reason": reason, "message": message, "payload": None}
