"""Frames per second of detection from stored frames against a bare loop over the same JPEGs, and the peak memory.

    python benchmarks/detect.py VIDEO... [--set 'weights = "yolox_nano.pt2"'] [--slots 1] [--fps 5] [--rounds 3]
    python benchmarks/detect.py VIDEO... --stage segment_objects --set 'backend = "transformers"' --set 'weights = "m"'

The bare loop decodes with Pillow and calls the same backend in batches, in as many processes as there are slots, each
with one torch thread and the allocator's settings of our sessions. Detection is the stage's transform in a warm
session, written as parquet: what the runner stages. Both have their models loaded before the clock starts: a few frames
go first each time, as Spark ends workers that had nothing to do for a minute. Runs alternate, so that a machine whose
speed drifts is fair to both. To begin and end a job takes about a second, however many frames there are: a thousand or
more tell how fast frames go through.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
from _memory import Peak, proportional
from PIL import Image

import visionlake
from visionlake.jobs._session import MALLOC, get_session
from visionlake.jobs._stage import Stage
from visionlake.jobs._stages import load_stage
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import Batched, DetectOptions, Detector
from visionlake.udfs.views import load_detector

_kept: list[Detector] = []


def bare(images: list[bytes], options: DetectOptions) -> int:
    """Pictures through the model, in batches; returns how many."""
    if not _kept:
        _kept.append(load_detector(find_backend(options.backend), options))
    detector, count = _kept[0], 0
    waiting: dict[tuple[int, ...], list[Batched]] = {}
    for image in images:
        prepared = detector.prepare(Image.open(io.BytesIO(image)).convert("RGB"))
        alike = waiting.setdefault(prepared.bucket, [])
        alike.append(prepared)
        if len(alike) == detector.batch_size:
            count += len(detector.detect(waiting.pop(prepared.bucket)))
    return count + sum(len(detector.detect(alike)) for alike in waiting.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--stage", choices=("detect_objects", "segment_objects"), default="detect_objects")
    parser.add_argument("--set", action="append", default=[], help="a setting of the stage, as TOML; else builtin's")
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1, help="tasks at a time")
    parser.add_argument("--fps", default="5")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings = {"backend": "builtin", "device": "cpu", **tomllib.loads("\n".join(options.set))}
    if "weights" in settings and "model" not in settings:
        settings["weights"] = str(Path(settings["weights"]).resolve())
    stage = load_stage(options.stage)
    assert isinstance(stage, Stage)
    config: Any = stage.config(**settings)
    spark = get_session(settings={"spark.master": f"local[{options.slots}]"}, app_name="benchmark")
    os.environ.update(MALLOC)  # of the processes that are started below
    with tempfile.TemporaryDirectory() as folder:
        files = spark.createDataFrame(pa.table({"uri": [str(path.resolve()) for path in options.videos]}))
        visionlake.extract_frames(files, fps=options.fps).where("error IS NULL").write.parquet(f"{folder}/frames")
        frames = spark.read.parquet(f"{folder}/frames")
        some = frames.limit(8 * options.slots).repartition(options.slots).cache()
        images = [row["image"] for row in frames.select("image").collect()]
        slices = [images[place :: options.slots] for place in range(options.slots)]

        def warm_up() -> None:
            stage.transform({"frames": some}, config).write.mode("overwrite").parquet(f"{folder}/some")

        def detection() -> int:
            stage.transform({"frames": frames}, config).write.mode("overwrite").parquet(f"{folder}/detections")
            return len(images)

        with Peak(proportional, own=True) as peak:  # while nothing else runs
            detection()
        pool = ProcessPoolExecutor(options.slots, mp_context=get_context("spawn"))

        def loop() -> int:
            return sum(pool.map(bare, slices, [config.options()] * options.slots))

        runs: dict[str, Callable[[], int]] = {"bare loop": loop, options.stage: detection}
        list(pool.map(bare, [part[:8] for part in slices], [config.options()] * options.slots))  # loads the models
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, work in runs.items():
                warm_up()
                started = time.monotonic()
                count = work()
                rates[name].append(count / (time.monotonic() - started))
        for name in runs:
            print(f"{name:15} {statistics.median(rates[name]):7.1f} frames/s  {len(images)} frames")
        ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
        pairs = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{options.stage} runs at {statistics.median(ratios):.2f} of the bare loop (median of {pairs})")
        print(f"peak of driver, JVM and all Python processes: {peak.bytes / 2**20:.0f} MiB (PSS)")
        assert spark.read.parquet(f"{folder}/detections").where("error IS NULL").count() == len(images)
        pool.shutdown()
    spark.stop()


if __name__ == "__main__":
    main()
