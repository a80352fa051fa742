"""What is done with boxes wherever they come from: overlaps, and sets of instances put together or picked from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from .detector_types import Instances

Floats = npt.NDArray[np.float64]
Metric = Literal["iou", "ios"]
"""What two boxes share, as a share of their union, or of the smaller one: 1 for a part that lies in its whole."""

TINY = np.finfo(np.float64).tiny


def areas(boxes: Floats) -> Floats:
    """Areas of boxes (..., 4) in square pixels; 0 for a box whose edges are in the wrong order."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def overlaps(boxes: Floats, others: Floats, *, metric: Metric = "iou") -> Floats:
    """How far boxes (..., 4) overlap others, broadcast as numpy does it. What has no area overlaps nothing."""
    reach = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    np.maximum(reach, 0.0, out=reach)
    shared = reach[..., 0] * reach[..., 1]
    one, other = areas(boxes), areas(others)
    whole = one + other - shared if metric == "iou" else np.minimum(one, other)
    return shared / np.maximum(whole, TINY)


def concatenate(parts: Sequence[Instances]) -> Instances:
    """Instances of all parts, in their order; of no part, none."""
    nothing = Instances(boxes=np.zeros((0, 4)), scores=np.zeros(0), label_ids=np.zeros(0, np.int64))
    parts = [nothing, *parts]
    return Instances(
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        label_ids=np.concatenate([part.label_ids for part in parts]),
    )


def take(instances: Instances, places: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Instances:
    """Those at the given places, in their order, or those that a mask keeps."""
    return Instances(
        boxes=instances.boxes[places], scores=instances.scores[places], label_ids=instances.label_ids[places]
    )
