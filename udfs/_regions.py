"""From scores of classes to the regions of a picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .detector_types import Instances, Regions
from .masks import find_mask

if TYPE_CHECKING:
    import torch


def find_regions(bands: Iterable[torch.Tensor], *, first_label_id: int, kept: Collection[int] | None) -> Instances:
    """The class that is likeliest at each pixel, from scores (classes x rows x width) in bands of some rows.

    The first class has the id `first_label_id`; `kept` are the ids that are wanted, None for all.
    """
    classes = np.concatenate([band.argmax(dim=0).cpu().numpy() for band in bands])
    return regions_of(classes + first_label_id, kept=kept)


def regions_of(label_ids: npt.NDArray[np.int64], *, kept: Collection[int] | None) -> Instances:
    """The regions of a picture of which `label_ids` (height x width) are the classes."""
    there = [int(found) for found in np.unique(label_ids) if kept is None or int(found) in kept]
    masks = [find_mask(label_ids == label_id) for label_id in there]
    nothing = Instances.of_masks([], scores=[], label_ids=[])
    regions = Regions(label_ids=np.array(there, np.int64), masks=tuple(mask for mask in masks if mask))
    return Instances(boxes=nothing.boxes, scores=nothing.scores, label_ids=nothing.label_ids, regions=regions)
