"""Frames per second of detection from stored frames against a bare loop over the same JPEGs, and the peak memory.

    python benchmarks/detect.py VIDEO... [--weights yolox_nano.pt2] [--fps 5] [--rounds 3] [--batch N]

The bare loop decodes with Pillow and calls the same backend in batches, in as many processes as there are cores, each
with one torch thread and the allocator's settings of our sessions. Detection is the stage's transform in a warm
session, written as parquet: what the runner stages. Both have their models loaded before the clock starts. Runs
alternate, so that a machine whose speed drifts is fair to both.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
from _memory import Peak, proportional
from PIL import Image

import visionlake
from visionlake.jobs._session import MALLOC, get_session
from visionlake.jobs.detect_objects import Config, transform
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions, Detector, Prepared

_kept: list[Detector] = []


def bare(images: list[bytes], options: DetectOptions) -> int:
    """Pictures through the model, in batches; returns how many."""
    if not _kept:
        _kept.append(find_backend(options.backend).load(options))
    detector, count = _kept[0], 0
    waiting: dict[tuple[int, ...], list[Prepared]] = {}
    for image in images:
        prepared = detector.prepare(Image.open(io.BytesIO(image)).convert("RGB"))
        alike = waiting.setdefault(prepared.pixels.shape, [])
        alike.append(prepared)
        if len(alike) == detector.batch_size:
            count += len(detector.detect(waiting.pop(prepared.pixels.shape)))
    return count + sum(len(detector.detect(alike)) for alike in waiting.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path, help="a .pt2 archive with its card; without it the builtin detector")
    parser.add_argument("--fps", default="5")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = Config(
        backend="exported" if options.weights else "builtin",
        weights=str(options.weights.resolve()) if options.weights else None,
        batch_size=options.batch,
        device="cpu",
    )
    spark = get_session(app_name="benchmark")
    os.environ.update(MALLOC)  # of the processes that are started below
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        files = spark.createDataFrame(pa.table({"uri": [str(path.resolve()) for path in options.videos]}))
        visionlake.extract_frames(files, fps=options.fps).where("error IS NULL").write.parquet(f"{folder}/frames")
        frames = spark.read.parquet(f"{folder}/frames")
        images = [row["image"] for row in frames.select("image").collect()]
        slices = [images[place::cores] for place in range(cores)]

        def detection() -> int:
            transform({"frames": frames}, config).write.mode("overwrite").parquet(f"{folder}/detections")
            return len(images)

        with Peak(proportional, own=True) as peak:  # while nothing else runs
            detection()
        pool = ProcessPoolExecutor(cores, mp_context=get_context("spawn"))

        def loop() -> int:
            return sum(pool.map(bare, slices, [config.options()] * cores))

        runs: dict[str, Callable[[], int]] = {"bare loop": loop, "detect_objects": detection}
        for work in runs.values():
            work()
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, work in runs.items():
                started = time.monotonic()
                count = work()
                rates[name].append(count / (time.monotonic() - started))
        for name in runs:
            print(f"{name:15} {statistics.median(rates[name]):7.1f} frames/s  {len(images)} frames")
        ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
        pairs = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"detect_objects runs at {statistics.median(ratios):.2f} of the bare loop (median of {pairs})")
        print(f"peak of driver, JVM and all Python processes: {peak.bytes / 2**20:.0f} MiB (PSS)")
        assert spark.read.parquet(f"{folder}/detections").where("error IS NULL").count() == len(images)
        pool.shutdown()
    spark.stop()


if __name__ == "__main__":
    main()
