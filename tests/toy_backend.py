"""A backend for tests. Its weights are JSON: what it finds in every picture, where it counts, and how it misbehaves."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionlake.udfs.detector_types import DetectOptions, Instances, ModelInfo, Prepared, Regions
from visionlake.udfs.masks import Mask, find_mask

LABELS = ("cat", "dog")


def settings_of(options: DetectOptions) -> dict[str, Any]:
    return json.loads(Path(options.weights or "").read_text())


def describe(options: DetectOptions) -> ModelInfo:
    settings = settings_of(options)
    shaping = {name: value for name, value in settings.items() if name not in ("log", "mode")}
    return ModelInfo(
        name=settings.get("name", "toy"), version="1", labels=LABELS, first_label_id=0,
        digests={"weights": json.dumps(shaping, sort_keys=True)}, declared={"score_threshold": 0.3, "max_instances": 9},
        tasks=tuple(settings.get("tasks", ["detection"])),
    )  # fmt: skip


def load(options: DetectOptions) -> Toy:
    return Toy(settings_of(options), describe(options).resolved(options), batch_size=options.batch_size or 8)


class Toy:
    labels, first_label_id = LABELS, 0

    def __init__(self, settings: dict[str, Any], resolved: dict[str, Any], *, batch_size: int) -> None:
        self.settings, self.resolved, self.batch_size = settings, resolved, batch_size
        self.log("load")

    def log(self, *lines: str) -> None:
        with open(self.settings["log"], "a") as file:
            file.write("".join(f"{os.getpid()} {line}\n" for line in lines))

    def prepare(self, picture: Image.Image) -> Prepared:
        pixels = np.asarray(picture.resize((8, 8)))
        width, height = picture.size
        return Prepared(pixels=pixels, width_px=width, height_px=height, scale_x=1, scale_y=1, left=0, top=0)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        mode = self.settings.get("mode")
        if mode == "hang":
            threading.Event().wait()
        if mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "fail":
            raise RuntimeError("out of luck")
        self.log(f"batch {len(batch)}", *(f"picture {int(one.pixels.mean())}" for one in batch))
        return [self.find(one) for one in batch]

    def find(self, one: Prepared) -> Instances:
        found = self.settings.get("found", [[0.9, 0, [0.0, 0.0, 0.5, 0.5]]])
        if one.pixels.mean() < 20:  # it is blind in the dark
            found = []
        found = [each for each in found if not each[0] <= self.resolved["score_threshold"]]
        size = np.array([one.width_px, one.height_px] * 2)
        boxes = np.array([each[2] for each in found], float).reshape(-1, 4) * size
        scores, label_ids = [each[0] for each in found], [each[1] for each in found]
        task = self.resolved["task"]
        if task == "detection":
            return Instances(boxes=boxes, scores=np.array(scores, float), label_ids=np.array(label_ids, np.int64))
        masks = [self.mask(box, one) for box in boxes]
        objects = Instances.of_masks(masks, scores=scores, label_ids=label_ids)
        if task == "instance":
            return objects
        regions = Regions(label_ids=np.array(label_ids, np.int64), masks=tuple(mask for mask in masks if mask))
        none = Instances.of_masks([], scores=[], label_ids=[])
        return replace(objects if task == "panoptic" else replace(none, masks=None), regions=regions)

    def mask(self, box: Any, one: Prepared) -> Mask | None:
        """A box with a corner cut off."""
        y, x = np.mgrid[: one.height_px, : one.width_px]
        inside = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
        inside &= (x - box[0]) + (y - box[1]) >= 3
        return find_mask(inside[1:] if self.settings.get("mode") == "small" else inside)
