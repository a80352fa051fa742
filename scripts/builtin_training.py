"""What the scripts that train backend `builtin` share: drawing, batches, learning rate, averages, what they print."""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import torch
from builtin_pictures import SCALES, SWAPPED, CutOut, Example, augmented, draw
from safetensors.torch import save_file

from visionlake.udfs.scenes import LABELS, Split

HELD_OUT_SEED = 30_000
TIMES = 4
BATCH, WARM_UP, WEIGHT_DECAY = 8, 200, 0.05

Batch = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]


def read_options(about: str | None, *, weights: str, scenes: int, steps: int, rate: float) -> argparse.Namespace:
    """The command line of a training script; `weights` says what that file is, the numbers are defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help=weights)
    parser.add_argument("--scenes", type=int, default=scenes, help=f"scenes for training, {TIMES} frames of each")
    parser.add_argument("--steps", type=int, default=steps, help=f"batches of {BATCH} pictures")
    parser.add_argument("--rate", type=float, default=rate, help="highest learning rate")
    parser.add_argument("--held-out", type=int, default=300, help="scenes for measuring, 2 frames of each")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--measure-only", action="store_true", help="measure the weights that there are")
    return parser.parse_args()


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
    examples: Sequence[Example],
    cut_outs: Sequence[Sequence[CutOut]],
    *,
    steps: int,
    seed: int,
    swapped: float = SWAPPED,
    scales: tuple[float, float] = SCALES,
) -> Iterator[Batch]:
    """`steps` batches, each made while the one before is used; every example comes once in every round.

    Pictures are from 0 to 1; labels count from 1, and 0 is the background. `swapped` and `scales` are those of
    `augmented`.
    """
    rng = random.Random(seed)
    order: list[Example] = []

    def make(chosen: Sequence[Example], number: int) -> Batch:
        own = random.Random(f"{seed}/{number}")
        made = [augmented(example, cut_outs, own, swapped=swapped, scales=scales) for example in chosen]
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


class Steps:
    """The steps of a training: each one goes down the loss, says how far it is, and moves a running average."""

    def __init__(self, network: torch.nn.Module, average: torch.nn.Module, *, steps: int, rate: float) -> None:
        self._network, self._average, self._count, self._rate = network, average, steps, rate
        matrices = [values for values in network.parameters() if values.ndim > 1]
        others = [values for values in network.parameters() if values.ndim <= 1]
        groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=WEIGHT_DECAY)
        self._report = _reporter(steps)

    def take(self, step: int, loss: torch.Tensor) -> None:
        """The step of this number, from 0."""
        for group in self._optimizer.param_groups:
            warm, done = min(1.0, (step + 1) / WARM_UP), step / self._count
            group["lr"] = self._rate * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 10.0)
        self._optimizer.step()
        _move(self._average, self._network, decay=min(0.998, (step + 1) / (step + 10)))
        self._report(step + 1, float(loss.detach()))


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
def _move(average: torch.nn.Module, network: torch.nn.Module, *, decay: float) -> None:
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def save(state: Mapping[str, torch.Tensor], path: Path, **facts: str) -> None:
    """Weights in half precision: they are used as 32-bit floats. `facts` go into the header, beside the labels."""
    halved = {name: (v.half() if v.is_floating_point() else v).contiguous() for name, v in state.items()}
    save_file(halved, path, metadata={"labels": ",".join(LABELS), **facts})
