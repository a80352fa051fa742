"""Lakes that other processes write: media with pipelines, drivers that can be killed, tables read without Spark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import media_video
import psutil
from deltalake import DeltaTable
from media_video import Track

from visionlake.expectations import detections, frames, media, quarantine, sources
from visionlake.jobs._record import DONE
from visionlake.udfs.sample_media import make_sample

COMPARED = (media.TABLE, sources.TABLE, frames.TABLE, quarantine.TABLE)
STAGES = ("ingest_media", "extract_frames", "detect_objects")
DETECT = '[detect_objects.builtin]\nbackend = "builtin"\n'
MARK = "VISIONLAKE_TEST_MARK"


class Near(float):
    """A number that equals others near to it: batches and processors change the last bits of what a model says."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and abs(self - other) <= 1e-4 * max(1.0, abs(self))

    def __hash__(self) -> int:
        return 0


class Project:
    """A folder of media, and lakes made from it."""

    def __init__(self, folder: Path, *, extract: str = "fps = 5\n", more: str = "") -> None:
        self.folder, self.media, self._extract = folder, folder / "media", extract + more
        self.media.mkdir()

    def pipeline(self, lake: str) -> Path:
        """The pipeline file that writes the lake of this name."""
        path = self.folder / f"{lake}.toml"
        path.write_text(
            f'lake = "{lake}"\n[mlflow]\nenabled = false\n'
            f'[ingest_media]\ninputs = ["{self.media.name}"]\nmin_age_s = 0.0\n[extract_frames]\n'
            + self._extract.replace("LAKE", lake)
        )
        return path

    def add_video(self, name: str, *, count: int = 25) -> Path:
        """A video of `count` frames at 25 a second."""
        ticks = 15360 // 25
        return media_video.write(self.media / name, Track(pts=[i * ticks for i in range(count)]))

    def add_sample(self, number: int, *, videos: int = 1) -> None:
        """Videos of moving things, which the builtin detector knows."""
        report = make_sample(
            self.folder / f"sample{number}",
            seed=number,
            videos=videos,
            seconds=1.0,
            width_px=320,
            height_px=192,
            fps=10,
        )
        for file in report.media.iterdir():
            file.rename(self.media / f"{number}_{file.name}")

    def add_bad_ones(self, number: int) -> None:
        """A video that ends too early, for the quarantine of frames, and a file that is none, for that of files."""
        cut = media_video.truncated_mp4(self.folder).path
        add_variant(cut, self.media / f"cut{number}.mp4", number)
        (self.media / f"notes{number}.mp4").write_text(f"this is no video, but note {number}\n" * 100)


def add_variant(video: Path, target: Path, number: int) -> None:
    """Other content with the same frames: a box that players skip is put behind."""
    target.write_bytes(video.read_bytes() + b"\0\0\0\x0cfree" + number.to_bytes(4, "big"))


def rows(lake: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table, read without Spark; none where there is no table yet."""
    if not (lake / table / "_delta_log").exists():
        return []
    return DeltaTable(str(lake / table)).to_pyarrow_table().to_pylist()


def contents(lake: Path) -> dict[str, list[Any]]:
    """What makes two lakes equal: per table the rows without the volatile columns."""
    found = {}
    for table in COMPARED:
        names = [column.name for column in table.columns if not column.volatile]
        found[table.name] = sorted((tuple(row[name] for name in names) for row in rows(lake, table.name)), key=repr)
    names = [*detections.TABLE.key, "instances"]
    labels = (tuple(row[name] for name in names) for row in rows(lake, "detections"))
    found["detections"] = [_near(row) for row in sorted(labels, key=lambda row: repr(row[:-1]))]
    return found


def _near(value: Any) -> Any:
    """The value with all its numbers near ones."""
    if isinstance(value, float):
        return Near(value)
    if isinstance(value, dict):
        return {name: _near(each) for name, each in value.items()}
    return type(value)(map(_near, value)) if isinstance(value, list | tuple) else value


def published(lake: Path) -> dict[str, list[str]]:
    """Per stage, the ids of the published waves in order. No wave and no number may be there twice."""
    waves = sorted((wave for wave in rows(lake, "waves") if wave["status"] in DONE), key=lambda wave: wave["sequence"])
    found = {}
    for stage in STAGES:
        own = [wave for wave in waves if wave["stage"] == stage]
        assert [wave["sequence"] for wave in own] == list(range(1, len(own) + 1)), own
        found[stage] = [wave["wave_id"] for wave in own]
        assert len({*found[stage]}) == len(own), own
    return found


def staged(lake: Path) -> set[str]:
    """Ids of the waves whose staging is complete."""
    return {header.parent.name for header in lake.glob("_staging/*/*/header.json")}


class Driver:
    """A command in a session and process group of its own, whose descendants bear a mark wherever they end up."""

    def __init__(self, command: Sequence[str], *, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        scratch = folder / "scratch"  # what is killed leaves its temporary files
        scratch.mkdir(exist_ok=True)
        environ = os.environ | {MARK: self.mark, "TMPDIR": str(scratch), "SPARK_LOCAL_DIRS": str(scratch)}
        self._out, self._err = folder / f"{self.mark}.out", folder / f"{self.mark}.err"
        # Files, since a pipe stays open as long as any descendant lives.
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._out.read_text()

    @property
    def complaint(self) -> str:
        return self._err.read_text()

    def family(self) -> list[psutil.Process]:
        """The processes that bear the mark and are alive."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def wait(self, *, timeout_s: float = 300) -> int:
        """The exit code; minus the signal's number where one killed it."""
        return self.process.wait(timeout_s)

    def survivors(self, *, within_s: float = 10) -> list[str]:
        """Command lines of descendants that are still alive after so long."""
        _, alive = psutil.wait_procs(self.family(), timeout=within_s)
        return [described(process) for process in {*alive, *self.family()}]

    def close(self) -> None:
        """End what a failed test left over."""
        for process in self.family():
            with suppress(psutil.Error):
                process.kill()
        self.process.wait()


def described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process)


def command(*arguments: str | Path) -> list[str]:
    """The command line of `visionlake` in this environment."""
    return [sys.executable, "-m", "visionlake", *map(str, arguments)]
