"""Commands that look into a lake, or decide about what waits in it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from visionlake._lake_options import AS_OF, JSON, LAKE, LIMIT, PIPELINE, one_and_name, open_lake

if TYPE_CHECKING:
    from visionlake.jobs._lake import Lake

_IDS = ("run", "wave", "stage", "status", "table")  # columns that stay whole
_WIDE = ("started", "not passed")  # columns for wide terminals


@click.command()
@PIPELINE
@LAKE
@LIMIT
@AS_OF
@JSON
def runs(pipeline: str | None, uri: str | None, limit: int, as_of: str | None, as_json: bool) -> None:
    """List what ran, newest first."""
    with open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        found = []
        if lake.exists("runs"):
            rows = lake.table("runs").orderBy("started_at", ascending=False).limit(limit).collect()
            found = [row.asDict(recursive=True) for row in rows]
    _show(found, [_run_line(row) for row in found], as_json=as_json, empty="No runs yet.")


@click.command()
@PIPELINE
@LAKE
@click.option("--describe", is_flag=True, help="Show columns with units, rules and checks; needs no lake.")
@click.option("--table", "chosen", multiple=True, metavar="NAME", help="Only this table (may be repeated).")
@AS_OF
@JSON
def tables(
    pipeline: str | None, uri: str | None, describe: bool, chosen: tuple[str, ...], as_of: str | None, as_json: bool
) -> None:
    """List the tables of a lake, or describe all that are declared."""
    if describe and as_of:
        raise click.UsageError("--describe tells of what this version declares, and goes without --as-of")
    if describe:
        from visionlake._describe import print_declarations
        from visionlake.jobs._config import load_pipeline

        print_declarations(load_pipeline(pipeline) if pipeline else None, only=chosen, as_json=as_json)
        return
    with open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
        own = {table.name for stage, _ in (loaded.stages if loaded else ()) for table in stage.outputs}
        names = list(dict.fromkeys([*lake.names(), *(name for name in sorted(own) if lake.exists(name))]))
        found = [_table_line(lake, name) for name in names if not chosen or name in chosen]
    _show(found, found, as_json=as_json, empty="No tables yet.")


@click.group()
def quarantine() -> None:
    """See what was bad, and try it again."""


@quarantine.command("list")
@PIPELINE
@LAKE
@click.option("--stage", metavar="NAME", help="Of this stage.")
@click.option("--reason", metavar="REASON", help="With this reason.")
@LIMIT
@AS_OF
@JSON
def list_quarantine(
    pipeline: str | None,
    uri: str | None,
    stage: str | None,
    reason: str | None,
    limit: int,
    as_of: str | None,
    as_json: bool,
) -> None:
    """List rows in quarantine, newest first, and how many there are per reason."""
    from visionlake._terminal import make_console, print_rows

    with open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        from visionlake.jobs import _quarantine

        found = _quarantine.list_rows(lake, stage=stage, reason=reason, limit=limit)
        counts = [] if as_json or stage or reason else _quarantine.counts(lake)
    if counts:
        print_rows(make_console(), counts, empty="")
        make_console().print()
    columns = ("stage", "reason", "input_key", "message")
    lines = [{name: row[name] for name in columns} for row in found]
    _show(found, lines, as_json=as_json, empty="Nothing in quarantine.")


@quarantine.command("show")
@click.argument("names", nargs=-1, required=True, metavar="[PIPELINE] INPUT_KEY")
@LAKE
@AS_OF
@JSON
def show_quarantine(names: Sequence[str], uri: str | None, as_of: str | None, as_json: bool) -> None:
    """Show everything in quarantine for one input, by its key as `list` shows it."""
    pipeline, key = one_and_name(names, uri)
    with open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        from visionlake.jobs import _quarantine

        found = _quarantine.show(lake, key)
    _show_records(found, as_json=as_json, empty="Nothing in quarantine for that key.")


@quarantine.command()
@PIPELINE
@LAKE
@click.option("--stage", metavar="NAME", help="Rows of this stage.")
@click.option("--reason", metavar="REASON", help="Rows with this reason.")
@click.option("--key", "input_key", metavar="INPUT_KEY", help="Rows of this input.")
@click.option("--all", "everything", is_flag=True, help="All rows.")
def replay(
    pipeline: str | None,
    uri: str | None,
    stage: str | None,
    reason: str | None,
    input_key: str | None,
    everything: bool,
) -> None:
    """Make the inputs of quarantined rows due again, with today's settings and files."""
    if everything == any((stage, reason, input_key)):
        raise click.UsageError("say which rows: --stage, --reason or --key, or else --all")
    with open_lake(pipeline, uri) as (lake, _):
        from visionlake.jobs import _quarantine

        count = _quarantine.replay(lake, stage=stage, reason=reason, input_key=input_key)
    click.echo(f"Marked {count:,} rows; the next run tries them again." if count else "No such rows in quarantine.")


@click.group()
def waves() -> None:
    """See waves, and decide about those that a gate stopped."""


@waves.command("list")
@PIPELINE
@LAKE
@LIMIT
@AS_OF
@JSON
def list_waves(pipeline: str | None, uri: str | None, limit: int, as_of: str | None, as_json: bool) -> None:
    """List waves, newest first; those stopped or staged wait."""
    with open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        from visionlake.jobs import _waves

        found = _waves.list_waves(lake, limit=limit)
    _show(found, [_wave_line(row) for row in found], as_json=as_json, empty="No waves yet.")


@waves.command("show")
@click.argument("names", nargs=-1, required=True, metavar="[PIPELINE] WAVE")
@LAKE
@AS_OF
@JSON
def show_wave(names: Sequence[str], uri: str | None, as_of: str | None, as_json: bool) -> None:
    """Show all that is recorded of one wave."""
    pipeline, wave = one_and_name(names, uri)
    with open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        from visionlake.jobs import _waves

        found = dict(_waves.show_wave(lake, wave))
    _show_records([found], as_json=as_json, empty="")


def _decision(command: Callable[..., None]) -> click.Command:
    """What `release` and `drop` share."""
    why = click.option("--why", required=True, metavar="TEXT", help="The reason, which is recorded.")
    who = click.option("--who", metavar="NAME", help="Who decides; by default you, by your user name.")
    pipeline = click.argument("pipeline", type=click.Path(dir_okay=False))
    return waves.command()(pipeline(click.argument("wave")(why(who(command)))))


@_decision
def release(pipeline: str, wave: str, why: str, who: str | None) -> None:
    """Publish a stopped wave despite its gate."""
    with open_lake(pipeline, None) as (lake, loaded):
        from visionlake.jobs import _waves

        assert loaded is not None
        _waves.release(lake, wave, who=who or _user(), why=why, pipeline=loaded)
    click.echo(f"Wave {wave} is published.")


@_decision
def drop(pipeline: str, wave: str, why: str, who: str | None) -> None:
    """Send a stopped wave to quarantine and go on."""
    with open_lake(pipeline, None) as (lake, loaded):
        from visionlake.jobs import _waves

        assert loaded is not None
        _waves.drop(lake, wave, who=who or _user(), why=why, pipeline=loaded)
    click.echo(f"Wave {wave} is dropped; its rows are in quarantine.")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        return f"uid {os.getuid()}"


def _run_line(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "run": row["run_id"],
        "stage": row["stage"],
        "status": row["status"],
        "started": _time(row["started_at"]),
        "in": row["rows_in"],
        "published": row["rows_published"],
        "bad": row["rows_quarantined"],
        "not passed": ", ".join(row["checks_not_passed"] or ()),
    }


def _wave_line(row: Mapping[str, Any]) -> dict[str, Any]:
    failed = [check["name"] for check in row["checks"] or () if check["status"] not in ("passed", "skipped")]
    return {
        "wave": row["wave_id"],
        "status": row["status"],
        "started": _time(row["started_at"]),
        "in": row["rows_in"],
        "published": row["rows_published"],
        "bad": row["rows_quarantined"],
        "not passed": ", ".join(failed),
    }


def _table_line(lake: Lake, name: str) -> dict[str, Any]:
    from visionlake.expectations import declaration, declared_names
    from visionlake.expectations._table import View

    declared = declaration(name) if name in declared_names() else None
    comment = declared.comment if declared else ""
    if isinstance(declared, View):
        return {"table": name, "rows": None, "version": None, "what": f"(view) {comment}"}
    return {"table": name, "rows": lake.table(name).count(), "version": lake.version(name), "what": comment}


def _time(value: object) -> str:
    """In UTC, as --as-of takes it: Spark gives times in the zone of this machine."""
    if not isinstance(value, datetime):
        return str(value)[:19]
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")


def _show(found: Any, lines: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    from visionlake._terminal import make_console, print_json, print_rows

    if as_json:
        print_json(found)
    else:
        print_rows(make_console(), lines, empty=empty, ids=_IDS, wide=_WIDE)


def _show_records(found: Sequence[Mapping[str, Any]], *, as_json: bool, empty: str) -> None:
    from visionlake._terminal import make_console, print_json, print_record

    console = make_console()
    if as_json:
        print_json(found)
    elif not found:
        console.print(empty)
    else:
        for place, record in enumerate(found):
            if place:
                console.print()
            print_record(console, record)
