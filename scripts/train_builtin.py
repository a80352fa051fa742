"""Trains the network of backend `builtin` on generated scenes and measures it on scenes of the held-out split.

    python scripts/train_builtin.py --weights builtin.safetensors

Everything it needs is drawn: no data set, no weights from elsewhere. Held-out scenes have hues and backgrounds that no
scene for training has. Average precision is COCO's, measured by pycocotools through the backend itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from builtin_measures import AT_LEAST_PX, average_precision, found_by
from builtin_pictures import Example
from builtin_training import HELD_OUT_SEED, TIMES, Batch, Steps, batches, draw_all, read_options, save

from visionlake.udfs._builtin_network import make_network
from visionlake.udfs.backends import builtin
from visionlake.udfs.detector_types import DetectOptions
from visionlake.udfs.scenes import LABELS

SEED = 20_000
KEPT_EVERY = 1000
BOX_WEIGHT = 2.0
HALF = 0.5


def train(made: Iterator[Batch], *, steps: int, rate: float, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Weights averaged over the last steps, after every thousand steps and after all."""
    torch.manual_seed(seed)
    network = make_network(len(LABELS)).to(memory_format=torch.channels_last).train()
    average = deepcopy(network).eval()
    walk = Steps(network, average, steps=steps, rate=rate)
    for step, (pictures, targets) in enumerate(made):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = network(pictures, targets)
        walk.take(step, sum(losses.values(), torch.zeros(())) + (BOX_WEIGHT - 1) * losses["loss_box_reg"])
        if (step + 1) % KEPT_EVERY == 0 or step + 1 == steps:
            yield average.state_dict()


def measure(path: Path, examples: list[Example]) -> dict[str, float]:
    """AP@.50:.95 of all boxes, and of those of at least 32 px that are at most half hidden, by either meaning."""
    detector = builtin.load(DetectOptions(backend="builtin", weights=str(path), device="cpu", score_threshold=0.01))
    torch.set_num_threads(2)
    found = found_by(detector, examples)
    sides = [example.boxes[:, 2:] - example.boxes[:, :2] for example in examples]
    seen = [example.visible >= HALF for example in examples]
    longer = [each & (side.max(axis=1, initial=0) >= AT_LEAST_PX) for each, side in zip(seen, sides, strict=True)]
    return {
        "AP": average_precision(examples, found, [each > -1 for each in seen]),
        "AP of areas from 32 x 32 px, at most half hidden": average_precision(
            examples, found, seen, least_area=AT_LEAST_PX**2
        ),
        "AP of longer sides from 32 px, at most half hidden": average_precision(examples, found, longer),
    }


def main() -> None:
    """Draw, train, save, measure."""
    options = read_options(__doc__, weights="file to write", scenes=2500, steps=5800, rate=1e-3)
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
