"""How well backend `builtin` does on drawn frames: COCO's average precision, by pycocotools."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from builtin_pictures import Example
from PIL import Image

from visionlake.udfs.backends.builtin import Builtin
from visionlake.udfs.detector_types import Instances
from visionlake.udfs.rle import encode_mask
from visionlake.udfs.scenes import LABELS

AT_LEAST_PX = 32

Flags = npt.NDArray[np.bool_]


def found_by(detector: Builtin, examples: Sequence[Example]) -> list[Instances]:
    """What a detector sees in each frame, looking at one after the other."""
    pictures = (Image.open(io.BytesIO(example.jpeg)).convert("RGB") for example in examples)
    return [detector.detect([detector.prepare(picture)])[0] for picture in pictures]


def masks_of(example: Example) -> Flags:
    """The true masks of a frame: N x height x width."""
    owners = np.asarray(Image.open(io.BytesIO(example.owners)))
    return owners == np.arange(1, len(example.labels) + 1)[:, None, None]


def average_precision(
    examples: Sequence[Example],
    found: Sequence[Instances],
    counted: Sequence[Flags],
    *,
    least_area: int = 0,
    kind: Literal["bbox", "segm"] = "bbox",
) -> float:
    """COCO's AP@.50:.95 of boxes of at least an area, in square pixels, or of their masks.

    As in COCO's AP of medium and large objects, smaller ones may be found or not. So may those that are not `counted`:
    they are given no area.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco: Any = COCO()
    coco.dataset = {
        "images": [_image(image_id, example) for image_id, example in enumerate(examples)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(LABELS)],
        "annotations": _truth(examples, counted, kind=kind),
    }
    results = [one for image_id, each in enumerate(found) for one in _results(image_id, each, kind=kind)]
    if not results:
        return 0.0
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), kind)
        judged.params.areaRng[0] = [max(1, least_area), 1e10]
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0])


def _image(image_id: int, example: Example) -> dict[str, int]:
    width, height = Image.open(io.BytesIO(example.jpeg)).size
    return {"id": image_id, "width": width, "height": height}


def _truth(examples: Sequence[Example], counted: Sequence[Flags], *, kind: str) -> list[dict[str, Any]]:
    truth: list[dict[str, Any]] = []
    for image_id, (example, counts) in enumerate(zip(examples, counted, strict=True)):
        masks = masks_of(example) if kind == "segm" else [None] * len(counts)
        for box, label, one, mask in zip(
            example.boxes.tolist(), example.labels.tolist(), counts.tolist(), masks, strict=True
        ):
            x, y, right, bottom = box
            width, height = right - x, bottom - y
            truth.append(
                {
                    "id": len(truth) + 1, "image_id": image_id, "category_id": label, "bbox": [x, y, width, height],
                    "area": width * height * one, "iscrowd": 0,
                    **({} if mask is None else {"segmentation": encode_mask(mask)}),
                }
            )  # fmt: skip
    return truth


def _results(image_id: int, found: Instances, *, kind: str) -> list[dict[str, Any]]:
    sides = [*found.boxes[:, :2].T, *(found.boxes[:, 2:] - found.boxes[:, :2]).T]
    results: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": label, "bbox": bbox, "score": score}
        for label, score, bbox in zip(
            found.label_ids.tolist(), found.scores.tolist(), np.transpose(sides).tolist(), strict=True
        )
    ]
    if kind == "segm":
        for one, mask in zip(results, found.masks or (), strict=True):
            del one["bbox"]
            one["segmentation"] = mask.rle
    return results
