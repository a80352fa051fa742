"""A pipeline file is checked as a whole, and says what is wrong in its user's words."""

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from visionlake.errors import ConfigError, UsageError
from visionlake.jobs._config import load_pipeline, resolve_lake, resolved
from visionlake.jobs._fields import parse_fps
from visionlake.udfs.view_options import ViewOptions

STAGE = """
from typing import Literal
from visionlake.expectations.frames import TABLE
from visionlake.jobs._fields import Fps, Seconds
from visionlake.jobs._stage import Input, Stage, StageConfig, setting

class Config(StageConfig):
    fps: Fps | None = setting(None, description="kept frames")
    start_s: Seconds | None = setting(None)
    quality: int = setting(92, ge=1, le=95, description="of JPEG")
    share: float | None = setting(None, gt=0, lt=1)
    format: Literal["jpeg", "none"] = setting("jpeg")
    is_square: bool = setting(False)
    files: tuple[str, ...] = setting(("x",), is_path=True, min_length=1)
    model: str | None = setting(None, is_path=True)

STAGE = Stage(
    name="own", summary="", config=Config, inputs=(Input(table=TABLE),), outputs=(), transform=lambda inputs, _: inputs
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(STAGE)
    return tmp_path


def write(folder: Path, text: str, *, head: str = 'lake = "lake"\nstage_files = ["own.py"]\n') -> Path:
    path = folder / "pipeline.toml"
    path.write_text(head + text)
    return path


def own_config(folder: Path, text: str, **options: list[str]) -> Any:
    pipeline = load_pipeline(write(folder, "[own]\n" + text), **options)
    return pipeline.stages[0][1]


def refused(folder: Path, text: str, **options: list[str]) -> str:
    with pytest.raises(ConfigError) as raised:
        own_config(folder, text, **options)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"{folder / 'pipeline.toml'}: 1 problem"
    return lines[1].strip()


def test_a_pipeline_holds_lake_stages_in_order_tracking_and_spark_settings(tmp_path: Path) -> None:
    text = (
        '[extract_frames]\nfps = 5\n[ingest_media]\ninputs = ["v"]\n[mlflow]\nenabled = false\n[spark]\nsql.x = true\n'
    )
    pipeline = load_pipeline(write(tmp_path, text, head='lake = "lake"\n'))
    assert (pipeline.path, pipeline.folder) == (tmp_path / "pipeline.toml", tmp_path)
    assert pipeline.lake == str(tmp_path / "lake")
    assert pipeline.stage_names == ("ingest_media", "extract_frames")
    assert pipeline.tracking.enabled is False
    assert pipeline.spark == {"spark.sql.x": "true"}


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5", Fraction(5)),
        ("29.97", Fraction(2997, 100)),
        ('"30000/1001"', Fraction(30000, 1001)),
        ("0.5", Fraction(1, 2)),
    ],
)
def test_rates_are_exactly_what_is_written(folder: Path, text: str, rate: Fraction) -> None:
    assert own_config(folder, f"fps = {text}").fps == rate


def test_a_rate_has_more_digits_than_a_double() -> None:
    assert parse_fps("29.970029970029970029970029970029970030") != parse_fps(29.97002997002997)
    assert parse_fps(29.97) == Fraction(2997, 100)


@pytest.mark.parametrize("text", ["0", "-1", "true", '"fast"', '"1/0"', "nan", "inf", "1e999999999", "[5]", "1e7"])
def test_impossible_rates_are_refused(folder: Path, text: str) -> None:
    assert "frames per second above 0" in refused(folder, f"fps = {text}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("qualty = 3", "own.qualty = 3: unknown key; did you mean quality? (allowed: "),
        ("quality = 96", "own.quality = 96: allowed is a whole number at least 1 and at most 95 (of JPEG)"),
        ("quality = 9.5", "own.quality = 9.5: allowed is a whole number"),
        ("quality = true", "own.quality = true: allowed is a whole number"),
        ('quality = "92"', 'own.quality = "92": allowed is a whole number'),
        ("share = 1.5", "own.share = 1.5: allowed is a number above 0 and below 1"),
        ("share = nan", "own.share = nan: allowed is a number"),
        ('format = "jpg"', 'own.format = "jpg": allowed is "jpeg" or "none"'),
        ("is_square = 1", "own.is_square = 1: allowed is true or false"),
        ('files = ["a", 1]', "own.files[1] = 1: allowed is a list, each text"),
        ('files = "a"', 'own.files = "a": allowed is a list, each text'),
        ("files = []", "own.files = []: allowed is a list, each text not empty"),
        ("start_s = -1", "own.start_s = -1: negative; allowed is seconds, at least 0"),
        ('severity = {x = "halt"}', 'own.severity.x = "halt": allowed is a table, each value "stop" or "warn"'),
        ("expectations = [3]", "own.expectations[0] = 3: allowed is a list, each a table"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(folder: Path, text: str, message: str) -> None:
    assert refused(folder, text).startswith(message)


def test_views_of_a_detector(tmp_path: Path) -> None:
    head = 'lake = "l"\n[detect_objects.small]\nbackend = "builtin"\n'
    text = 'tile_width_px = 640\ntile_height_px = 480\nbeside_tiles = "nothing"\nscales = [1, 1.25]\n'
    configs: list[Any] = [load_pipeline(write(tmp_path, each, head=head)).stages[0][1] for each in (text, "")]
    options, plain = (config.options() for config in configs)
    assert plain.views == ViewOptions()
    assert options.views == ViewOptions(
        tile_width_px=640, tile_height_px=480, beside_tiles="nothing", scales=(1.0, 1.25)
    )
    assert pickle.loads(pickle.dumps(options)) == options  # it goes to the workers
    for wrong, message in (
        ('flips = "vertical"', 'small.flips = "vertical": allowed is "none" or "horizontal"'),
        ("scales = [1, 9]", r"small.scales\[1\] = 9: allowed is a list, each a number from 0.1 to 4.0"),
        ("tile_height_px = 8", "small.tile_height_px = 8: allowed is a whole number at least 32"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_pipeline(write(tmp_path, wrong, head=head))


def test_numbers_may_be_whole_where_a_fraction_is_possible(folder: Path) -> None:
    config = own_config(folder, "share = 0.25\nstart_s = 2.5\nmax_error_share = 1")
    assert (config.share, config.start_s, config.max_error_share) == (0.25, Fraction(5, 2), 1.0)


def test_all_that_is_wrong_with_a_file_is_told_at_once(folder: Path) -> None:
    text = "spurk = 1\n[own]\nquality = 0\nshare = 2\n[extract_frame]\n[mlflow]\nexperiment = 3\n[spark]\nx = [1]\n"
    with pytest.raises(ConfigError) as raised:
        load_pipeline(write(folder, text, head='stage_files = ["own.py", "absent.py"]\n'))
    assert str(raised.value).splitlines()[0].endswith("pipeline.toml: 8 problems")
    for part in (
        "lake: missing",
        "absent.py",
        "spurk",
        "own.quality",
        "own.share",
        "mean extract_frames",
        "mlflow.exp",
    ):
        assert part in str(raised.value)


def test_a_section_that_is_a_value_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"extract_frames = 5: allowed is a section, \[extract_frames\]"):
        load_pipeline(write(folder, "extract_frames = 5\nspark = 3\n"))


def test_a_required_setting_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ingest_media.inputs = \(nothing\): missing; allowed is a list, each text"):
        load_pipeline(write(tmp_path, "[ingest_media]\n", head='lake = "x"\n'))


def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pipeline.toml: not valid TOML: .*line 3"):
        load_pipeline(write(tmp_path, "[own\n"))
    with pytest.raises(ConfigError, match="No such file"):
        load_pipeline(tmp_path / "absent.toml")
    (tmp_path / "bytes.toml").write_bytes(b'lake = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_pipeline(tmp_path / "bytes.toml")
    (tmp_path / "mark.toml").write_text('\ufefflake = "x"')
    assert load_pipeline(tmp_path / "mark.toml").stages == ()


def test_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    folder = tmp_path / "clips [2024]"
    (folder / "odd*name").mkdir(parents=True)
    (folder / "own.py").write_text(STAGE)
    config = own_config(folder, 'files = ["a/b", "*.mp4", "odd*name", "/c/*", "s3a://d/*.mp4"]\nmodel = "../m.pt2"')
    escaped = str(folder).replace("[", "[[]")
    assert config.files == (f"{folder}/a/b", f"{escaped}/*.mp4", f"{folder}/odd*name", "/c/*", "s3a://d/*.mp4")
    assert config.model == f"{folder}/../m.pt2"


@pytest.mark.parametrize(
    ("lake", "meaning"),
    [
        ("lake", "{}/lake"),
        ("../lake/", None),
        ("/data/lake", "/data/lake"),
        ("s3a://bucket/lake/", "s3a://bucket/lake"),
        ("main.vision", "main.vision"),
        ("./main.vision", "{}/main.vision"),
        ("there.is", "{}/there.is"),
        ("a.b.c", "{}/a.b.c"),
    ],
)
def test_a_lake_is_a_folder_a_uri_or_catalog_and_schema(tmp_path: Path, lake: str, meaning: str | None) -> None:
    (tmp_path / "there.is").mkdir()
    expected = str(tmp_path.parent / "lake") if meaning is None else meaning.format(tmp_path)
    assert resolve_lake(lake, folder=tmp_path) == expected


def test_overrides_are_values_or_else_text(folder: Path) -> None:
    overrides = ["own.fps=29.97", "own.format=none", 'own.files=["a=b"]', "own.severity.x=warn", "lake=other"]
    pipeline = load_pipeline(
        write(folder, "[own]\nfps = 5\n"), overrides=[*overrides, "spark.sql.y=3", "own.is_square = true"]
    )
    config = resolved(pipeline.stages[0][1])
    assert (config["fps"], config["format"], config["is_square"]) == ("2997/100", "none", True)
    assert (config["files"], config["severity"]) == ([str(folder / "a=b")], {"x": "warn"})
    assert (pipeline.lake, pipeline.spark) == (str(folder / "other"), {"spark.sql.y": "3"})


def test_a_wrong_override_says_that_it_was_one(folder: Path) -> None:
    assert refused(folder, "", overrides=["own.quality=0"]).startswith("--set own.quality = 0: allowed is")
    for text in ("own.quality", "=3", "own.=3", "lake.x=3"):
        with pytest.raises(ConfigError, match="--set "):
            own_config(folder, "", overrides=[text])


def test_a_configuration_is_recorded_as_json_types(folder: Path) -> None:
    record = resolved(
        own_config(folder, 'fps = 29.97\nfiles = ["s3://x"]\nexpectations = [{type = "t", kwargs = {a = [1]}}]')
    )
    assert (record["fps"], record["start_s"], record["files"]) == ("2997/100", None, ["s3://x"])
    assert record["expectations"] == [{"type": "t", "kwargs": {"a": [1]}}]


def test_stages_are_chosen_by_name_or_range(tmp_path: Path) -> None:
    text = '[ingest_media]\ninputs = ["v"]\n[extract_frames]\n'
    pipeline = load_pipeline(write(tmp_path, text, head='lake = "lake"\n'))

    def chosen(**options) -> list[str]:
        return [stage.name for stage, _ in pipeline.choose(**options)]

    assert chosen() == chosen(first="ingest_media", last="extract_frames") == ["ingest_media", "extract_frames"]
    assert chosen(only=["extract_frames"]) == chosen(first="extract_frames") == ["extract_frames"]
    assert chosen(last="ingest_media") == ["ingest_media"]
    with pytest.raises(UsageError, match="did you mean ingest_media"):
        chosen(only=["ingest_medai"])
    with pytest.raises(UsageError, match="comes after"):
        chosen(first="extract_frames", last="ingest_media")
    with pytest.raises(UsageError, match="has no stage; add a section"):
        load_pipeline(write(tmp_path, "", head='lake = "lake"\n')).choose()
