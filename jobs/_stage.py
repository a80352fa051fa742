"""What a stage is: data plus one pure function. The runner does everything else, the same for every stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from visionlake.errors import UsageError
from visionlake.expectations._table import Check, Metric, Table

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import DataFrame, SparkSession

    from ._lake import Lake


Named = Literal["models", "annotations", "any"]
"""Whose labels a setting may name."""


def setting(default: Any = ..., *, affects_output: bool = True, is_path: bool = False, **constraints: Any) -> Any:
    """A field of a stage's configuration, with pydantic's constraints (`gt`, `le`, `description`, ...).

    `affects_output=False` marks settings that cannot change a row of the output (sizes of waves, limits of time): to
    change them makes nothing due again. `is_path=True` marks text, or a list of it, that names files: what is relative
    is taken from the folder of the pipeline file; globs keep their meaning and URIs pass as they are.
    """
    marks: dict[str, Any] = {"affects_output": affects_output, "is_path": is_path}
    return Field(default, json_schema_extra=marks, **constraints)


class Settings(BaseModel):
    """A section of a pipeline file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _lists_as_tuples(cls, value: Any, info: ValidationInfo) -> Any:
        """TOML and JSON know lists only, and a strict tuple refuses them."""
        return tuple(value) if isinstance(value, list) and cls.takes_list(info.field_name or "") else value

    @classmethod
    def takes_list(cls, name: str) -> bool:
        """Whether a setting is a list of values."""
        annotation = cls.model_fields[name].annotation
        return any(get_origin(kind) is tuple for kind in (annotation, *get_args(annotation)))


class StageConfig(Settings):
    """Settings that every stage has. A stage adds its own by inheriting."""

    max_wave_rows: int = setting(20_000, affects_output=False, gt=0, description="rows per wave, as estimated")
    max_wave_mib: int = setting(2_048, affects_output=False, gt=0, description="MiB of rows per wave, as estimated")
    max_wave_parents: int = setting(5_000, affects_output=False, gt=0, description="inputs (files, media) per wave")
    max_error_share: float = setting(
        0.2, affects_output=False, ge=0, le=1, description="share of rows that may be bad before the gate stops"
    )
    min_rows: int = setting(20, affects_output=False, ge=1, description="below this, checks on shares only warn")
    severity: dict[str, Literal["stop", "warn"]] = setting(
        {}, affects_output=False, description="check name -> severity, over the declared one"
    )
    expectations: tuple[dict[str, Any], ...] = setting(
        (), affects_output=False, description="Great Expectations expectations on the wave's good rows"
    )
    expectations_file: str | None = setting(
        None, affects_output=False, is_path=True, description="Python file with EXPECTATIONS, a list of expectations"
    )


class GatherConfig(StageConfig):
    """Settings of a stage that gathers what several producers wrote. In a pinned pipeline `sources` are producers."""

    sources: tuple[str, ...] = setting(
        affects_output=False, min_length=1, description="sections of this file, or whole model_ids of the lake"
    )


class WholeConfig(StageConfig):
    """Settings of a stage that tells of tables as a whole."""

    name: str = setting("", affects_output=False, description="the section's own name; not to be set")
    versions: dict[str, int] = setting({}, description="Delta versions of tables to read; unset: the newest")


@dataclass(frozen=True, kw_only=True)
class Input:
    """A table that a stage reads. The first input of a stage is its parent: its rows become due.

    `depends_on` names the parent's columns whose change makes a row due again; None means any column. `refuses` names
    settings of the stage that makes the table, and values of them that leave out what this one needs. `where(config)`
    is SQL for the parent's rows that are looked at at all; None means every row.
    """

    table: Table
    depends_on: tuple[str, ...] | None = None
    refuses: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    where: Callable[[Any], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of the pipeline.

    `transform(inputs, config)` gets the input tables by name, the parent holding just the rows of this wave, and
    returns the output's columns plus, where it can fail per row, an `error` struct (`expectations._table.ERROR_TYPE`):
    a row whose error is not null goes to quarantine. Every row bears the parent's key columns. A stage with several
    outputs returns one nullable struct column per table instead, named like the table, and may return `output_key`,
    text that tells its bad rows apart.

    `unit` is the parent's column that waves are cut along. `weight(config)` is a SQL expression that estimates how many
    rows a parent yields, and `row_bytes(config)` how many bytes one of them has. `measure(rows, parents, config)`
    returns one row of more numbers for the gate's checks; beside a number `x` it may tell `x_keys`, an array of some
    offending keys.
    `checks_for(config)` are checks that depend on the settings. `figures(rows)` are numbers about the good rows, by
    name, that the end of a run shows and MLflow keeps.
    `discover` replaces the change feed for a stage whose parents are not a table (files); `parent_key` then names their
    key. `producer(config)` names who labels, for tables whose key holds it in a column `model_id`.
    `gather(rows, config)` makes each parent of several rows of the first input, leaving out those that lack some;
    `parent_key` then names their key. Such a stage adds rows of its own to the table that it reads, for which its
    input's `where` does not hold, and says itself which `input_version` a row saw. Its settings are a `GatherConfig`;
    the sections that they name as sources stand in `sources`, by name, once a pipeline file is read.
    `pin(config)` gives the settings for one run: what they name loosely, as by an alias, is replaced by what it means.
    `about(config)` tells the facts of who labels, as the column `model` of `waves` has them; it is asked once a run.
    `records` are outputs that only note what was read: their rows do not count as published, nor in `error_share`.
    `keeps_children` is for outputs that are only added to: rows that no longer come out stay. `unreadable` lists the
    error reasons that say nothing about the content (a file that is away): children of such a parent stay as they are.
    `names_labels` has settings, of one name or of a list, that name where labels come from, and what they may name:
    "models" (sections, or whole model ids), "annotations" (sections that import them), or "any". They reach `transform`
    as model ids and as the names of sources. An unset list means all that the pipeline has: people, fusions, models.
    `narrow` names a setting that holds a SQL predicate, for stages whose parents are frames: only frames for
    which it holds become due, and what is done stays done (see `_due`).
    `is_named` is for stages that a pipeline may have several times, as `[<stage>.<instance>]`, each its own producer.
    `is_whole` is for stages whose rows tell of tables as a whole (an evaluation, an export): where those tables or the
    settings have changed, all is made anew, without `--rebuild`, also what is staged and not published yet. Parents of
    such a stage have a column `pins` more: the version of each of its inputs that the wave reads.
    `redoes_staged` is for stages with a single parent, which they discover: what is staged and not published is made
    anew where that, or a table that was read, is not what it was. It holds for `is_whole` as well.
    `deliver(rows, config)` does outside the lake what publishing makes valid (it completes an export): it gets the good
    rows of each output by name, after they are published and before the wave counts as done, maybe more than once, and
    says where that lies.
    `outdates` are further tables of labels: rows there that are older than a change of their parent go, too.
    `imports(config)` names large modules that the stage's Python workers want, so that workers are started early.
    `tally` is SQL for an array of words for each row, of which the end of a run shows the most frequent ones.
    """

    name: str
    summary: str
    config: type[StageConfig]
    outputs: tuple[Table, ...]
    transform: Callable[[Mapping[str, DataFrame], Any], DataFrame]
    inputs: tuple[Input, ...] = ()
    unit: str = "media_id"
    weight: Callable[[Any], str] | None = None
    row_bytes: Callable[[Any], str] | None = None
    measure: Callable[[DataFrame, DataFrame, Any], DataFrame] | None = None
    checks: tuple[Check, ...] = ()
    checks_for: Callable[[Any], tuple[Check, ...]] | None = None
    figures: Callable[[DataFrame], Mapping[str, Metric]] | None = None
    discover: Callable[[Discovery], DataFrame] | None = None
    parent_key: tuple[str, ...] = ()
    producer: Callable[[Any], str] | None = None
    gather: Callable[[DataFrame, Any], DataFrame] | None = None
    pin: Callable[[Any], StageConfig] | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    about: Callable[[Any], Mapping[str, Any]] | None = None
    records: tuple[Table, ...] = ()
    keeps_children: bool = False
    unreadable: frozenset[str] = frozenset()
    narrow: str | None = None
    names_labels: Mapping[str, Named] = field(default_factory=dict)
    is_named: bool = False
    is_whole: bool = False
    redoes_staged: bool = False
    deliver: Callable[[Mapping[str, DataFrame], Any], str | None] | None = None
    outdates: tuple[Table, ...] = ()
    imports: Callable[[Any], Sequence[str]] | None = None
    tally: str | None = None
    instance: str | None = None

    @property
    def label(self) -> str:
        """The stage's section in a pipeline file: its name, and which one of several it is."""
        return self.name if self.instance is None else f"{self.name}.{self.instance}"

    @property
    def key_of_parent(self) -> tuple[str, ...]:
        """The columns that identify a parent."""
        return self.parent_key or self.inputs[0].table.key


@dataclass(frozen=True, kw_only=True)
class Observer:
    """A stage that only reads. Observers end every run, also one in which a stage failed or was stopped.

    `observe(lake, config, models)` writes what it has to show and says where; `models` are the producers of labels that
    the pipeline has now. What it writes is a function of the tables, the models, the settings and the code: it is left
    alone where none of them changed. `names_models` lists settings that hold names of models; they reach `observe` as
    model ids.
    """

    name: str
    summary: str
    config: type[Settings]
    observe: Callable[[Lake, Any, Sequence[str]], Observed]
    names_models: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The section in a pipeline file."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Where an observer's work lies, and whether this run has written it."""

    uri: str
    is_new: bool


class Tables(dict[str, "DataFrame"]):
    """The inputs of a transform by name. What the lake does not have yet is a mistake of whoever runs the stage."""

    def __missing__(self, name: str) -> DataFrame:
        raise UsageError(f"the lake has no table {name} yet; run the stages that make it first, or the whole pipeline")


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What a stage gets that finds its own parents. `seen` are the versions of its inputs that its last wave read."""

    spark: SparkSession
    lake: Lake
    config: Any
    now: datetime
    run_id: str
    is_rebuild: bool = False
    seen: Mapping[str, int] | None = None
