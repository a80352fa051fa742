"""Trains the network of backend `builtin` on generated scenes and measures it on scenes of the held-out split.

    python scripts/train_builtin.py --weights builtin.safetensors

Everything it needs is drawn: no data set, no weights from elsewhere. Held-out scenes have hues and backgrounds that no
scene for training has. Average precision is COCO's, measured by pycocotools through the backend itself.
"""

from __future__ import annotations

import argparse
import io
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from builtin_pictures import CutOut, Example, augmented, draw
from PIL import Image
from safetensors.torch import save_file

from visionlake.udfs._builtin_network import make_network
from visionlake.udfs.backends import builtin
from visionlake.udfs.detector_types import DetectOptions
from visionlake.udfs.scenes import LABELS, Split

SEED, HELD_OUT_SEED = 20_000, 30_000
TIMES = 4
BATCH, WARM_UP, KEPT_EVERY = 8, 200, 1000
BOX_WEIGHT = 2.0
AT_LEAST_PX, HALF = 32, 0.5

Flags = npt.NDArray[np.bool_]
Batch = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]


def draw_all(
    split: Split, seed: int, *, scenes: int, count: int, processes: int
) -> tuple[list[Example], list[list[CutOut]]]:
    """Frames of many scenes, and their objects by label."""
    with ProcessPoolExecutor(processes) as pool:
        jobs = [pool.submit(draw, split, seed, index, count) for index in range(scenes)]
        drawn = [job.result() for job in jobs]
    cut_outs: list[list[CutOut]] = [[] for _ in LABELS]
    for _, found in drawn:
        for cut_out in found:
            cut_outs[cut_out.label].append(cut_out)
    return [example for examples, _ in drawn for example in examples], cut_outs


def batches(
    examples: Sequence[Example], cut_outs: Sequence[Sequence[CutOut]], *, steps: int, seed: int
) -> Iterator[Batch]:
    """`steps` batches, each made while the one before is used; every example comes once in every round."""
    rng = random.Random(seed)
    order: list[Example] = []

    def make(chosen: Sequence[Example], number: int) -> Batch:
        own = random.Random(f"{seed}/{number}")
        made = [augmented(example, cut_outs, own) for example in chosen]
        pictures = [torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 for pixels, _ in made]
        return pictures, [{**target, "labels": target["labels"] + 1} for _, target in made]

    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Batch]] = []
        for number in range(steps):
            if len(order) < BATCH:
                order = rng.sample(examples, len(examples))
            chosen, order = order[:BATCH], order[BATCH:]
            waiting.append(pool.submit(make, chosen, number))
            if number:
                yield waiting.pop(0).result()
        yield waiting.pop(0).result()


def train(made: Iterator[Batch], *, steps: int, rate: float, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Weights averaged over the last steps, after every thousand steps and after all."""
    torch.manual_seed(seed)
    network = make_network(len(LABELS)).to(memory_format=torch.channels_last).train()
    average = deepcopy(network).eval()
    matrices = [values for values in network.parameters() if values.ndim > 1]
    others = [values for values in network.parameters() if values.ndim <= 1]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=0.05)
    report = _reporter(steps)
    for step, (pictures, targets) in enumerate(made):
        for group in optimizer.param_groups:
            warm, done = min(1.0, (step + 1) / WARM_UP), step / steps
            group["lr"] = rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = network(pictures, targets)
        loss = sum(losses.values(), torch.zeros(())) + (BOX_WEIGHT - 1) * losses["loss_box_reg"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        _average(average, network, decay=min(0.998, (step + 1) / (step + 10)))
        report(step + 1, float(loss.detach()))
        if (step + 1) % KEPT_EVERY == 0 or step + 1 == steps:
            yield average.state_dict()


def _reporter(steps: int) -> Callable[[int, float], None]:
    started, seen = time.monotonic(), 0.0

    def report(step: int, loss: float) -> None:
        nonlocal seen
        seen += loss
        if step % 100 == 0:
            spent = (time.monotonic() - started) / 60
            left = spent / step * (steps - step)
            print(f"step {step}/{steps}  loss {seen / 100:.3f}  {spent:.1f} min, {left:.1f} left", flush=True)
            seen = 0.0

    return report


@torch.no_grad()
def _average(average: torch.nn.Module, network: torch.nn.Module, *, decay: float) -> None:
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    """Weights in half precision: they are used as 32-bit floats."""
    halved = {name: (v.half() if v.is_floating_point() else v).contiguous() for name, v in state.items()}
    save_file(halved, path, metadata={"labels": ",".join(LABELS)})


def measure(path: Path, examples: list[Example]) -> dict[str, float]:
    """AP@.50:.95 of all boxes, and of those of at least 32 px that are at most half hidden, by either meaning."""
    detector = builtin.load(DetectOptions(backend="builtin", weights=str(path), device="cpu", score_threshold=0.01))
    torch.set_num_threads(2)
    found = []
    for image_id, example in enumerate(examples):
        [one] = detector.detect([detector.prepare(Image.open(io.BytesIO(example.jpeg)).convert("RGB"))])
        for box, score, label in zip(one.boxes, one.scores, one.label_ids, strict=True):
            x, y, right, bottom = map(float, box)
            found.append(
                {
                    "image_id": image_id,
                    "category_id": int(label),
                    "bbox": [x, y, right - x, bottom - y],
                    "score": float(score),
                }
            )
    sides = [example.boxes[:, 2:] - example.boxes[:, :2] for example in examples]
    seen = [example.visible >= HALF for example in examples]
    longer = [each & (side.max(axis=1, initial=0) >= AT_LEAST_PX) for each, side in zip(seen, sides, strict=True)]
    return {
        "AP": _average_precision(examples, found, [each > -1 for each in seen], least_area=0),
        "AP of areas from 32 x 32 px, at most half hidden": _average_precision(
            examples, found, seen, least_area=AT_LEAST_PX**2
        ),
        "AP of longer sides from 32 px, at most half hidden": _average_precision(examples, found, longer, least_area=0),
    }


def _average_precision(
    examples: list[Example], found: list[dict[str, Any]], counted: list[Flags], *, least_area: int
) -> float:
    """COCO's AP of the boxes of at least an area, in square pixels.

    As in COCO's AP of medium and large objects, smaller ones may be found or not. So may those that are not `counted`:
    they are given no area.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth: list[dict[str, Any]] = []
    for image_id, (example, counts) in enumerate(zip(examples, counted, strict=True)):
        for box, label, one in zip(example.boxes.tolist(), example.labels.tolist(), counts.tolist(), strict=True):
            x, y, right, bottom = box
            width, height = right - x, bottom - y
            truth.append(
                {
                    "id": len(truth) + 1, "image_id": image_id, "category_id": label, "bbox": [x, y, width, height],
                    "area": width * height * one, "iscrowd": 0,
                }
            )  # fmt: skip
    coco: Any = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(len(examples))],
        "categories": [{"id": i, "name": name} for i, name in enumerate(LABELS)],
        "annotations": truth,
    }
    if not found:
        return 0.0
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(found), "bbox")
        judged.params.areaRng[0] = [max(1, least_area), 1e10]
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return float(judged.stats[0])


def main() -> None:
    """Draw, train, save, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="file to write")
    parser.add_argument("--scenes", type=int, default=2500, help=f"scenes for training, {TIMES} frames of each")
    parser.add_argument("--steps", type=int, default=5800, help=f"batches of {BATCH} pictures")
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--held-out", type=int, default=300, help="scenes for measuring, 2 frames of each")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--measure-only", action="store_true", help="measure the weights that there are")
    options = parser.parse_args()
    torch.set_num_threads(options.processes)
    started = time.monotonic()
    if not options.measure_only:
        examples, cut_outs = draw_all("train", SEED, scenes=options.scenes, count=TIMES, processes=options.processes)
        print(f"{len(examples)} frames drawn in {time.monotonic() - started:.0f} s", flush=True)
        made = batches(examples, cut_outs, steps=options.steps, seed=SEED)
        for state in train(made, steps=options.steps, rate=options.rate, seed=SEED):
            save(state, options.weights)
        print(f"trained in {(time.monotonic() - started) / 60:.1f} min in all", flush=True)
    held_out, _ = draw_all("held_out", HELD_OUT_SEED, scenes=options.held_out, count=2, processes=options.processes)
    for name, value in measure(options.weights, held_out).items():
        print(f"{name}: {value:.3f}")
    print(f"{options.weights}: {options.weights.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
