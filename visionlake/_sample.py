"""`visionlake sample`: makes the sample data set and says what is in it."""

from __future__ import annotations

import os
import re
import sys
from contextlib import nullcontext
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from visionlake.errors import UsageError
from visionlake.udfs.sample_media import SPLITS, make_sample

from ._terminal import make_console, print_rows


def write_sample(folder: Path, *, seed: int, videos: int, seconds: float, size: str, split: str) -> None:
    """Write the sample into a folder. `size` is width x height in pixels, like 640x360. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if found is None:
        raise UsageError(f"--size {size}: allowed is WIDTHxHEIGHT in pixels, for example 640x360")
    if split not in SPLITS:
        raise UsageError(f"--split {split}: allowed is {' or '.join(SPLITS)}")
    err = make_console(stderr=True)
    columns = (TextColumn("drawing"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f} frames"))
    bar = Progress(*columns, TimeRemainingColumn(), console=err, transient=True) if err.is_terminal else None
    with bar or nullcontext():
        task = bar.add_task("", total=1) if bar else None

        def progressed(done: int, total: int) -> None:
            if bar is not None and task is not None:
                bar.update(task, completed=done, total=total)

        try:
            report = make_sample(
                folder,
                seed=seed,
                videos=videos,
                seconds=seconds,
                width_px=int(found[1]),
                height_px=int(found[2]),
                split=split,
                processes=min(videos, _processes()),
                progress=progressed,
            )
        except (ValueError, FileExistsError) as error:
            raise UsageError(str(error)) from None
    console = make_console()
    rows = [{"file": f.path, "what": f.note, "frames": f.frames or None, "bytes": f.size_bytes} for f in report.files]
    print_rows(console, rows, empty="")
    console.print(
        f"{'Wrote' if report.written else 'It was all there:'} {report.media}; the truth is in {report.truth}"
    )


def _processes() -> int:
    """How many can draw at a time: one where the running script is no file, which other processes could not import."""
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is None and not os.path.isfile(getattr(main, "__file__", "")):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
