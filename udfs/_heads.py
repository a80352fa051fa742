"""From what a network puts out to boxes: decoding, thresholds and non-maximum suppression.

`yolox`: Ge et al., YOLOX: Exceeding YOLO Series in 2021 (arXiv:2107.08430). Per cell of grids with the card's strides:
centre offset and log size in strides, objectness, then the scores of the classes.

`detr`: Carion et al., End-to-End Object Detection with Transformers (arXiv:2005.12872), and those that follow it. Per
query the logits of the labels, and centre and size as shares of the input. With a background label the scores are a
softmax over all; without one each label has a sigmoid of its own (Deformable DETR, arXiv:2010.04159).

`ssd`: Liu et al., SSD: Single Shot MultiBox Detector (arXiv:1512.02325), and those that follow it. Per default box
(prior) a box and the logits or scores of every label. Boxes are offsets to the priors: of the centre in shares of the
prior's size, and the log of the size's share, both divided by a variance; or the network has decoded them.

Masks follow the rest of the output: likelihoods over the box of each object ("box": He et al., Mask R-CNN,
arXiv:1703.06870), logits over the input ("input"), or factors of grids over the input, which come last ("prototypes":
Bolya et al., YOLACT, arXiv:1904.02689).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torchvision.ops import batched_nms, nms

from ._errors import ModelError
from .cards import Card


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How boxes are chosen."""

    score_threshold: float
    nms_iou: float | None
    max_instances: int
    labels: tuple[int, ...] | None = None  # positions of those to keep
    masks: bool = False  # whether they are wanted


@dataclass(frozen=True, kw_only=True)
class Found:
    """Boxes (N x 4, input pixels), scores and positions of labels, on the CPU, best first.

    `masks` (N x rows x columns) are likelihoods over the boxes or logits over the input, as the card says; or None.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor | None = None


def find(output: Any, card: Card, choice: Choice, *, count: int) -> list[Found]:
    """What was found in each of the `count` pictures of a batch. Raises ModelError for an output of another form."""
    found = list(_HEADS[card.head.kind](output, card, choice))
    if len(found) != count:
        raise ModelError(f"model {card.name}@{card.version} gave {len(found)} results for {count} pictures")
    return [_chosen(each, card=card, choice=choice) for each in found]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Boxes (N x 4), scores and labels of one picture; `places` are their masks', which `masks` makes of some."""

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    places: torch.Tensor
    masks: Callable[[torch.Tensor], torch.Tensor] | None = None


def _yolox(output: Any, card: Card, choice: Choice) -> Iterator[Candidates]:
    """Candidates of every picture. Only cells whose objectness can reach the threshold are looked at."""
    raw = output[0] if isinstance(output, list | tuple) and len(output) == 1 else output
    cells, strides = _grid(card.input.width_px, card.input.height_px, card.head.strides)
    columns = 5 + len(card.labels)
    if not isinstance(raw, torch.Tensor) or raw.ndim != 3 or raw.shape[1:] != (len(cells), columns):
        shape = tuple(raw.shape) if isinstance(raw, torch.Tensor) else type(raw).__name__
        raise ModelError(
            f"model {card.name}@{card.version} gave {shape}; its card promises (pictures, {len(cells)}, {columns}): "
            f"{len(cells)} cells of the strides {list(card.head.strides)}, 5 + {len(card.labels)} labels for each"
        )
    _check_numbers(raw, card)
    cells, strides = cells.to(raw.device), strides.to(raw.device)
    for picture in raw.float():
        near = (picture[:, 4] > choice.score_threshold).nonzero()[:, 0]
        kept = picture[near]
        boxes = _corners((kept[:, :2] + cells[near]) * strides[near], kept[:, 2:4].exp() * strides[near])
        yield _labelled(boxes, kept[:, 4:5] * kept[:, 5:], card, choice)


def _labelled(
    boxes: torch.Tensor, scores: torch.Tensor, card: Card, choice: Choice, *, masks: torch.Tensor | None = None
) -> Candidates:
    """Candidates from the scores (boxes x labels): each box with its best label, or once for each likely one."""
    make = None if masks is None else masks.__getitem__
    if card.head.many_labels:
        place, label = (scores > choice.score_threshold).nonzero(as_tuple=True)
        return Candidates(boxes=boxes[place], scores=scores[place, label], labels=label, places=place, masks=make)
    every = torch.arange(len(scores), device=scores.device)
    best, label = scores.max(dim=1) if len(scores) else (scores.new_zeros(0), every)
    return Candidates(boxes=boxes, scores=best, labels=label, places=every, masks=make)


@lru_cache(maxsize=8)
def _grid(width: int, height: int, strides: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Column and row of every cell (N x 2), and its stride (N x 1), in the order of the network's output."""
    cells, sizes = [], []
    for stride in strides:
        rows, columns = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        cells.append(torch.stack([columns.flatten(), rows.flatten()], dim=1))
        sizes.append(torch.full((len(cells[-1]), 1), stride))
    return torch.cat(cells).float(), torch.cat(sizes).float()


def _plain(output: Any, card: Card, choice: Choice) -> Iterator[Candidates]:
    """Candidates where the network puts out boxes, scores and labels: batched and padded, or one set a picture."""
    further = ("masks", "prototypes") if card.head.masks == "prototypes" else ("masks",) if card.head.masks else ()
    names = ("boxes", "scores", "labels", *further)
    sets: list[Sequence[Any]]
    if isinstance(output, Mapping):
        output = [output.get(name) for name in names]
    if _are_tensors(output, len(names)) and output[0].ndim == 3 and len({len(each) for each in output}) == 1:
        sets = list(zip(*output, strict=True))
    elif isinstance(output, list | tuple):
        sets = [[each.get(name) for name in names] if isinstance(each, Mapping) else each for each in output]
    else:
        sets = [()]
    for each in sets:
        if not _are_tensors(each, len(names)) or each[0].shape != (len(each[1]), 4) or each[1].shape != each[2].shape:
            raise _unlike(card, "the boxes (N x 4), scores (N) and labels (N) of each picture")
        boxes, scores, labels, *masks = each
        _check_numbers(scores, card)
        kept = scores > choice.score_threshold
        if card.head.background_id is not None:
            kept &= labels != card.head.background_id
            labels = labels - (labels > card.head.background_id).to(labels.dtype)
        _check_numbers(boxes[kept], card)
        yield Candidates(
            boxes=boxes[kept].float(),
            scores=scores[kept].float(),
            labels=labels[kept].long(),
            places=kept.nonzero()[:, 0],
            masks=_mask_maker(masks, card, count=len(boxes)) if choice.masks else None,
        )


def _mask_maker(found: Sequence[torch.Tensor], card: Card, *, count: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes the masks at some places. Raises ModelError for masks of another form than the card says."""
    masks = found[0].squeeze(1) if found[0].ndim == 4 else found[0]
    if card.head.masks == "prototypes":
        factors, grids = masks, found[1]
        if grids.ndim != 3 or factors.shape != (count, len(grids)):
            raise _unlike(card, "factors (N x P) and prototypes (P x rows x columns)")
        return lambda places: torch.einsum("np,phw->nhw", factors[places].float(), grids.float())
    if masks.ndim != 3 or len(masks) != count:
        raise _unlike(card, "masks (N x rows x columns)")
    return masks.__getitem__


def _detr(output: Any, card: Card, choice: Choice) -> Iterator[Candidates]:
    """Candidates where a query stands for one object or none."""
    has_masks = card.head.masks is not None
    if isinstance(output, Mapping):
        output = [output.get("logits"), output.get("pred_boxes"), *([output.get("pred_masks")] if has_masks else [])]
    background = card.head.background_id
    columns = len(card.labels) + (background is not None)
    count = 2 + has_masks
    is_right = _are_tensors(output, count) and output[1].shape == (*output[0].shape[:2], 4)
    if is_right and has_masks:
        is_right = output[2].ndim == 4 and output[2].shape[:2] == output[0].shape[:2]
    if not is_right or output[0].shape[2:] != (columns,):
        shapes = [tuple(each.shape) for each in output] if _are_tensors(output, count) else type(output).__name__
        raise ModelError(
            f"model {card.name}@{card.version} gave {shapes}; its card promises logits (pictures, queries, {columns}) "
            f"and boxes (pictures, queries, 4){', and masks (pictures, queries, rows, columns)' * has_masks}"
        )
    logits, boxes = output[0].float(), output[1].float()
    _check_numbers(logits, card)
    _check_numbers(boxes, card)
    scores = _without(logits.sigmoid() if background is None else logits.softmax(dim=-1), background)
    size = boxes.new_tensor([card.input.width_px, card.input.height_px])
    corners = _corners(boxes[..., :2] * size, boxes[..., 2:] * size)
    masks = output[2] if choice.masks else [None] * len(corners)
    for picture_boxes, picture_scores, picture_masks in zip(corners, scores, masks, strict=True):
        yield _labelled(picture_boxes, picture_scores, card, choice, masks=picture_masks)


def _ssd(output: Any, card: Card, choice: Choice) -> Iterator[Candidates]:
    """Candidates where every default box may be an object. Only boxes with a score above the threshold are decoded."""
    given, logits = _boxes_and_logits(output, card)
    _check_numbers(logits, card)
    activation = card.head.activation
    every = logits.softmax(-1) if activation == "softmax" else logits.sigmoid() if activation == "sigmoid" else logits
    scores = _without(every, card.head.background_id)
    near = (scores > choice.score_threshold).any(dim=-1)
    kept = given[near]
    _check_numbers(kept, card)
    boxes = _decoded(kept, near.nonzero()[:, 1], card)
    _check_numbers(boxes, card)
    counts = near.sum(dim=1).tolist()
    for picture_boxes, picture_scores in zip(boxes.split(counts), scores[near].split(counts), strict=True):
        yield _labelled(picture_boxes, picture_scores, card, choice)


def _boxes_and_logits(output: Any, card: Card) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (pictures x N x 4) and scores or logits (pictures x N x columns). Raises ModelError for other forms."""
    if isinstance(output, Mapping):
        output = [output.get("boxes"), output.get("scores", output.get("logits"))]
    columns, count = len(card.labels) + (card.head.background_id is not None), len(card.head.priors)
    is_right = _are_tensors(output, 2) and output[0].ndim == 3
    if is_right:
        pictures, found, _ = output[0].shape
        is_right = output[0].shape == (pictures, count or found, 4) and output[1].shape == (pictures, found, columns)
    if not is_right:
        shapes = [tuple(each.shape) for each in output] if _are_tensors(output, 2) else type(output).__name__
        raise ModelError(
            f"model {card.name}@{card.version} gave {shapes}; its card promises boxes (pictures, {count or 'N'}, 4), "
            f"then scores (pictures, {count or 'N'}, {columns}): {len(card.labels)} labels"
            f"{' and the background' * (columns > len(card.labels))}{f', {count} priors' * bool(count)}"
        )
    return output[0].float(), output[1].float()


def _decoded(given: torch.Tensor, places: torch.Tensor, card: Card) -> torch.Tensor:
    """Corners in input pixels of the boxes (N x 4) that the network gave for the priors at `places`."""
    size = given.new_tensor([card.input.width_px, card.input.height_px])
    if card.head.box_form == "xyxy":
        return given * size.repeat(2)
    if card.head.box_form == "cxcywh":
        return _corners(given[:, :2] * size, given[:, 2:] * size)
    priors = _priors(card.head.priors).to(given.device)[places]
    of_centre, of_size = card.head.variances
    centre = priors[:, :2] + given[:, :2] * of_centre * priors[:, 2:]
    return _corners(centre * size, priors[:, 2:] * (given[:, 2:] * of_size).exp() * size)


@lru_cache(maxsize=8)
def _priors(boxes: Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.tensor(boxes)


_HEADS = {"yolox": _yolox, "boxes_scores_labels": _plain, "detr": _detr, "ssd": _ssd}


def _corners(centre: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Boxes (... x 4) as left, top, right and bottom."""
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def _without(scores: torch.Tensor, background: int | None) -> torch.Tensor:
    """The scores (... x columns) without the background's column, if there is one."""
    if background is None:
        return scores
    return torch.cat([scores[..., :background], scores[..., background + 1 :]], dim=-1)


def _are_tensors(values: Any, count: int) -> bool:
    is_right = isinstance(values, list | tuple) and len(values) == count
    return is_right and all(isinstance(value, torch.Tensor) for value in values)


def _unlike(card: Card, promised: str) -> ModelError:
    return ModelError(f"model {card.name}@{card.version} gave something else than {promised} that its card promises")


def _check_numbers(values: torch.Tensor, card: Card) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ModelError(
            f"model {card.name}@{card.version} gave values that are no numbers; look at its weights, and whether "
            "precision = 'bfloat16' suits it"
        )


def _chosen(given: Candidates, *, card: Card, choice: Choice) -> Found:
    above = given.scores > choice.score_threshold
    boxes, scores, labels, places = (each[above] for each in (given.boxes, given.scores, given.labels, given.places))
    if choice.nms_iou is not None and len(boxes):
        if card.head.class_wise_nms:
            kept = batched_nms(boxes, scores, labels, choice.nms_iou)
        else:
            kept = nms(boxes, scores, choice.nms_iou)
    else:
        kept = scores.argsort(descending=True, stable=True)
    if choice.labels is not None:
        kept = kept[torch.isin(labels[kept], torch.tensor(choice.labels, device=labels.device))]
    kept = kept[: choice.max_instances]
    masks = given.masks(places[kept]).cpu() if given.masks else None
    if masks is not None:
        _check_numbers(masks, card)
    return Found(boxes=boxes[kept].cpu(), scores=scores[kept].cpu(), labels=labels[kept].cpu(), masks=masks)
