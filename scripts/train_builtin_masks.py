"""Trains the masks of backend `builtin` on generated scenes and measures them on scenes of the held-out split.

    python scripts/train_builtin_masks.py --weights builtin.safetensors

`builtin.safetensors` is what `train_builtin.py` has written. It stays as it is; the masks' weights go beside it, into
`builtin_masks.safetensors`. Pictures for training are drawn as for the detector. The head is shown true boxes with
edges that are off, as those of the detector are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from builtin_measures import AT_LEAST_PX, average_precision, found_by, masks_of
from builtin_pictures import Example
from builtin_training import HELD_OUT_SEED, TIMES, Batch, Steps, batches, draw_all, read_options, save
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import box_iou, roi_align

from visionlake.udfs._builtin_masks import CELLS, MaskHead, widened
from visionlake.udfs._builtin_network import make_network
from visionlake.udfs._builtin_weights import find_tensors, masks_place, read_weights
from visionlake.udfs.backends import builtin
from visionlake.udfs.detector_types import DetectOptions, Instances
from visionlake.udfs.rle import decode_mask
from visionlake.udfs.scenes import LABELS

SEED = 40_000
KEPT_EVERY = 200
SCALES = (0.75, 1.2)  # the backend leaves frames of 640 px as they are where masks are wanted
OBJECTS = 5  # of each picture
OFF_SHARE, OFF_PX = 0.04, 0.6  # of how far an edge of a box is off, the standard deviation: of its side, and always
MATCHED_IOU = 0.5


def train(
    network: GeneralizedRCNN, made: Iterator[Batch], *, steps: int, rate: float, seed: int
) -> Iterator[dict[str, torch.Tensor]]:
    """Weights averaged over the last steps, after every few hundred steps and after all."""
    torch.manual_seed(seed)
    head = MaskHead(len(LABELS)).to(memory_format=torch.channels_last).train()
    average = deepcopy(head).eval()
    walk = Steps(head, average, steps=steps, rate=rate)
    for step, (pictures, targets) in enumerate(made):
        targets = [_some(target) for target in targets]
        boxes = [_off(target["boxes"]) for target in targets]
        labels = torch.cat([target["labels"] for target in targets]) - 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                seen, _ = network.transform(pictures)
                features = network.backbone(seen.tensors)["0"]
            logits = head(seen.tensors, features, boxes, labels)
        walk.take(step, loss_of(logits, _wanted(targets, boxes)))
        if (step + 1) % KEPT_EVERY == 0 or step + 1 == steps:
            yield average.state_dict()


def _some(target: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As many objects of each picture, some of them again, where there is any: equal sizes are computed faster."""
    count = len(target["boxes"])
    places = torch.randint(max(1, count), (OBJECTS * min(1, count),))
    return {name: values[places] for name, values in target.items()}


def _off(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes whose edges are off by a little, each on its own."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    far = (torch.randn(boxes.shape) * (OFF_SHARE * sides + OFF_PX)).clamp(-sides / 5, sides / 5)
    return boxes + far


def _wanted(targets: Sequence[dict[str, torch.Tensor]], boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """How much of each cell over the boxes is seen of the object: N x 56 x 56, from 0 to 1."""
    masks = torch.cat([target["masks"] for target in targets])[:, None].float() / 255
    each = [*widened(torch.cat([*boxes])).split(1)]
    return roi_align(masks, each, CELLS, sampling_ratio=2, aligned=True)[:, 0]


def loss_of(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the cells, and how little the masks overlap (Milletari et al., V-Net, arXiv:1606.04797)."""
    shares = logits.sigmoid()
    shared, both = (shares * wanted).sum(dim=(1, 2)), (shares.square() + wanted.square()).sum(dim=(1, 2))
    return binary_cross_entropy_with_logits(logits, wanted) + (1 - 2 * shared / (both + 1)).mean()


def measure(weights: str, examples: Sequence[Example]) -> dict[str, float]:
    """Mean IoU of the masks of matched objects, by size, and COCO's AP of all masks."""
    options = DetectOptions(backend="builtin", weights=weights, task="instance", device="cpu", score_threshold=0.01)
    found = found_by(builtin.load(options), examples)
    threshold = builtin.describe(options).declared["score_threshold"]
    overlaps = [matched(one, example, above=threshold) for one, example in zip(found, examples, strict=True)]
    ious, areas = np.concatenate(overlaps).T
    is_large = areas >= AT_LEAST_PX**2
    return {
        "share of objects that are matched": len(ious) / sum(len(example.labels) for example in examples),
        "mean IoU of their masks": float(ious.mean()),
        "mean IoU of those in boxes from 32 x 32 px": float(ious[is_large].mean()),
        "mean IoU of those in smaller ones": float(ious[~is_large].mean()),
        "AP of all masks": average_precision(examples, found, [each.visible > -1 for each in examples], kind="segm"),
    }


def matched(found: Instances, example: Example, *, above: float) -> npt.NDArray[np.float64]:
    """For each object that was found, the IoU of its mask with the true one, and the area of its box in px²: M x 2.

    The surest masks choose first: of the objects of their label the one whose box is most like theirs, if it is half.
    """
    overlaps = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(example.boxes).double()).numpy()
    overlaps[found.label_ids[:, None] != example.labels] = 0
    truth, areas = masks_of(example), np.prod(example.boxes[:, 2:] - example.boxes[:, :2], axis=1)
    pairs: list[tuple[float, float]] = []
    for row, mask, score in zip(overlaps, found.masks or (), found.scores, strict=True):
        if score > above and row.max(initial=0) >= MATCHED_IOU:
            place, mine = int(row.argmax()), decode_mask(mask.rle)
            overlaps[:, place] = 0
            pairs.append(((mine & truth[place]).sum() / (mine | truth[place]).sum(), areas[place]))
    return np.array(pairs, np.float64).reshape(-1, 2)


def main() -> None:
    """Draw, train, save, measure."""
    beside = "the detector's; those of the masks go beside it"
    options = read_options(__doc__, weights=beside, scenes=400, steps=6500, rate=1.5e-2)
    torch.set_num_threads(max(1, options.processes - 1))  # one is left to make pictures
    started, place = time.monotonic(), Path(str(masks_place(str(options.weights))))
    if not options.measure_only:
        weights = read_weights(str(options.weights))
        network = make_network(len(LABELS))
        network.load_state_dict(find_tensors(weights, network.state_dict(), what="weights"))
        network.eval().to(memory_format=torch.channels_last)
        examples, cut_outs = draw_all("train", SEED, scenes=options.scenes, count=TIMES, processes=options.processes)
        print(f"{len(examples)} frames drawn in {time.monotonic() - started:.0f} s", flush=True)
        made = batches(examples, cut_outs, steps=options.steps, seed=SEED, swapped=0.0, scales=SCALES)
        for state in train(network, made, steps=options.steps, rate=options.rate, seed=SEED):
            save(state, place, weights=sha256(weights).hexdigest())
        print(f"trained in {(time.monotonic() - started) / 60:.1f} min in all", flush=True)
    held_out, _ = draw_all("held_out", HELD_OUT_SEED, scenes=options.held_out, count=2, processes=options.processes)
    for name, value in measure(str(options.weights), held_out).items():
        print(f"{name}: {value:.3f}")
    print(f"{place}: {place.stat().st_size} bytes, {place.stat().st_size + options.weights.stat().st_size} in all")


if __name__ == "__main__":
    main()
