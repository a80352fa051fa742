"""What commands that look into a lake share: options, and opening the lake that they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from visionlake.errors import UsageError

if TYPE_CHECKING:
    from visionlake.jobs._config import Pipeline
    from visionlake.jobs._lake import Lake

LAKE = click.option("--lake", "uri", metavar="LAKE", help="A folder, URI or catalog.schema, instead of PIPELINE.")
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
PIPELINE = click.argument("pipeline", required=False, type=click.Path(dir_okay=False))
LIMIT = click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
AS_OF = click.option(
    "--as-of",
    metavar="WHEN",
    help="The lake as it was: at a time (2026-11-22T03:00, UTC unless it names a zone; a date is its first moment), as "
    "a run left it (its id), or at versions (frames=12,detections=7; other tables as they are).",
)
_FILES_GONE = ("FILE_NOT_EXIST", "FILE_NOT_FOUND")  # in the names that Spark and Delta give such errors


@contextmanager
def open_lake(
    pipeline: str | None, uri: str | None, *, as_of: str | None = None, overrides: Sequence[str] = ()
) -> Iterator[tuple[Lake, Pipeline | None]]:
    """The lake of a pipeline file, or at `uri`, as it was if that is asked, and the pipeline."""
    if (pipeline is None) == (uri is None):
        raise click.UsageError("give PIPELINE or --lake")
    from visionlake._spark import command_session
    from visionlake.jobs._as_of import parse_as_of
    from visionlake.jobs._config import load_pipeline, resolve_lake

    if as_of is not None:
        parse_as_of(as_of)  # before Spark starts
    loaded = load_pipeline(pipeline, overrides=overrides) if pipeline is not None else None
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


def one_and_name(names: Sequence[str], uri: str | None) -> tuple[str | None, str]:
    """The pipeline file, unless the lake was given, and the one name after it."""
    pipeline, (name,) = one_and_names(names, uri, count=1)
    return pipeline, name


def one_and_names(names: Sequence[str], uri: str | None, *, count: int) -> tuple[str | None, Sequence[str]]:
    """The same with several names."""
    if len(names) != (count if uri else count + 1):
        raise click.UsageError(f"give PIPELINE or --lake, and {'one name' if count == 1 else f'{count} names'}")
    return (None if uri else names[0]), names[-count:]
