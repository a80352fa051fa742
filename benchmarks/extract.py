"""Frames per second of extraction against a bare PyAV loop, side by side, and the memory of both.

    python benchmarks/extract.py VIDEO... [--fps 5] [--rounds 3]

The bare loop decodes with one thread, samples the same frames, converts them and writes JPEG 92 with Pillow, in as many
processes as there are cores; it measures no quality and stores nothing. Extraction is the stage's transform in a warm
session, written as parquet. Runs alternate, so that a machine whose speed drifts is fair to both.
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
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path

import av
import pyarrow as pa
from _memory import Peak

import visionlake
from visionlake.jobs._session import get_session
from visionlake.udfs.frame_types import FrameOptions
from visionlake.udfs.sampling import Sampler


def bare(path: str, fps: Fraction | None) -> int:
    count = 0
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        sampler = None
        for frame in container.decode(stream):
            assert frame.pts is not None and stream.time_base is not None
            sampler = sampler or Sampler(FrameOptions(fps=fps), stream.time_base, frame.pts)
            if sampler.judge(frame.pts, is_keyframe=frame.key_frame) == "keep":
                frame.to_image().save(io.BytesIO(), "JPEG", quality=92)
                count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--fps")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    fps = Fraction(options.fps) if options.fps else None
    paths = [str(path.resolve()) for path in options.videos]
    spark = get_session(app_name="benchmark")
    files = spark.createDataFrame(pa.table({"uri": paths})).repartition(len(paths))
    settings = {"fps": options.fps} if options.fps else {}

    def loop() -> int:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            return sum(pool.map(bare, paths, [fps] * len(paths)))

    def extraction() -> int:
        with tempfile.TemporaryDirectory() as folder:
            visionlake.extract_frames(files, **settings).write.parquet(f"{folder}/frames")
            return spark.read.parquet(f"{folder}/frames").where("error IS NULL").count()

    runs: dict[str, Callable[[], int]] = {"bare PyAV loop": loop, "extract_frames": extraction}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, int] = dict.fromkeys(runs, 0)
    counts: dict[str, int] = {}
    extraction()
    for _ in range(options.rounds):
        for name, work in runs.items():
            with Peak() as peak:
                started = time.monotonic()
                counts[name] = work()
                rates[name].append(counts[name] / (time.monotonic() - started))
            peaks[name] = max(peaks[name], peak.bytes)
    assert len(set(counts.values())) == 1, counts
    for name in runs:
        rate = statistics.median(rates[name])
        print(f"{name:15} {rate:7.1f} frames/s  {counts[name]} frames  peak {peaks[name] / 2**20:.0f} MiB (Python)")
    ratio = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    print(f"extract_frames runs at {ratio:.2f} of the bare loop (median of {options.rounds} pairs)")
    spark.stop()


if __name__ == "__main__":
    main()
