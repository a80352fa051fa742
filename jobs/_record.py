"""The rows of `waves`: a producer's progress and the record of what happened, read and written here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visionlake import __version__
from visionlake.expectations import waves

from ._config import resolved
from ._lake import Lake
from ._schemas import to_spark
from ._stage import Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import Column, Row

COMPARED_WAVES = 20
DONE = ("published", "released", "dropped")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a producer got with one input: everything up to `last_key` of `version` (all of it once complete)."""

    table: str
    table_id: str | None = None
    from_version: int | None = None
    version: int | None = None
    last_key: str | None = None
    is_complete: bool = True


@dataclass(frozen=True, kw_only=True)
class Wave:
    """A wave's header: who makes it, from what, under which settings. Staged as JSON beside its rows."""

    wave_id: str
    run_id: str
    stage: str
    producer: str
    sequence: int
    started_at: str
    mode: str
    progress: Progress
    config: Mapping[str, Any]
    settings_digest: str
    parent_key: Sequence[str]
    units: Sequence[str] = ()
    rows_in: int = 0
    rows_deleted: int = 0
    code_version: str = __version__
    lookups: Mapping[str, int] = field(default_factory=dict)
    model: Mapping[str, Any] | None = None

    def as_json(self) -> str:
        """The header as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Wave:
        """The header back from its JSON text."""
        values = json.loads(text)
        return cls(**{**values, "progress": Progress(**values["progress"])})

    def inputs(self) -> list[dict[str, Any]]:
        """The wave's inputs as the rows of `waves` hold them: the parent with its progress, then the lookups."""
        return [asdict(self.progress), *(asdict(Progress(table=t, version=v)) for t, v in self.lookups.items())]


@dataclass(frozen=True, kw_only=True)
class History:
    """What `waves` knows of one producer: how far it got, under which settings, and the status of waves.

    `outputs` has the tables that it wrote, at the versions it wrote them. `statuses` has the waves that are not done,
    those of this run, and those that were asked for.
    """

    progress: Progress | None = None
    mode: str | None = None
    settings_digest: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    lookups: Mapping[str, int] = field(default_factory=dict)
    outputs: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 0

    def after(self, wave: Wave, *, status: str) -> History:
        """The history once this wave has its row."""
        seen = replace(
            self, statuses={**self.statuses, wave.wave_id: status}, sequence=max(self.sequence, wave.sequence)
        )
        if status not in DONE:
            return seen
        return replace(
            seen,
            progress=wave.progress,
            mode=wave.mode,
            settings_digest=wave.settings_digest,
            config=wave.config,
            lookups=wave.lookups,
        )


def settings_digest(config: StageConfig) -> str:
    """Digest of the settings that can change a row; those left at their default do not count, so new ones are free."""
    fields = type(config).model_fields
    values = resolved(config)
    defaults = {n: json.loads(json.dumps(f.default, default=str)) for n, f in fields.items()}
    counted = {
        name: values[name]
        for name, field_info in fields.items()
        if dict(field_info.json_schema_extra or {}).get("affects_output", True)  # pyright: ignore[reportCallIssue, reportArgumentType] -- always a dict here
        and values[name] != defaults[name]
    }
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def producer_of(stage: Stage, config: StageConfig) -> str:
    """Who progress is kept for. Stages whose key holds no version are one producer whatever their settings."""
    return stage.producer(config) if stage.producer else stage.label


def read_history(lake: Lake, *, stage: str, producer: str, staged: Collection[str] = ()) -> History:
    """What `waves` says of a producer. Of published waves only those in `staged` have their status in it."""
    from pyspark.sql import functions as F

    where = (F.col("stage") == stage) & (F.col("producer") == producer)
    return read_histories(lake, where=where, staged=staged).get((stage, producer), History())


def read_histories(
    lake: Lake, *, where: Column | None = None, staged: Collection[str] = ()
) -> dict[tuple[str, str], History]:
    """The same of every stage and producer at once. However many waves there were, few rows reach the driver."""
    if not lake.exists("waves"):
        return {}
    from pyspark.sql import functions as F

    is_done, sequence = F.col("status").isin(*DONE), F.col("sequence")
    is_told = ~is_done | F.col("wave_id").isin(*staged) if staged else ~is_done
    rows = lake.table("waves") if where is None else lake.table("waves").where(where)
    found = rows.groupBy("stage", "producer").agg(
        F.max(sequence).alias("sequence"),
        F.max_by(F.struct("inputs", "mode", "settings_digest", "config"), F.when(is_done, sequence)).alias("last"),
        F.max_by("outputs", F.when(is_done & (F.size("outputs") > 0), sequence)).alias("outputs"),
        F.collect_list(F.when(is_told, F.struct("wave_id", "status"))).alias("told"),
    )
    return {(row["stage"], row["producer"]): _history(row) for row in found.collect()}


def _history(row: Row) -> History:
    statuses = {told["wave_id"]: told["status"] for told in row["told"]}
    last = row["last"]
    if last is None:
        return History(statuses=statuses, sequence=row["sequence"])
    return History(
        progress=Progress(**last["inputs"][0].asDict()),
        mode=last["mode"],
        lookups={i["table"]: i["version"] for i in last["inputs"][1:]},
        settings_digest=last["settings_digest"],
        config=json.loads(last["config"]),
        outputs={output["table"]: output["version"] for output in row["outputs"] or ()},
        statuses=statuses,
        sequence=row["sequence"],
    )


def read_observed(lake: Lake, wave: Wave, checks: Sequence[str]) -> dict[str, float]:
    """What these checks saw in the producer's latest published waves before this one, on average."""
    if not lake.exists("waves"):
        return {}
    from pyspark.sql import functions as F

    is_done = F.col("status").isin("published", "released") & (F.col("sequence") < wave.sequence)
    rows = lake.table("waves").where((F.col("stage") == wave.stage) & (F.col("producer") == wave.producer) & is_done)
    rows = rows.where("rows_published > 0").orderBy(F.desc("sequence")).limit(COMPARED_WAVES)
    seen = rows.select(F.explode("checks").alias("check")).where(F.col("check.name").isin(*checks))
    means = seen.groupBy("check.name").agg(F.avg("check.value").alias("mean")).where("mean IS NOT NULL")
    return {row["name"]: row["mean"] for row in means.collect()}


def write_row(lake: Lake, wave: Wave, *, known: bool, **values: Any) -> dict[str, Any]:
    """Write the wave's row: the last step of publishing. `known` says that an earlier attempt left a row to replace.

    `values` are those of more columns; without them the wave has published nothing.
    """
    record = {
        "wave_id": wave.wave_id,
        "run_id": wave.run_id,
        "stage": wave.stage,
        "producer": wave.producer,
        "sequence": wave.sequence,
        "started_at": datetime.fromisoformat(wave.started_at),
        "finished_at": datetime.now(UTC),
        "config": json.dumps(wave.config, sort_keys=True),
        "settings_digest": wave.settings_digest,
        "code_version": wave.code_version,
        "mode": wave.mode,
        "inputs": wave.inputs(),
        "rows_in": wave.rows_in,
        "model": None if wave.model is None else dict(wave.model),
        "outputs": [],
        "rows_published": 0,
        "rows_quarantined": 0,
        "checks": [],
        **values,
    }
    lake.ensure(waves.TABLE)
    sayable = {name: _sayable(value) for name, value in record.items()}
    frame = to_spark(lake.spark, [sayable], waves.TABLE.arrow_schema())
    if known:
        from pyspark.sql import functions as F

        lake.merge("waves", frame.withColumn("_op", F.lit("update")), on="t.wave_id = s.wave_id")
    else:
        lake.append("waves", frame, transaction=f"visionlake/waves/{wave.wave_id}/{record['status']}")
    return record


def _sayable(value: Any) -> Any:
    """A value whose text a table takes: what came from a command line or a file's name may be no Unicode."""
    if isinstance(value, dict):
        return {_sayable(name): _sayable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_sayable(each) for each in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
