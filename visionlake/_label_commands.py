"""Commands about labels: see them, tell where they came from, compare them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from visionlake._lake_options import AS_OF, JSON, LAKE, one_and_name, one_and_names, open_lake

_SHARE = click.FloatRange(min=0, max=1, min_open=True)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="[PIPELINE] MEDIA")
@LAKE
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
@AS_OF
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
    pipeline, media = one_and_name(names, uri)
    with open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
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
@LAKE
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
@AS_OF
@JSON
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
    with open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
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
@LAKE
@click.option("--iou", type=_SHARE, default=0.5, show_default=True, help="Boxes that overlap as much go together.")
@click.option("--moved", type=_SHARE, default=0.9, show_default=True, help="Those that overlap less have moved.")
@click.option("--worst", type=click.IntRange(min=0), default=20, show_default=True, help="Name so many frames.")
@AS_OF
@JSON
def diff_labels(
    names: Sequence[str], uri: str | None, iou: float, moved: float, worst: int, as_of: str | None, as_json: bool
) -> None:
    """Show how far two models agree, per class. A and B are sections of the pipeline, or model ids."""
    pipeline, compared = one_and_names(names, uri, count=2)
    if iou > moved:
        raise click.UsageError(f"--iou {iou:g} is above --moved {moved:g}; allowed is one that is not")
    with open_lake(pipeline, uri, as_of=as_of) as (lake, loaded):
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
