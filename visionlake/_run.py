"""`visionlake run`, from the pipeline file to the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionlake.jobs._config import Pipeline, load_pipeline
from visionlake.jobs._pipeline import check_gates, pin

from ._terminal import make_console


def run_pipeline(
    path: str,
    *,
    only: Sequence[str] | None = None,
    first: str | None = None,
    last: str | None = None,
    limit: int | None = None,
    rebuild: bool = False,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    verbose: bool = False,
) -> int:
    """Run or plan a pipeline in a session of its own; returns the exit code."""
    pipeline = pin(load_pipeline(path, overrides=overrides), only=only, first=first, last=last)
    # What is wrong with names, checks and expectations is told before Spark starts.
    check_gates(pipeline.choose(only=only, first=first, last=last))
    from ._reporter import TerminalReporter
    from ._spark import command_session
    from ._summary import print_plan, print_result

    options: dict[str, Any] = {"only": only, "first": first, "last": last, "limit": limit, "rebuild": rebuild}
    with command_session(pipeline.spark, verbose=verbose) as spark:
        from visionlake.jobs import _pipeline

        if dry_run:
            print_plan(make_console(), _pipeline.plan(pipeline, spark=spark, **options), pipeline)
            return 0
        with TerminalReporter(make_console(stderr=True), nouns=nouns(pipeline), verbose=verbose) as reporter:
            result = _pipeline.run(pipeline, spark=spark, reporter=reporter, **options)
        print_result(make_console(), result, pipeline=path)
        return result.exit_code


def nouns(pipeline: Pipeline) -> dict[str, tuple[str, str]]:
    """What the inputs (in the units of waves) and the rows of each stage are called."""
    units = {"media_id": "media"}
    return {
        stage.label: (units.get(stage.unit, "inputs") if stage.inputs else "files", stage.outputs[0].name)
        for stage, _ in pipeline.stages
    }
