"""Commands that look into a lake, or decide about what waits in it."""

from __future__ import annotations

import getpass
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionlake.errors import UsageError

if TYPE_CHECKING:
    from visionlake.jobs._config import Pipeline
    from visionlake.jobs._lake import Lake

_LAKE = click.option("--lake", "uri", metavar="LAKE", help="A folder, URI or catalog.schema, instead of PIPELINE.")
_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
_PIPELINE = click.argument("pipeline", required=False, type=click.Path(dir_okay=False))
_LIMIT = click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
_AS_OF = click.option(
    "--as-of",
    metavar="WHEN",
    help="The lake as it was: at a time (2026-11-22T03:00, UTC unless it names a zone; a date is its first moment), as "
    "a run left it (its id), or at versions (frames=12,detections=7; other tables as they are).",
)
_FILES_GONE = ("FILE_NOT_EXIST", "FILE_NOT_FOUND")  # in the names that Spark and Delta give such errors
_SHARE = click.FloatRange(min=0, max=1, min_open=True)
_IDS = ("run", "wave", "stage", "status", "table")  # columns that stay whole
_WIDE = ("started", "not passed")  # columns for wide terminals


@click.command()
@_PIPELINE
@_LAKE
@_LIMIT
@_AS_OF
@_JSON
def runs(pipeline: str | None, uri: str | None, limit: int, as_of: str | None, as_json: bool) -> None:
    """List what ran, newest first."""
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        found = []
        if lake.exists("runs"):
            rows = lake.table("runs").orderBy("started_at", ascending=False).limit(limit).collect()
            found = [row.asDict(recursive=True) for row in rows]
    _show(found, [_run_line(row) for row in found], as_json=as_json, empty="No runs yet.")


@click.command()
@_PIPELINE
@_LAKE
@click.option("--describe", is_flag=True, help="Show columns with units, rules and checks; needs no lake.")
@click.option("--table", "chosen", multiple=True, metavar="NAME", help="Only this table (may be repeated).")
@_AS_OF
@_JSON
def tables(
    pipeline: str | None, uri: str | None, describe: bool, chosen: tuple[str, ...], as_of: str | None, as_json: bool
) -> None:
    """List the tables of a lake, or describe all that are declared."""
    if describe and as_of:
        raise click.UsageError("--describe tells of what this version declares, and goes without --as-of")
    if describe:
        from visionlake._describe import print_declarations

        print_declarations(_load(pipeline) if pipeline else None, only=chosen, as_json=as_json)
        return
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
        own = {table.name for stage, _ in (loaded.stages if loaded else ()) for table in stage.outputs}
        names = list(dict.fromkeys([*lake.names(), *(name for name in sorted(own) if lake.exists(name))]))
        found = [_table_line(lake, name) for name in names if not chosen or name in chosen]
    _show(found, found, as_json=as_json, empty="No tables yet.")


@click.group()
def quarantine() -> None:
    """See what was bad, and try it again."""


@quarantine.command("list")
@_PIPELINE
@_LAKE
@click.option("--stage", metavar="NAME", help="Of this stage.")
@click.option("--reason", metavar="REASON", help="With this reason.")
@_LIMIT
@_AS_OF
@_JSON
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

    with _open_lake(pipeline, uri, as_of=as_of) as (lake, _):
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
@_LAKE
@_AS_OF
@_JSON
def show_quarantine(names: Sequence[str], uri: str | None, as_of: str | None, as_json: bool) -> None:
    """Show everything in quarantine for one input, by its key as `list` shows it."""
    pipeline, key = _one_and_name(names, uri)
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        from visionlake.jobs import _quarantine

        found = _quarantine.show(lake, key)
    _show_records(found, as_json=as_json, empty="Nothing in quarantine for that key.")


@quarantine.command()
@_PIPELINE
@_LAKE
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
    with _open_lake(pipeline, uri) as (lake, _):
        from visionlake.jobs import _quarantine

        count = _quarantine.replay(lake, stage=stage, reason=reason, input_key=input_key)
    click.echo(f"Marked {count:,} rows; the next run tries them again." if count else "No such rows in quarantine.")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[PIPELINE] MEDIA")
@_LAKE
@click.option("--pts", type=int, metavar="N", help="The frame with this pts; by default the one with most objects.")
@click.option("--stream", type=click.IntRange(min=0), default=0, show_default=True, help="Of this stream.")
@click.option(
    "--model",
    metavar="ID",
    help="Labels of this model (its id, or how that begins); by default of those in the pipeline.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file, .png or .jpg; MEDIA_PTS.png by default."
)
@_AS_OF
def show(
    names: Sequence[str],
    uri: str | None,
    pts: int | None,
    stream: int,
    model: str | None,
    out: Path | None,
    as_of: str | None,
) -> None:
    """Write a frame as a picture, with the boxes that models found. MEDIA is a path, a file's name or a media_id."""
    pipeline, media = _one_and_name(names, uri)
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
        from visionlake._show import write_picture
        from visionlake._text import clean
        from visionlake.jobs._pipeline import labellers

        models = labellers(loaded) if loaded else []
        target, drawn = write_picture(lake, media, stream=stream, pts=pts, model=model, models=models, out=out)
    for words, count in drawn or ():
        click.echo(f"{count:>4}  {clean(words)}")
    nothing = "no model has looked at this frame yet" if drawn is None else "no objects are on it"
    click.echo(f"{clean(target)} is written." if drawn else f"{clean(target)} is written; {nothing}.")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[PIPELINE] MEDIA [PTS] [MODEL]")
@_LAKE
@click.option("--pts", type=int, metavar="N", help="The same as PTS; by default the frame with most objects.")
@click.option(
    "--at",
    "at_s",
    type=float,
    metavar="S",
    help="Instead of PTS: the frame with the nearest pts_s.",
)
@click.option("--stream", type=click.IntRange(min=0), default=0, show_default=True, help="Of this stream.")
@click.option("--model", metavar="NAME", help="The same as MODEL: a section's name, or how an id begins; else all.")
@_AS_OF
@_JSON
def explain(
    names: Sequence[str],
    uri: str | None,
    pts: int | None,
    at_s: float | None,
    stream: int,
    model: str | None,
    as_of: str | None,
    as_json: bool,
) -> None:
    """Tell where labels came from: file, frame, model, waves with their gates, versions.

    MEDIA is a path, a file's name or a media_id.
    """
    pipeline, (media, *more) = (None if uri else names[0]), (names if uri else names[1:]) or [""]
    if not media or len(more) > 2 or (more and pts is not None) or (more[1:] and model is not None):
        raise click.UsageError("give PIPELINE or --lake, a media, and, if you like, once a pts and once a model")
    if more:
        pts = _integer(more[0])
    if pts is not None and at_s is not None:
        raise click.UsageError("give a pts or --at, not both")
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
        from visionlake._explain import print_explanation
        from visionlake.jobs._explain import explain
        from visionlake.jobs._pipeline import labellers_by_section

        sections = _by_name(labellers_by_section(loaded)) if loaded else {}
        model = more[1] if more[1:] else model
        found = explain(lake, media, stream=stream, pts=pts, at_s=at_s, model=model, sections=sections)
    print_explanation(found, as_json=as_json)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise click.UsageError(f"PTS {text!r} is no whole number") from None


def _by_name(sections: Mapping[str, str]) -> dict[str, str]:
    """Models by the whole name of their section, and by its last part where that is but one's."""
    short: dict[str, list[str]] = {}
    for label, model in sections.items():
        short.setdefault(label.rpartition(".")[2], []).append(model)
    return {**{name: models[0] for name, models in short.items() if len(models) == 1}, **sections}


@click.command("diff-labels")
@click.argument("names", nargs=-1, required=True, metavar="[PIPELINE] A B")
@_LAKE
@click.option("--iou", type=_SHARE, default=0.5, show_default=True, help="Boxes that overlap as much go together.")
@click.option("--moved", type=_SHARE, default=0.9, show_default=True, help="Those that overlap less have moved.")
@click.option("--worst", type=click.IntRange(min=0), default=20, show_default=True, help="Name so many frames.")
@_AS_OF
@_JSON
def diff_labels(
    names: Sequence[str], uri: str | None, iou: float, moved: float, worst: int, as_of: str | None, as_json: bool
) -> None:
    """Show how far two models agree, per class. A and B are sections of the pipeline, or model ids."""
    pipeline, compared = _one_and_names(names, uri, count=2)
    if iou > moved:
        raise click.UsageError(f"--iou {iou:g} is above --moved {moved:g}; allowed is one that is not")
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
        from visionlake.jobs import _diff_labels

        stages = loaded.stages if loaded else ()
        models = [_diff_labels.find_model(lake, name, stages) for name in compared]
        found = _diff_labels.diff_labels(lake, *models, iou=iou, moved=moved, worst=worst)
    from visionlake._diff_labels import print_diff
    from visionlake._terminal import make_console, print_json

    if as_json:
        print_json(found.as_dict())
    else:
        source = shlex.quote(pipeline) if pipeline else f"--lake {shlex.quote(uri or '')}"
        print_diff(make_console(), found, source=source + (f" --as-of {shlex.quote(as_of)}" if as_of else ""))


@click.group()
def waves() -> None:
    """See waves, and decide about those that a gate stopped."""


@waves.command("list")
@_PIPELINE
@_LAKE
@_LIMIT
@_AS_OF
@_JSON
def list_waves(pipeline: str | None, uri: str | None, limit: int, as_of: str | None, as_json: bool) -> None:
    """List waves, newest first; those stopped or staged wait."""
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, _):
        from visionlake.jobs import _waves

        found = _waves.list_waves(lake, limit=limit)
    _show(found, [_wave_line(row) for row in found], as_json=as_json, empty="No waves yet.")


@waves.command("show")
@click.argument("names", nargs=-1, required=True, metavar="[PIPELINE] WAVE")
@_LAKE
@_AS_OF
@_JSON
def show_wave(names: Sequence[str], uri: str | None, as_of: str | None, as_json: bool) -> None:
    """Show all that is recorded of one wave."""
    pipeline, wave = _one_and_name(names, uri)
    with _open_lake(pipeline, uri, as_of=as_of) as (lake, _):
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
    with _open_lake(pipeline, None) as (lake, loaded):
        from visionlake.jobs import _waves

        assert loaded is not None
        _waves.release(lake, wave, who=who or _user(), why=why, pipeline=loaded)
    click.echo(f"Wave {wave} is published.")


@_decision
def drop(pipeline: str, wave: str, why: str, who: str | None) -> None:
    """Send a stopped wave to quarantine and go on."""
    with _open_lake(pipeline, None) as (lake, loaded):
        from visionlake.jobs import _waves

        assert loaded is not None
        _waves.drop(lake, wave, who=who or _user(), why=why, pipeline=loaded)
    click.echo(f"Wave {wave} is dropped; its rows are in quarantine.")


@contextmanager
def _open_lake(
    pipeline: str | None, uri: str | None, *, as_of: str | None = None
) -> Iterator[tuple[Lake, Pipeline | None]]:
    if (pipeline is None) == (uri is None):
        raise click.UsageError("give PIPELINE or --lake")
    from visionlake._spark import command_session
    from visionlake.jobs._as_of import parse_as_of
    from visionlake.jobs._config import resolve_lake

    if as_of is not None:
        parse_as_of(as_of)  # before Spark starts

    loaded = _load(pipeline) if pipeline is not None else None
    place = loaded.lake if loaded else resolve_lake(str(uri), folder=Path.cwd())
    if "://" not in place and os.path.isabs(place) and not os.path.isdir(place):
        raise click.UsageError(f"there is no lake at {place} yet")
    with command_session(loaded.spark if loaded else {}) as spark:
        from visionlake.jobs._lake import Lake

        try:
            yield Lake(place, spark=spark, as_of=as_of), loaded
        except Exception as error:
            if as_of is None or not any(words in str(error) for words in _FILES_GONE):
                raise
            raise UsageError(
                f"as of {as_of!r}: files of that time are gone, removed by VACUUM; choose a later time or version"
            ) from error


def _load(pipeline: str) -> Pipeline:
    from visionlake.jobs._config import load_pipeline

    return load_pipeline(pipeline)


def _one_and_name(names: Sequence[str], uri: str | None) -> tuple[str | None, str]:
    pipeline, (name,) = _one_and_names(names, uri, count=1)
    return pipeline, name


def _one_and_names(names: Sequence[str], uri: str | None, *, count: int) -> tuple[str | None, Sequence[str]]:
    if len(names) != (count if uri else count + 1):
        raise click.UsageError(f"give PIPELINE or --lake, and {'one name' if count == 1 else f'{count} names'}")
    return (None if uri else names[0]), names[-count:]


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
