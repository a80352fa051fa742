"""From scores of classes to the regions of a picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
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
    classes = np.concatenate([band.argmax(dim=0).cpu().numpy().astype(np.uint16) for band in bands])
    return regions_of(classes, first_label_id=first_label_id, kept=kept)


def regions_of(classes: npt.NDArray[np.uint16], *, first_label_id: int, kept: Collection[int] | None) -> Instances:
    """The regions of a picture of which `classes` (height x width) are those of its pixels, counted from 0."""
    there = {int(each): first_label_id + int(each) for each in np.flatnonzero(np.bincount(classes.ravel()))}
    wanted = {each: label_id for each, label_id in there.items() if kept is None or label_id in kept}
    masks = tuple(mask for each in wanted if (mask := find_mask(classes == each)))
    regions = Regions(label_ids=np.array([*wanted.values()], np.int64), masks=masks)
    return replace(Instances.of_masks([], scores=[], label_ids=[]), masks=None, regions=regions)
