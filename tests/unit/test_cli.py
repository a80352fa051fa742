"""The command line: quick, with exit codes to rely on, and without stack traces for its user's mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

from visionlake import __version__, cli
from visionlake.errors import StageError
from visionlake.jobs import _submit

HEAVY = ("IPython", "av", "delta", "great_expectations", "mlflow", "numpy", "pandas", "pyarrow", "pyspark", "torch")


def loaded_by(*arguments: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    """Heavy modules that a command imports, and how it ended."""
    script = (
        "import sys; from visionlake.cli import main; code = main(sys.argv[1:])\n"
        f"sys.stderr.write('\\n' + ' '.join(m for m in (*{HEAVY!r}, 'pydantic') if m in sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    return set(done.stderr.splitlines()[-1].split()), done


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.toml"
    path.write_text('lake = "lake"\n[ingest_media]\ninputs = ["v"]\n[extract_frames]\nfps = 5\n')
    return path


def test_help_imports_nothing_heavy() -> None:
    heavy, done = loaded_by("--help")
    assert heavy == set()
    assert done.returncode == 0
    for word in ("run", "sample", "probe", "runs", "tables", "quarantine", "waves", "extract-frames", "ingest-media"):
        assert f"\n  {word} " in done.stdout


def test_a_wrong_configuration_is_told_before_anything_heavy_is_imported(pipeline: Path) -> None:
    heavy, done = loaded_by("run", str(pipeline), "--set", "extract_frames.fsp=2")
    assert heavy <= {"pydantic"}
    assert done.returncode == 2
    assert "--set extract_frames.fsp = 2: unknown key; did you mean fps?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], "did you mean run?"),
        (["run"], "Missing argument 'PIPELINE'"),
        (["run", "absent.toml"], "absent.toml: cannot be read: No such file"),
        (["run", "{}", "--stage", "extract-frame"], "did you mean extract_frames?"),
        (["run", "{}", "--from", "extract_frames", "--until", "ingest_media"], "comes after"),
        (["run", "{}", "--stage", "ingest_media", "--from", "ingest_media"], "--stage goes without"),
        (["run", "{}", "--limit", "0"], "x>=1"),
        (["run", "{}", "--set", 'extract_frames.severity.blak_share="warn"'], "did you mean 'black_share'"),
        (["run", "{}", "--set", 'extract_frames.expectations_file="none.py"'], "none.py: FileNotFoundError"),
        (["run", "{}", "--set", "extract_frames.start_s=5", "--set", "extract_frames.end_s=3"], "is not before"),
        (["run", "{}", "--set", "fps"], "allowed is section.key=value"),
        (["runs"], "give PIPELINE or --lake"),
        (["runs", "{}"], "there is no lake at"),
        (["waves", "show", "{}"], "and one name"),
        (["waves", "release", "{}", "x"], "Missing option '--why'"),
        (["quarantine", "replay", "{}"], "say which rows"),
        (["sample", "{}.d", "--size", "big"], "allowed is WIDTHxHEIGHT"),
        (["tables", "--describe", "--table", "frame"], "did you mean frames?"),
    ],
)
def test_mistakes_exit_2_and_say_what_to_do(
    pipeline: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli.main([argument.format(pipeline) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"visionlake {__version__}\n"


@pytest.mark.parametrize("command", ["run", "extract-frames"])
def test_options_reach_the_run(pipeline: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    calls = []
    monkeypatch.setattr("visionlake._run.run_pipeline", lambda path, **options: calls.append((path, options)) or 3)
    chosen = ["--stage", "extract-frames", "--stage", "detect-objects.my-net"] if command == "run" else []
    options = ["--limit", "4", "--rebuild", "--dry-run", "--set", "a.b=1", "--set", "a.c=2", "--verbose"]
    assert cli.main([command, str(pipeline), *chosen, *options]) == 3
    path, options = calls[0]
    assert path == str(pipeline)
    options = {name: value for name, value in options.items() if value is not None}
    only = ["extract_frames", "detect_objects.my-net"] if command == "run" else ["extract_frames"]
    expected = {"only": only, "limit": 4, "rebuild": True, "dry_run": True, "verbose": True}
    assert options == expected | {"overrides": ("a.b=1", "a.c=2")}


def fail(error: BaseException):
    def run(*_: object, **__: object) -> int:
        raise error

    return run


def test_an_interrupt_exits_130_with_one_line(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("visionlake._run.run_pipeline", fail(KeyboardInterrupt()))
    assert cli.main(["run", str(pipeline)]) == 130
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_an_error_of_the_users_is_told_without_a_trace(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("visionlake._run.run_pipeline", fail(StageError("table \x1b[31mframes does not fit")))
    assert cli.main(["run", str(pipeline)]) == 1
    assert capsys.readouterr().err == "visionlake: table \\x1b[31mframes does not fit\n"


def test_what_nobody_foresaw_is_one_line_and_a_file_with_the_trace(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("visionlake._run.run_pipeline", fail(ZeroDivisionError("by zero")))
    assert cli.main(["run", str(pipeline)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("visionlake: ZeroDivisionError: by zero\n")
    assert "Traceback" not in error
    (log,) = tmp_path.glob("visionlake-*.log")
    assert str(log) in error
    assert "Traceback" in log.read_text()
    assert cli.main(["run", str(pipeline), "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_declared_tables_are_described_without_a_lake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tables", "--describe", "--table", "frames", "--table", "current_frames"]) == 0
    out = capsys.readouterr().out
    assert "presentation time in ticks of the time base" in out
    assert "pts_strictly_increasing (stop)" in out
    assert "view over frames, sources" in out


def test_a_job_file_takes_its_configuration_and_exits_with_the_runs_code(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    monkeypatch.setattr("visionlake._run.run_pipeline", lambda path, **options: calls.append((path, options)) or 3)
    with pytest.raises(SystemExit) as ended:
        _submit.main("extract_frames", ["--config", str(pipeline), "--limit", "2"])
    assert ended.value.code == 3
    assert (calls[0][0], calls[0][1]["only"], calls[0][1]["limit"]) == (str(pipeline), ["extract_frames"], 2)
    for arguments, said in ([], "--config"), (["--config", "absent.toml"], "absent.toml"):
        monkeypatch.undo()
        with pytest.raises(SystemExit) as ended:
            _submit.main("extract_frames", arguments)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


def test_the_package_offers_its_functions_when_they_are_asked_for() -> None:
    script = (
        "import sys, visionlake\n"
        f"assert not [m for m in (*{HEAVY!r}, 'pydantic', 'rich') if m in sys.modules]\n"
        "print(visionlake.run, visionlake.extract_frames, visionlake.show_frames, visionlake.Lake, dir(visionlake))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
