"""The command line. Reading it costs little: what a command needs is imported when the command runs."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from visionlake import __version__
from visionlake._lake_options import AS_OF
from visionlake._text import clean
from visionlake.errors import VisionlakeError
from visionlake.jobs import _stages

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_LAKE_COMMANDS = dict.fromkeys(("show", "explain", "diff-labels"), "_label_commands") | dict.fromkeys(
    ("quarantine", "runs", "tables", "waves"), "_lake_commands"
)  # and the modules that have them


class _Commands(click.Group):
    """The commands of this module, of `_label_commands` and `_lake_commands`, and one per stage, found by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        stages = (_dashed(name) for name in _stages.stage_names())
        return [*dict.fromkeys((*super().list_commands(ctx), *_LAKE_COMMANDS, *stages))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _LAKE_COMMANDS:
            module = import_module(f"visionlake.{_LAKE_COMMANDS[cmd_name]}")
            return getattr(module, cmd_name.replace("-", "_"))
        own = super().get_command(ctx, cmd_name)
        stage = cmd_name.replace("-", "_")
        return _stage_command(stage) if own is None and stage in _stages.stage_names() else own

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no command {args[0]!r}; {_stages.one_of(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        stages = _stages.stage_names()
        own = [name for name in self.list_commands(ctx) if name.replace("-", "_") not in stages]
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._help(ctx, name)) for name in own])
        with formatter.section("Stages, one at a time"):
            formatter.write_dl([(_dashed(name), _stages.stage_summary(name)) for name in stages])

    def _help(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=90) if command else ""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="visionlake %(version)s")
def cli() -> None:
    """Turn raw images and video into gated, versioned tables on Spark.

    Begin with `visionlake sample DIR`, then `visionlake run pipeline.toml`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 usage or configuration, 3 stopped by a gate."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = cli.main(args=list(arguments), prog_name="visionlake", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except VisionlakeError as error:
        _complain(str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # whatever it is, a user gets one line, and the trace is kept
        return _broke_down(error, verbose="--verbose" in arguments)


def run_process() -> NoReturn:
    """The command line as a process of its own."""
    code = main()
    gc.freeze()  # or Python, when it ends, searches the thousands of modules of a run for cycles: over a second
    sys.exit(code)


def run_options(command: Any) -> Any:
    """Options that `run` and every stage's command share."""
    for option in reversed(
        (
            click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N media (files)."),
            click.option(
                "--rebuild",
                is_flag=True,
                help="Make stages with changed settings, or those of --stage, anew.",
            ),
            click.option("--dry-run", is_flag=True, help="Show plan and configuration, and do nothing."),
            click.option(
                "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Over the file's value."
            ),
            click.option("--verbose", is_flag=True, help="Show Spark's log, and full traces of errors."),
        )
    ):
        command = option(command)
    return click.argument("pipeline", type=click.Path(dir_okay=False))(command)


@cli.command()
@run_options
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Only this stage (may be repeated).")
@click.option("--from", "first", metavar="NAME", help="Begin with this stage.")
@click.option("--until", "last", metavar="NAME", help="End with this stage.")
def run(pipeline: str, stages: tuple[str, ...], first: str | None, last: str | None, **options: Any) -> int:
    """Run a pipeline: every stage on what is new."""
    from visionlake._run import run_pipeline

    if stages and (first or last):
        raise click.UsageError("--stage goes without --from and --until")
    only = [_underscored(name) for name in stages] or None
    return run_pipeline(
        pipeline,
        only=only,
        first=_underscored(first) if first else None,
        last=_underscored(last) if last else None,
        **options,
    )


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds make equal files.")
@click.option("--videos", type=click.IntRange(min=1), default=6, show_default=True, help="How many videos.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=4.0, show_default=True, help="Of each.")
@click.option("--size", default="640x360", show_default=True, metavar="WxH", help="In pixels.")
@click.option("--split", default="train", show_default=True, help="train, or held_out: other hues and backgrounds.")
def sample(folder: Path, **options: Any) -> None:
    """Make short videos of moving objects, with exact truth beside them."""
    from visionlake._sample import write_sample

    write_sample(folder, **options)


@cli.command()
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def probe(file: str, as_json: bool) -> None:
    """Show what is in a video or picture, and how far index / rate drifts from its true times."""
    from visionlake._probe import print_probe

    print_probe(file, as_json=as_json)


@cli.command(help=_stages.stage_summary("report"))
@run_options
@AS_OF
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="With --as-of, where to write: past-report.html."
)
def report(pipeline: str, as_of: str | None, out: Path | None, **options: Any) -> int:
    """The page in the lake, as it would be written now, or a page of its own about an earlier time."""
    if as_of is None:
        from visionlake._run import run_pipeline

        if out is not None:
            raise click.UsageError("--out goes with --as-of; the page of today lies in the lake")
        return run_pipeline(pipeline, only=["report"], **options)
    from visionlake._past_report import write_past_report

    if options["limit"] or options["rebuild"] or options["dry_run"]:
        raise click.UsageError("--limit, --rebuild and --dry-run go without --as-of, which changes nothing in the lake")
    target = write_past_report(pipeline, as_of=as_of, out=out, overrides=options["overrides"])
    click.echo(f"{clean(target)} is written.")
    return 0


def _stage_command(stage: str) -> click.Command:
    def run_stage(pipeline: str, **options: Any) -> int:
        from visionlake._run import run_pipeline

        return run_pipeline(pipeline, only=[stage], **options)

    summary = _stages.stage_summary(stage)
    return click.command(_dashed(stage), help=f"{summary}\n\nThe same as `visionlake run PIPELINE --stage {stage}`.")(
        run_options(run_stage)
    )


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _underscored(name: str) -> str:
    stage, dot, instance = name.partition(".")
    return f"{stage.replace('-', '_')}{dot}{instance}"


def _complain(text: str) -> None:
    click.echo(f"visionlake: {clean(text, keep_lines=True)}", err=True)


def _interrupted() -> int:
    _complain("interrupted; run the same command again to go on")
    return INTERRUPTED


def _broke_down(error: Exception, *, verbose: bool) -> int:
    from visionlake._traces import keep_trace
    from visionlake.errors import summarise

    if verbose:
        _complain(keep_trace(error, shown=True))
    else:
        _complain(f"{summarise(error)}\nThe full trace is in {keep_trace(error)} (or run with --verbose).")
    return FAILED


if __name__ == "__main__":
    run_process()
