"""`visionlake report --as-of`: the page about the lake as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionlake.errors import UsageError

from ._lake_options import open_lake
from ._text import clean

_TARGET = Path("past-report.html")


def write_past_report(pipeline: str, *, as_of: str, out: Path | None, overrides: Sequence[str]) -> Path:
    """Write the page about an earlier time into a file; returns which. Raises UsageError where that cannot be."""
    target = out or _TARGET
    if not target.absolute().parent.is_dir():
        raise UsageError(f"--out {clean(target)}: there is no folder {clean(target.absolute().parent)}")
    with open_lake(pipeline, None, as_of=as_of, overrides=overrides) as (lake, loaded):
        from visionlake.jobs import report
        from visionlake.jobs._pipeline import labellers, with_model_ids

        assert loaded is not None
        own = (config for observer, config in loaded.observers if observer.name == report.STAGE.name)
        config = with_model_ids(report.STAGE, next(own, report.Config()), loaded)
        assert isinstance(config, report.Config)
        page = report.page(lake, config, labellers(loaded), state="")  # no later run takes it for its own
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{clean(target)} cannot be written: {error.strerror}") from None
    return target
