"""What `--as-of` may say, and what is said of all else before Spark starts."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from visionlake import cli
from visionlake.errors import UsageError
from visionlake.jobs._as_of import AsOf, parse_as_of


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-22", (2026, 11, 22)),
        ("2026-11-22T03:00", (2026, 11, 22, 3)),
        (" 2026-11-22 03:00:05+01:00 ", (2026, 11, 22, 2, 0, 5)),
        ("2026-11-22T03:00:05.25Z", (2026, 11, 22, 3, 0, 5, 250_000)),
    ],
)
def test_times_are_utc_unless_they_name_a_zone(text: str, time: tuple[int, ...]) -> None:
    assert parse_as_of(text) == AsOf(text=text.strip(), time=datetime(*time, tzinfo=UTC))  # pyright: ignore[reportArgumentType] -- parts of a time
    assert parse_as_of(datetime(*time)).time == datetime(*time, tzinfo=UTC)  # pyright: ignore[reportArgumentType] -- the same
    east = datetime(2026, 11, 22, 3, tzinfo=timezone(timedelta(hours=9)))
    assert parse_as_of(east).time == datetime(2026, 11, 21, 18, tzinfo=UTC)


def test_runs_and_versions() -> None:
    assert parse_as_of("20261122T030000-0a1b2c") == AsOf(text="20261122T030000-0a1b2c", run_id="20261122T030000-0a1b2c")
    assert parse_as_of("frames=12").versions == {"frames": 12}
    assert parse_as_of("frames = 12, of_mine=0").versions == {"frames": 12, "of_mine": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "allowed is a time (2026-11-22,"),
        ("yesterday", "the id of a run (`visionlake runs` lists them)"),
        ("12", "or versions of tables (frames=12,detections=7)"),
        ("2026-13-01", "'2026-13-01'"),
        ("20261122T030000-xyz", "allowed is"),
        ("frames=-1", "'frames=-1' is no table=version"),
        ("frames=1,", "'' is no table=version"),
        ("frames=1,frames=2", "frames is there twice"),
        ("instances=1", "instances is a view without versions of its own; name detections"),
        ("0001-01-01T00:00+05:00", "beyond the years 1 to 9999"),
    ],
)
def test_all_else_says_what_is_allowed(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_as_of(text)
    assert said in str(caught.value)
    assert cli.main(["tables", "--lake", str(tmp_path), "--as-of", text]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["p.toml"], "a media"),
        (["p.toml", "a.mp4", "x"], "PTS 'x' is no whole number"),
        (["p.toml", "a.mp4", "1", "m", "more"], "once a pts and once a model"),
        (["p.toml", "a.mp4", "1", "--pts", "2"], "once a pts"),
        (["p.toml", "a.mp4", "1", "--at", "2"], "not both"),
        (["--lake", "x", "a.mp4", "1", "m", "--model", "n"], "once a model"),
    ],
)
def test_explain_wants_a_media_and_at_most_one_frame_and_model(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_description_of_tables_is_of_no_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "--describe", "--as-of", str(date(2026, 1, 1))]) == 2
    assert "goes without --as-of" in capsys.readouterr().err
