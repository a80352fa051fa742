"""Runs a pipeline: its stages in order, each on what is new; what depends on a stopped stage waits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from visionlake.errors import ConfigError, UsageError, VisionlakeError, summarise
from visionlake.expectations._checks import check_names, validate_severity
from visionlake.expectations._gate import load_expectations, validate_expectations
from visionlake.udfs.uris import display

from ._config import Pipeline
from ._cut import per_unit
from ._due import find_due
from ._feed import DELETED, Due, find_replays
from ._histories import Histories
from ._judge import all_checks
from ._lake import Lake
from ._outputs import written_by
from ._places import places_of
from ._record import History, Progress, producer_of, resolved, settings_digest
from ._results import Reporter, RunResult, StagePlan, StageResult, media_in
from ._runner import StageRun
from ._sections import sections_of, with_producers
from ._select import model_ids, pin_predicates, with_label_names
from ._stage import Discovery, Observer, Settings, Stage, StageConfig
from ._staging import staged_waves
from ._tracking import make_tracker
from ._workers import start_early

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(
    pipeline: Pipeline,
    *,
    spark: SparkSession,
    only: Sequence[str] | None = None,
    first: str | None = None,
    last: str | None = None,
    limit: int | None = None,
    rebuild: bool = False,
    reporter: Reporter | None = None,
) -> RunResult:
    """Run the chosen stages. Raises UsageError before any work where settings changed and `rebuild` is not given."""
    reporter = reporter or Reporter()
    pipeline = pin(pipeline, only=only, first=first, last=last)
    chosen = pipeline.choose(only=only, first=first, last=last)
    check_gates(chosen)
    lake = Lake(pipeline.lake, spark=spark, folder=pipeline.folder)
    lake.check_place()
    if any(stage.discover for stage, _ in chosen):  # files are looked at in every run
        start_early(spark)
    _check_tables(lake, chosen)
    chosen = pin_predicates(pipeline.stages, chosen, lake)
    histories = Histories(lake)
    rebuilt = _stages_to_rebuild(lake, chosen, histories, rebuild=rebuild, named=only or ())
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    tracker = make_tracker(pipeline.tracking, lake_uri=lake.uri, note=reporter.note)
    results: list[StageResult] = []
    try:
        for stage, config in chosen:
            blocker = _blocker(stage, chosen, results, after=pipeline.after.get(stage.label, ()))
            if blocker:
                result = StageResult(stage=stage.label, status="skipped", error=f"waits for {blocker}")
            else:
                modules = stage.imports(config) if stage.imports else ()
                if modules and _is_fed(stage, chosen, results):
                    start_early(spark, modules)
                job = StageRun(
                    stage=stage, config=config, lake=lake, run_id=run_id, reporter=reporter, tracker=tracker,
                    limit=limit, rebuild=stage.label in rebuilt, histories=histories,
                )  # fmt: skip
                result = _guarded(job)
            results.append(result)
            reporter.stage_finished(result)
        for observer, settings in pipeline.choose_observers(only=only, first=first, last=last):
            results.append(_observe(observer, settings, lake, pipeline, reporter))
            reporter.stage_finished(results[-1])
    finally:
        tracker.close()
    return RunResult(run_id=run_id, lake=lake.uri, stages=tuple(results), places=_places(lake, results))


def plan(
    pipeline: Pipeline,
    *,
    spark: SparkSession,
    only: Sequence[str] | None = None,
    first: str | None = None,
    last: str | None = None,
    limit: int | None = None,
    rebuild: bool = False,
) -> list[StagePlan]:
    """What each stage would do now. Later stages see only what the earlier ones have published already."""
    lake = Lake(pipeline.lake, spark=spark, folder=pipeline.folder)
    pipeline = pin(pipeline, only=only, first=first, last=last)
    chosen = pipeline.choose(only=only, first=first, last=last)
    check_gates(chosen)
    chosen = pin_predicates(pipeline.stages, chosen, lake)
    histories = Histories(lake)
    rebuilt = _stages_to_rebuild(lake, chosen, histories, rebuild=rebuild, named=only or ())
    return [
        _plan_stage(lake, stage, config, histories, limit=limit, rebuild=stage.label in rebuilt)
        for stage, config in chosen
    ]


def pin(
    pipeline: Pipeline, *, only: Sequence[str] | None = None, first: str | None = None, last: str | None = None
) -> Pipeline:
    """The pipeline with what the chosen stages name loosely, a model by its alias, replaced by what that is now.

    A pipeline that is pinned stays as it is. Raises ConfigError.
    """
    chosen = {label for s, _ in pipeline.choose(only=only, first=first, last=last) for label in sections_of(s)}
    stages: list[tuple[Stage, StageConfig]] = []
    for stage, config in pipeline.stages:
        if stage.label in chosen:
            try:
                config = with_producers(stage, stage.pin(config) if stage.pin else config, stages)
                config = with_label_names(stage, config, pipeline.stages)
            except ConfigError as error:
                raise ConfigError(f"[{stage.label}] {error}") from error
        stages.append((stage, config))
    return replace(pipeline, stages=tuple(stages))


def check_gates(chosen: Sequence[tuple[Stage, StageConfig]]) -> None:
    """Refuse severities for checks that a stage does not have, expectations and models that there are not."""
    for stage, config in chosen:
        try:
            producer_of(stage, config)
            validate_severity(config.severity, check_names(all_checks(stage, config)))
            validate_expectations(config.expectations)
            if config.expectations_file:
                validate_expectations(load_expectations(config.expectations_file))
        except ConfigError as error:
            raise ConfigError(f"[{stage.label}] {error}") from error


def _check_tables(lake: Lake, chosen: Sequence[tuple[Stage, StageConfig]]) -> None:
    """Compare all tables that there are with their declarations, before any work."""
    for table in {table.name: table for stage, _ in chosen for table in written_by(stage)}.values():
        if lake.exists(table.name):
            lake.ensure(table)


def _guarded(job: StageRun) -> StageResult:
    """Run a stage; what fails becomes its result, so that independent stages still run."""
    try:
        return job.execute()
    except VisionlakeError as error:
        return _failed(job, str(error), exit_code=error.exit_code)
    except Exception as error:
        job.reporter.failed(job.stage.label, error)
        message = summarise(error)
        # A worker that a model has killed cannot say which model it was.
        is_told = not job.stage.producer or job.producer in message
        return _failed(job, message if is_told else f"{job.producer}: {message}")


def labellers(pipeline: Pipeline) -> list[str]:
    """The producers of labels that a pipeline has; those whose model cannot be found are left out."""
    return [*labellers_by_section(pipeline).values()]


def labellers_by_section(pipeline: Pipeline) -> dict[str, str]:
    """The same by the names of their sections, `<stage>.<name>`."""
    found: dict[str, str] = {}
    for stage, config in pipeline.stages:
        with suppress(ConfigError):
            if stage.producer:
                found[stage.label] = stage.producer(with_producers(stage, config, pipeline.stages))
    return found


def _observe(observer: Observer, settings: Settings, lake: Lake, pipeline: Pipeline, reporter: Reporter) -> StageResult:
    """Let an observer look; what fails becomes its result."""
    started = time.monotonic()
    reporter.note(f"{observer.name}: looking at the tables")
    result = StageResult(stage=observer.name, status="done")
    try:
        settings = with_model_ids(observer, settings, pipeline)
        seen = observer.observe(lake, settings, labellers(pipeline))
    except VisionlakeError as error:
        return replace(result, status="failed", error=str(error), exit_code=error.exit_code)
    except Exception as error:
        reporter.failed(observer.name, error)
        return replace(result, status="failed", error=summarise(error))
    status = "done" if seen.is_new else "nothing_new"
    return replace(result, status=status, wrote=seen.uri, seconds=time.monotonic() - started)


def with_model_ids(observer: Observer, settings: Settings, pipeline: Pipeline) -> Settings:
    """The settings with sections of models replaced by their model ids, where they are named."""
    named = {key: getattr(settings, key) or () for key in observer.names_models}
    ids: dict[str, str] = {}
    for name in {name for names in named.values() for name in names}:
        with suppress(ConfigError):  # a model whose files are away: whoever looks says what is missing
            ids |= model_ids(pipeline.stages, {name})
    return settings.model_copy(update={k: tuple(ids.get(n, n) for n in names) for k, names in named.items() if names})


def _places(lake: Lake, results: Sequence[StageResult]) -> dict[str, str]:
    """Where the media lie that failed checks name as examples: a person knows files by their names."""
    shown = {m for r in results for c in r.checks if c.failed for key in c.keys for m in media_in(key)}
    with suppress(Exception):  # a lake that breaks has failed its stage, and a run's result must be told all the same
        return {media: display(uri) for media, uri in places_of(lake, sorted(shown)).items()}
    return {}


def _failed(job: StageRun, message: str, *, exit_code: int = 1) -> StageResult:
    """The result of a stage that failed, which `waves` records too, if the lake can still be written."""
    with suppress(Exception):
        job.record_failure(message)
    return replace(job.result, status="failed", error=message, exit_code=exit_code)


def _blocker(
    stage: Stage,
    chosen: Sequence[tuple[Stage, StageConfig]],
    results: Sequence[StageResult],
    *,
    after: Collection[str] = (),
) -> str | None:
    """The stage that this one waits for: one in `after`, its source, or the maker of what it reads, that broke."""
    broken = {r.stage for r in results if r.status in ("stopped", "failed", "skipped")}
    reads = {i.table.name for i in stage.inputs}
    for other, _ in chosen:
        writes = {table.name for table in other.outputs}
        is_read = other.label in stage.sources.values() if stage.gather else bool(reads & writes)
        if other.label in broken and (is_read or other.label in after):
            return other.label
    return None


def _is_fed(stage: Stage, chosen: Sequence[tuple[Stage, StageConfig]], results: Sequence[StageResult]) -> bool:
    """Whether this run has published rows of what the stage works on: then there will be something to do."""
    parent = stage.inputs[0].table.name
    makers = {other.label for other, _ in chosen if parent in {table.name for table in other.outputs}}
    return any(result.stage in makers and result.published for result in results)


def _stages_to_rebuild(
    lake: Lake,
    chosen: Sequence[tuple[Stage, StageConfig]],
    histories: Histories,
    *,
    rebuild: bool,
    named: Sequence[str],
) -> set[str]:
    """Stages whose settings changed since they published, and those named. UsageError for those without `rebuild`."""
    changed: dict[str, str] = {}
    anew: set[str] = set()
    for stage, config in chosen:
        if stage.producer:
            continue
        producer, digest = producer_of(stage, config), settings_digest(config)
        history = histories.at_begin(stage.name, producer)
        if history.settings_digest in (None, digest):
            continue
        if stage.is_whole:
            anew.add(stage.label)
            continue
        # A wave that is staged under today's settings: the rebuild was asked for already.
        begun = any(
            w.producer == producer and w.settings_digest == digest for w in staged_waves(lake, stage=stage.name)
        )
        if not begun:
            changed[stage.label] = _differences(history, config)
    if changed and not rebuild:
        raise UsageError(
            "settings changed since these tables were made: "
            + "; ".join(f"{name}: {what}" for name, what in changed.items())
            + ". To make the tables what a fresh run would give (every input is processed again, rows that no longer "
            "come out are deleted, equal rows stay untouched), run again with --rebuild; or set the old values back."
        )
    same = {stage.label for stage, _ in chosen if stage.name in named}
    return {*changed, *named, *same, *anew} if rebuild else anew


def _differences(history: History, config: StageConfig) -> str:
    new, old = resolved(config), dict(history.config)
    return ", ".join(f"{k} {old.get(k)!r} -> {new[k]!r}" for k in new if old.get(k) != new[k]) or "defaults"


def _plan_stage(
    lake: Lake, stage: Stage, config: StageConfig, histories: Histories, *, limit: int | None, rebuild: bool
) -> StagePlan:
    from pyspark.sql import functions as F

    producer = producer_of(stage, config)
    history = histories.at_begin(stage.name, producer)
    waiting = sum(wave.producer == producer for wave in staged_waves(lake, stage=stage.name))
    marked = find_replays(stage, config, lake, history, producer=producer)
    replays = marked.parents.count() if marked else 0
    due = _due(lake, stage, config, history, rebuild=rebuild)
    if due is None:
        return StagePlan(stage=stage.label, parents=0, estimated_rows=0, replays=replays, staged_waves=waiting)
    units = per_unit(due.parents, stage, config).where("parents > deleted")
    units = units.orderBy("unit").limit(limit) if limit else units
    found = units.agg(F.sum(F.expr("parents - deleted")).alias("parents"), F.sum("weight").alias("rows")).collect()[0]
    due.release()
    return StagePlan(
        stage=stage.label,
        parents=found["parents"] or 0,
        estimated_rows=int(found["rows"] or 0) if stage.weight else None,
        replays=replays,
        staged_waves=waiting,
    )


def _due(lake: Lake, stage: Stage, config: StageConfig, history: History, *, rebuild: bool) -> Due | None:
    from pyspark.sql import functions as F

    if not stage.discover:
        return find_due(stage, config, lake, history, producer=producer_of(stage, config), rebuild=rebuild)
    now = datetime.now(UTC)
    discovery = Discovery(
        spark=lake.spark, lake=lake, config=config, now=now, run_id="plan", is_rebuild=rebuild,
        seen=history.lookups if history.progress else None,
    )  # fmt: skip
    parents = stage.discover(discovery).withColumn(DELETED, F.lit(False))
    return Due(parents=parents, mode="discovered", progress=Progress(table="files"))
