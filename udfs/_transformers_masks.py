"""Models of Hugging Face that put out masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

from ._regions import find_regions, regions_of
from ._transformers import Network
from .detector_types import Instances, Prepared
from .masks import Extent, Mask, find_mask, in_bands

_LEAST_SHARE = 0.8
"""Of an object's likely pixels, how many must be its own in the end (arXiv:1901.02446 and those that follow it)."""


class Classes(Network):
    """Networks that say of every pixel to which class it belongs, such as SegFormer."""

    makers = (AutoImageProcessor, AutoModelForSemanticSegmentation)

    def _found(self, output: Any, given: Any, batch: Sequence[Prepared]) -> list[Instances]:
        self.check_numbers(output.logits)
        return [
            find_regions(in_bands(scores.float(), size=_size(one)), first_label_id=0, kept=self.classes)
            for scores, one in zip(output.logits, batch, strict=True)
        ]


class Queries(Network):
    """Networks whose queries stand for an object or region each, with a mask: MaskFormer, Mask2Former, DETR.

    Masks are made of the scores as the papers do (Cheng et al., arXiv:2107.06278 and arXiv:2112.01527), at the size of
    the picture and without what was padded; the processors of Hugging Face take the way over 384 x 384 pixels.
    """

    makers = (AutoImageProcessor, AutoModelForUniversalSegmentation)

    def _found(self, output: Any, given: Any, batch: Sequence[Prepared]) -> list[Instances]:
        is_detr = "pred_masks" in output
        logits, grids = (output.logits, output.pred_masks) if is_detr else (
            output.class_queries_logits, output.masks_queries_logits
        )  # fmt: skip
        self.check_numbers(logits, grids)
        shares = logits.float().softmax(dim=-1)[..., :-1]  # the last one means nothing is there
        make = {"instance": self._objects, "panoptic": self._panoptic, "semantic": self._semantic}[
            self.settings["task"]
        ]
        extent = _extent(given, grids)
        return [
            make(share, grid, extent, prepared)
            for share, grid, prepared in zip(shares, grids.float(), batch, strict=True)
        ]

    def _objects(self, shares: torch.Tensor, grids: torch.Tensor, extent: Extent, prepared: Prepared) -> Instances:
        """Each query with each likely label; the score is that of the label times that of the mask's pixels."""
        if self.classes is not None:
            shares = torch.stack([s if n in self.classes else 0 * s for n, s in enumerate(shares.T)], dim=1)
        queries, labels = (shares > self.settings["score_threshold"]).nonzero(as_tuple=True)
        order = shares[queries, labels].argsort(descending=True, stable=True)[: self.settings["max_instances"]]
        found = []
        for query, label in zip(queries[order].tolist(), labels[order].tolist(), strict=True):
            mask, likelihood = _mask(grids[query], extent, prepared)
            found.append((float(shares[query, label]) * likelihood, label, mask))
        found = [one for one in found if one[0] > self.settings["score_threshold"]]
        found.sort(key=lambda one: -one[0])
        return Instances.of_masks(
            [mask for *_, mask in found], scores=[s for s, *_ in found], label_ids=[label for _, label, _ in found]
        )

    def _semantic(self, shares: torch.Tensor, grids: torch.Tensor, extent: Extent, prepared: Prepared) -> Instances:
        scores = torch.einsum("ql,qhw->lhw", shares, grids.sigmoid())
        bands = in_bands(scores, size=_size(prepared), extent=extent)
        return find_regions(bands, first_label_id=0, kept=self.classes)

    def _panoptic(self, shares: torch.Tensor, grids: torch.Tensor, extent: Extent, prepared: Prepared) -> Instances:
        """Each pixel to the likeliest query; a query keeps its pixels where those are most of what it is likely at."""
        scores, labels = shares.max(dim=-1)
        nothing = 1 - shares.sum(dim=-1)
        likely = ((scores > self.settings["score_threshold"]) & (scores > nothing)).nonzero()[:, 0]
        likely = likely[scores[likely].argsort(descending=True, stable=True)]
        scores, labels = scores[likely], labels[likely]
        owners, wide = np.full(_size(prepared), -1), np.zeros(len(likely), np.int64)
        row = 0
        for band in in_bands(grids[likely], size=_size(prepared), extent=extent) if len(likely) else ():
            is_on = band > 0
            owner = (band.sigmoid() * scores[:, None, None]).argmax(dim=0, keepdim=True)
            own = torch.where(is_on.gather(0, owner), owner, -1)[0]
            owners[row : row + len(own)] = own.cpu().numpy()
            wide += is_on.flatten(1).sum(dim=1).cpu().numpy()
            row += len(own)
        own = np.bincount(owners[owners >= 0], minlength=len(likely))
        kept = (own > 0) & (own >= _LEAST_SHARE * wide)
        if self.classes is not None:
            kept &= np.isin(labels.cpu().numpy(), self.classes)
        places = np.flatnonzero(kept)[: self.settings["max_instances"]]
        found = Instances.of_masks(
            [find_mask(owners == place) for place in places],
            scores=scores[places].tolist(), label_ids=labels[places].tolist(),
        )  # fmt: skip
        names = np.full(len(likely) + 1, len(self.labels), np.uint16)  # the last one is of pixels without an owner
        names[places] = labels[places].cpu().numpy()
        regions = regions_of(names[owners], first_label_id=0, kept=range(len(self.labels))).regions
        return Instances(
            boxes=found.boxes, scores=found.scores, label_ids=found.label_ids, masks=found.masks, regions=regions
        )


def _size(prepared: Prepared) -> tuple[int, int]:
    return prepared.height_px, prepared.width_px


def _mask(grid: torch.Tensor, extent: Extent, prepared: Prepared) -> tuple[Mask | None, float]:
    """The mask of a query, and how likely its pixels are on average."""
    parts, likely = [], 0.0
    for band in in_bands(grid[None], size=_size(prepared), extent=extent):
        is_on = band[0] > 0
        likely += float(band[0][is_on].sigmoid().sum())
        parts.append(is_on.cpu().numpy())
    mask = find_mask(np.concatenate(parts))
    return mask, likely / mask.area_px if mask else 0.0


def _extent(given: Any, grids: torch.Tensor) -> Extent:
    """The part of the grids that the pictures cover: processors pad at the right and below."""
    height, width = given["pixel_values"].shape[-2:]
    rows, columns = grids.shape[-2:]
    seen = given.get("pixel_mask")
    if seen is None:
        return Extent(rows=rows, columns=columns)
    down, across = int(seen[0].any(dim=1).sum()), int(seen[0].any(dim=0).sum())
    return Extent(rows=rows * down / height, columns=columns * across / width)
