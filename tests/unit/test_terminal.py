"""What people see: live bars and plain lines, the end of a run, at 80 and 160 columns, whatever files are called."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from visionlake._notebook import FrameGrid
from visionlake._reporter import TerminalReporter
from visionlake._summary import print_plan, print_result
from visionlake._terminal import cell, clean, make_console, print_record, print_rows
from visionlake.expectations._checks import CheckResult
from visionlake.jobs._config import load_pipeline
from visionlake.jobs._results import RunResult, StagePlan, StageResult

HOSTILE = "[bold red]a[/] \x1b[2J\x1b]0;title\x07\r\n\u202egpj.exe \udcff \x9b1m"
BLACK = CheckResult(
    name="black_share",
    severity="stop",
    status="stopped",
    expected="at most 20 % of frames are black",
    observed="0.62",
    keys=(json.dumps({"media_id": "ab" * 32, "pts": 512}, separators=(",", ":")), HOSTILE),
    message=HOSTILE,
)
FROZEN = CheckResult(name="frozen_share", severity="warn", status="warned", expected="at most 50 %", observed="0.7")
FINE = CheckResult(name="error_share", severity="stop", status="passed", expected="at most 20 %", observed="0.01")
STOPPED = RunResult(
    run_id="20260101T000000-abcdef",
    lake="/lake",
    stages=(
        StageResult(
            stage="ingest_media", status="done", parents=12_345, published=12_340, quarantined=5, seconds=61.25,
            checks=(FINE, FROZEN), reasons={"not_media": 3, "truncated": 1, HOSTILE: 1},
        ),
        StageResult(
            stage="extract_frames", status="stopped", parents=40, seconds=12.5, waves=1, checks=(FINE, BLACK),
            wave_id="extract_frames-000007",
        ),
        StageResult(stage="label", status="skipped", error="waits for extract_frames"),
        StageResult(stage="count", status="failed", error=f"ValueError: {HOSTILE}"),
        StageResult(stage="other", status="nothing_new", seconds=0.4),
    ),
    places={"ab" * 32: "/my videos/park.mp4"},
)  # fmt: skip


def screen(width: int, *, is_terminal: bool = False) -> Console:
    kind = {"force_terminal": True, "color_system": None} if is_terminal else {}
    return Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False, **kind)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_text_from_outside_is_only_shown() -> None:
    text = clean(HOSTILE)
    assert text.isprintable()
    assert text == "[bold red]a[/] \\x1b[2J\\x1b]0;title\\x07\\r\\n\\u202egpj.exe \\xff \\x9b1m"
    assert clean("a\nb\tc", keep_lines=True) == "a\nb\\tc"
    assert clean("schön 日本 🎥") == "schön 日本 🎥"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "yes"), (12345, "12,345"), (0.5, "0.5"), (1234.0, "1,234"), ({"a": [1]}, '{"a": [1]}')],
)
def test_values_in_tables(value: object, text: str) -> None:
    assert cell(value).plain == text


@pytest.mark.parametrize("width", [80, 160])
def test_the_end_of_a_run(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    console = screen(width)
    print_result(console, STOPPED, pipeline="my videos/pipeline.toml")
    text = shown(console)
    assert all(line.isprintable() for line in text.splitlines())
    table, _, rest = text.partition("What next")
    assert max(map(len, table.splitlines())) <= width
    for row in (
        "ingest_media 12,345 12,340 5 61.2 201.5 1 warning",
        "extract_frames 40 0 0 12.5 - stopped",
        "other 0 0 0 0.4 - nothing new",
        "ingest_media not_media 3",
        "extract_frames: check black_share stopped",
        "expected at most 20 % of frames are black",
        "observed 0.62",
    ):
        assert row in [" ".join(line.split()) for line in table.splitlines()]
    assert "/myvideos/park.mp4" in "".join(table.split())
    wave = "'my videos/pipeline.toml' extract_frames-000007"
    for command in (
        f"visionlake waves show {wave}",
        f"visionlake waves release {wave} --why '...'",
        f"visionlake waves drop {wave} --why '...'",
        "visionlake run 'my videos/pipeline.toml'",
        "visionlake quarantine list 'my videos/pipeline.toml'",
    ):
        assert f"  {command}\n" in rest


def test_commands_can_be_copied_where_the_shell_does_not_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my env").mkdir()
    for name in ("visionlake", "python"):
        (tmp_path / "my env" / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("sys.executable", str(tmp_path / "my env" / "python"))
    console = screen(80)
    print_result(console, STOPPED, pipeline="p.toml")
    assert "  'my env/visionlake' run p.toml\n" in shown(console)


def test_a_run_that_went_well_says_so() -> None:
    console = screen(80)
    done = StageResult(stage="ingest_media", status="done", parents=2, published=2, seconds=1.0, checks=(FINE,))
    print_result(console, RunResult(run_id="r", lake="l", stages=(done,)), pipeline="p.toml")
    assert "passed" in shown(console)
    assert "visionlake tables p.toml" in shown(console)
    assert "quarantine list" not in shown(console)


def work(reporter: TerminalReporter) -> None:
    with reporter:
        reporter.stage_started("extract_frames", 40, 1800)
        reporter.progressed("extract_frames", 12, 40, 540)
        reporter.note(f"seen {HOSTILE}")
        reporter.progressed("extract_frames", 20.5, 40, 1_234_567)
        reporter.step("extract_frames", "wave", "staged")
        reporter.stage_finished(
            StageResult(stage="extract_frames", status="done", parents=40, published=1800, seconds=75)
        )
        reporter.failed("label", ValueError(HOSTILE))


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_shows_a_bar_per_stage(width: int) -> None:
    console = screen(width, is_terminal=True)
    work(TerminalReporter(console, nouns={"extract_frames": ("media", "frames")}))
    last = shown(console).rpartition("extract_frames")[2].splitlines()[0]
    assert last.split()[-7:] == ["40/40", "media", "1,800", "frames", "24.0/s", "done", "1:15"]
    assert len(last) <= width
    assert "\u202e" not in shown(console)


def test_elsewhere_there_are_plain_lines_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    console = screen(200)
    work(TerminalReporter(console, nouns={"extract_frames": ("media", "frames")}, every_s=0))
    lines = shown(console).splitlines()
    assert lines[0] == "extract_frames: 40 media to do, about 1,800 frames"
    assert lines[1].startswith("extract_frames: 12/40 media, 540 frames, ")
    assert lines[-3] == "extract_frames: done after 1:15"
    assert lines[-2].startswith("label: ValueError: ")
    assert Path(lines[-1].split(" is in ")[1]).is_file()
    console = screen(200)
    work(TerminalReporter(console, every_s=100))
    assert not [line for line in shown(console).splitlines() if "12/40" in line]


def test_a_plan_shows_settings_and_hides_secrets(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('lake = "lake"\n[extract_frames]\nfps = 5\n[spark]\nhadoop.fs.s3a.secret.key = "hush"\n')
    console = screen(100)
    plans = [StagePlan(stage="extract_frames", parents=3, estimated_rows=None, replays=0, staged_waves=1)]
    print_plan(console, plans, load_pipeline(path))
    text = shown(console)
    assert 'fps = "5"' in text
    assert "\n# max_frames unset: at most so many" in text
    assert "= null" not in text
    assert 'spark.hadoop.fs.s3a.secret.key = "***"' in text
    assert "hush" not in text


def test_rows_and_records_fold_and_never_break_the_screen() -> None:
    console = screen(60)
    print_rows(console, [{"name": HOSTILE * 3, "rows": 1_000_000}], empty="none")
    print_record(console, {"config": '{"fps": "5"}', "error": None, "name": HOSTILE})
    print_rows(console, [], empty="No runs yet.")
    lines = shown(console).splitlines()
    assert all(line.isprintable() and len(line) <= 60 for line in lines)
    assert any("1,000,000" in line for line in lines)
    assert any('"fps": "5"' in line for line in lines)
    assert lines[-1] == "No runs yet."


def test_a_pipe_gets_wide_lines_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console().width >= 160
    monkeypatch.setenv("COLUMNS", "72")
    assert make_console().width == 72


def test_a_grid_of_frames_is_one_page_of_its_own(tmp_path: Path) -> None:
    FrameGrid(((b"\xff\xd8jpeg", "<b>one</b>"), (b"\x89PNGx", "two")), width_px=100).save(tmp_path / "grid.html")
    page = (tmp_path / "grid.html").read_text()
    assert "data:image/jpeg;base64,/9hqcGVn" in page
    assert "data:image/png;base64," in page
    assert "&lt;b&gt;one&lt;/b&gt;" in page
