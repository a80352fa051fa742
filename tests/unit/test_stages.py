"""Stages are found by name without importing them, in a folder or a zip, and users bring their own as files."""

import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import visionlake
from visionlake.errors import ConfigError, UsageError
from visionlake.expectations.frames import TABLE as FRAMES
from visionlake.expectations.media import TABLE as MEDIA
from visionlake.jobs._pipeline import _is_fed
from visionlake.jobs._results import StageResult
from visionlake.jobs._stage import Input, Stage, StageConfig
from visionlake.jobs._stages import in_order, load_stage, load_stage_file, stage_names, stage_summary

OWN_STAGE = """
from __future__ import annotations

from dataclasses import dataclass

from visionlake.expectations.frames import TABLE
from visionlake.jobs._stage import Input, Stage, StageConfig, setting


@dataclass
class Mean:
    value: float


class Config(StageConfig):
    scale: float | None = setting(2.0, gt=0)


def scaled(value, config):
    return Mean(value * config.scale).value


def transform(inputs, config):
    return inputs["frames"]


STAGE = Stage(name="mean", summary="", config=Config, inputs=(Input(table=TABLE),), outputs=(), transform=transform)
"""


def stage(name: str, *, reads: tuple[str, ...] = (), writes: tuple[str, ...] = ()) -> Stage:
    inputs = tuple(Input(table=replace(MEDIA, name=table)) for table in reads)
    outputs = tuple(replace(FRAMES, name=table) for table in writes)
    return Stage(
        name=name,
        summary="",
        config=StageConfig,
        inputs=inputs,
        outputs=outputs,
        transform=lambda inputs, _: inputs["x"],
    )


def test_stages_are_the_public_modules_of_jobs() -> None:
    assert stage_names() == (
        "detect_objects", "evaluate_labels", "export_dataset", "extract_frames", "fuse_labels", "import_annotations",
        "ingest_media", "report", "segment_objects", "split_dataset",
    )  # fmt: skip
    assert all(stage_summary(name).endswith(".") for name in stage_names())
    assert all(load_stage(name).name == name for name in stage_names())


def test_stages_are_found_in_a_zip_and_not_imported(tmp_path: Path) -> None:
    root = tmp_path / "made" / "visionlake"
    source = Path(visionlake.__file__).parent
    shutil.copytree(source, root, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("jobs", "udfs", "expectations"):
        shutil.copytree(source.parent / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    archive = shutil.make_archive(str(tmp_path / "visionlake"), "zip", root.parent)
    script = (
        f"import sys; sys.path.insert(0, {archive!r})\n"
        "from visionlake.jobs import _stages\n"
        "assert '.zip' in _stages.__file__\n"
        "print(_stages.stage_names(), all(map(_stages.stage_summary, _stages.stage_names())))\n"
        "print([m for m in sys.modules if m in ('pydantic', 'pyarrow', 'visionlake.jobs.extract_frames')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [f"{stage_names()} True", "[]"]


def test_an_unknown_stage_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"did you mean extract_frames\?"):
        load_stage("extract_frame")


def test_a_stage_is_ordered_after_those_that_write_what_it_reads() -> None:
    label = stage("label", reads=("frames",), writes=("labels",))
    frames = stage("frames", reads=("media",), writes=("frames",))
    other = stage("other", reads=("elsewhere",), writes=("other",))
    refine = stage("refine", reads=("labels", "frames"), writes=("labels",))  # reads what it writes itself
    assert [s.name for s in in_order([label, frames, other])] == ["frames", "label", "other"]
    assert [s.name for s in in_order([refine, frames])] == ["frames", "refine"]
    with pytest.raises(ConfigError, match=r"circle: a, b"):
        in_order([stage("a", reads=("y",), writes=("x",)), stage("b", reads=("x",), writes=("y",))])


def test_a_stage_file_travels_to_workers_that_do_not_have_it(tmp_path: Path) -> None:
    from pyspark import cloudpickle

    file = tmp_path / "mean.py"
    file.write_text(OWN_STAGE)
    own = load_stage_file(file)
    assert isinstance(own, Stage)
    scaled, config = own.transform.__globals__["scaled"], own.config.model_validate({"scale": 3.0})
    sent = cloudpickle.dumps(lambda value: scaled(value, config))
    file.unlink()
    assert scaled.__module__ not in sys.modules
    assert pickle.loads(sent)(5.0) == 15.0


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "defines no STAGE"), ("STAGE = 3", "defines no STAGE"), ("1 / 0", "ZeroDivisionError"), ("(", "SyntaxError")],
)
def test_a_stage_file_without_a_stage_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_stage_file(file)
    with pytest.raises(ConfigError, match="no such file"):
        load_stage_file(tmp_path / "absent.py")


def test_workers_start_early_only_where_the_run_has_published_what_they_work_on() -> None:
    extract, detect = load_stage("extract_frames"), load_stage("detect_objects")
    assert isinstance(extract, Stage) and isinstance(detect, Stage) and detect.imports and not extract.imports
    chosen = [(extract, extract.config()), (detect, detect.config())]
    done = StageResult(stage="extract_frames", status="done", published=3)
    assert _is_fed(detect, chosen, [done])
    assert not _is_fed(detect, chosen, [replace(done, published=0)]) and not _is_fed(detect, chosen, [])
    assert not _is_fed(detect, chosen, [replace(done, stage="ingest_media")])
