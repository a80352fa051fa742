"""Boxes of several models, tiles or views of one picture, brought together.

    pool = gather([of_one_model, of_another], weights=(2, 1))
    fused = weighted_boxes_fusion(pool, iou=0.55)
    fused.instances, fused.parents

Boxes are compared within a label. `label_ids` must mean the same in every source: models number their labels as they
like, so map them first by name, with `number_labels`. Two boxes match where they overlap by more than a threshold; a
box without an area overlaps nothing and stays by itself. Equal scores are put in order by source, then by place in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from ._boxes import TINY, Floats, Metric, areas, overlaps, take
from ._pool import Parent, Places, Pool, gather, number_labels
from .detector_types import Instances

__all__ = [
    "Fused",
    "Parent",
    "Pool",
    "best_of_parents",
    "gather",
    "greedy_merging",
    "nms",
    "number_labels",
    "soft_nms",
    "weighted_boxes_fusion",
]

Matches = Literal["all", "other sources"]
_T = TypeVar("_T")
_LEAST_MASS = 1e-12  # of a box with the score 0, which may be alone in its cluster


@dataclass(frozen=True, kw_only=True)
class Fused:
    """What came out, best first, and for each the instances that it stands for, the most trusted first."""

    instances: Instances
    parents: tuple[tuple[Parent, ...], ...]


def nms(pool: Pool, *, overlap: float = 0.5, metric: Metric = "iou", matches: Matches = "all") -> Fused:
    """Non-maximum suppression: of boxes that match, the first. Its parents are itself and those that it suppresses.

    With matches "other sources" two boxes of one source, which tells them apart, do not match.
    """
    return _fused(pool, pool.instances, _greedy_clusters(pool, overlap=overlap, metric=metric, matches=matches))


def greedy_merging(pool: Pool, *, overlap: float = 0.5, metric: Metric = "ios", matches: Matches = "all") -> Fused:
    """Greedy non-maximum merging, as SAHI does it (Akyon et al., arXiv:2202.06934).

    The first box and those that match it become the smallest box that holds them all, with the highest of their scores.
    What matches only the larger box stays apart, or a row of objects would run together.
    """
    clusters = _greedy_clusters(pool, overlap=overlap, metric=metric, matches=matches)
    boxes, scores = pool.instances.boxes.copy(), pool.instances.scores.copy()
    for cluster in clusters:
        own = pool.instances.boxes[cluster]
        boxes[cluster[0]] = [*own[:, :2].min(axis=0), *own[:, 2:].max(axis=0)]
        scores[cluster[0]] = scores[cluster].max()
    return _fused(pool, replace(pool.instances, boxes=boxes, scores=scores), clusters)


def soft_nms(
    pool: Pool,
    *,
    method: Literal["linear", "gaussian"] = "gaussian",
    sigma: float = 0.5,
    overlap: float = 0.3,
    score_threshold: float = 0.001,
) -> Fused:
    """Soft-NMS (Bodla et al., arXiv:1704.04503): boxes stay as they are, scores sink by the IoU with better ones.

    "gaussian": by exp(-IoU^2 / `sigma`); "linear": by 1 - IoU where that is above `overlap`. What sinks below
    `score_threshold` is left out. Each box is its own and only parent. Raises ValueError for a sigma that is not
    above 0.
    """
    if not sigma > 0:
        raise ValueError(f"sigma {sigma}: allowed is a number above 0; the smaller, the closer to plain suppression")
    boxes, scores = pool.instances.boxes, pool.instances.scores.copy()
    for waiting in pool.by_class():
        while len(waiting := waiting[scores[waiting] >= score_threshold]) > 1:
            best = int(np.argmax(scores[waiting] * pool.weights[waiting]))
            first, waiting = waiting[best], np.delete(waiting, best)
            iou = overlaps(boxes[first], boxes[waiting])
            scores[waiting] *= np.exp(-(iou**2) / sigma) if method == "gaussian" else 1 - iou * (iou > overlap)
    kept = np.flatnonzero(scores >= score_threshold)
    return _fused(pool, replace(pool.instances, scores=scores), [*kept[:, None]])


def weighted_boxes_fusion(pool: Pool, *, iou: float = 0.55) -> Fused:
    """Weighted boxes fusion (Solovyev et al., arXiv:1910.13302).

    A box joins the cluster whose fused box it overlaps most, by more than `iou`, or begins one. Edges are the members'
    mean, weighted by score times weight. The score is the sum of the members' scores times weights, over the sum of
    the weights of the members or of the sources, whichever is more: what few sources saw sinks. With equal weights
    this is the paper's mean * min(members, sources) / sources. It is never above the best score of the members.
    """
    boxes, scores, weights = pool.instances.boxes, pool.instances.scores, pool.weights
    masses = np.maximum(scores * weights, _LEAST_MASS)
    clusters = [
        places[cluster]
        for places in pool.by_class()
        for cluster in _weighted_clusters(boxes[places], masses[places], iou=iou)
    ]
    if not clusters:
        return _fused(pool, pool.instances, [])
    order = np.concatenate(clusters)
    starts = np.cumsum([0, *map(len, clusters[:-1])])
    sums = np.add.reduceat((masses[:, None] * boxes)[order], starts)
    means = sums / np.add.reduceat(masses[order], starts)[:, None]
    # The mean of equal edges may be off by the last bit, and out of the picture.
    means = np.clip(means, np.minimum.reduceat(boxes[order], starts), np.maximum.reduceat(boxes[order], starts))
    heights = np.add.reduceat((scores * weights)[order], starts)
    heights /= np.maximum(np.add.reduceat(weights[order], starts), pool.total_weight)
    firsts = order[starts]
    boxes, scores = boxes.copy(), scores.copy()
    boxes[firsts], scores[firsts] = means, heights
    return _fused(pool, replace(pool.instances, boxes=boxes, scores=scores), clusters)


def best_of_parents(
    fused: Fused, sources: Sequence[Instances], values: Sequence[Sequence[_T | None]]
) -> list[_T | None]:
    """For each fused box the value, such as a mask, of the parent with the highest score times IoU with the box.

    Masks have no mean that is worth having: half of two outlines is neither. The score says that a parent is right,
    the IoU that its outline fits the box as it is now. `values` holds those of each source, in its order; parents whose
    value is None are passed over, and a box of such alone has None.
    """
    chosen: list[_T | None] = []
    for box, parents in zip(fused.instances.boxes, fused.parents, strict=True):
        able = [(source, index) for source, index in parents if values[source][index] is not None]
        fits = [sources[source].scores[index] * overlaps(box, sources[source].boxes[index]) for source, index in able]
        source, index = able[int(np.argmax(fits))] if able else parents[0]
        chosen.append(values[source][index])
    return chosen


def _greedy_clusters(pool: Pool, *, overlap: float, metric: Metric, matches: Matches) -> list[Places]:
    """Each with the most trusted box that was left, then those that it matches."""
    boxes, clusters = pool.instances.boxes, []
    sources = np.array([source for source, _ in pool.parents], np.intp)
    for waiting in pool.by_class():
        while len(waiting):
            first, waiting = waiting[:1], waiting[1:]
            alike = overlaps(boxes[first], boxes[waiting], metric=metric) > overlap
            if matches == "other sources":
                alike &= sources[waiting] != sources[first]
            clusters.append(np.concatenate([first, waiting[alike]]))
            waiting = waiting[~alike]
    return clusters


def _weighted_clusters(boxes: Floats, masses: Floats, *, iou: float) -> list[list[int]]:
    """Places of the boxes of each cluster. Rows of edges and plain numbers: here is where fusion spends its time."""
    edges = np.ascontiguousarray(boxes.T)
    fused, sizes = np.empty_like(edges), np.empty(len(boxes))
    sums: list[tuple[float, ...]] = []
    found: list[list[int]] = []
    for place, (box, size, mass) in enumerate(zip(boxes.tolist(), areas(boxes).tolist(), masses.tolist(), strict=True)):
        count, own = len(found), edges[:, place, None]
        reach = np.minimum(fused[2:, :count], own[2:]) - np.maximum(fused[:2, :count], own[:2])
        np.maximum(reach, 0.0, out=reach)
        shared = reach[0] * reach[1]
        ious = shared / np.maximum(sizes[:count] + (size - shared), TINY)
        best = int(ious.argmax()) if count else 0
        if count and ious[best] > iou:
            *total, whole = sums[best] = tuple(a + mass * b for a, b in zip(sums[best], (*box, 1.0), strict=True))
            x_min, y_min, x_max, y_max = mean = [edge / whole for edge in total]
            found[best].append(place)
            fused[:, best], sizes[best] = mean, (x_max - x_min) * (y_max - y_min)
        else:
            found.append([place])
            sums.append((*(mass * edge for edge in box), mass))
            fused[:, count], sizes[count] = box, size
    return found


def _fused(pool: Pool, instances: Instances, clusters: Sequence[Places]) -> Fused:
    """What has become of the first of each cluster, best first; ties in the order of the pool."""
    firsts = np.array([cluster[0] for cluster in clusters], np.intp)
    order = np.lexsort((firsts, -instances.scores[firsts]))
    return Fused(
        instances=take(instances, firsts[order]),
        parents=tuple(tuple(pool.parents[place] for place in clusters[each]) for each in order),
    )
