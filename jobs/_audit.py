"""The audit of a staged wave: row rules split good rows from bad, and the gate's checks judge what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visionlake.expectations import quarantine
from visionlake.expectations._checks import CheckResult, with_offending_keys
from visionlake.expectations._gate import judge_profile, judge_rows, load_expectations
from visionlake.expectations._table import Check, Column, Metric, Rule, Severity, Table

from ._feed import DELETED, MICROSECONDS, joined_key
from ._record import Wave
from ._stage import Stage, StageConfig

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame

REASON = "_reason"


@dataclass(frozen=True, kw_only=True)
class Output:
    """Good rows for one table, and how many they are."""

    table: Table
    rows: DataFrame
    count: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the audit found: rows to publish, rows to quarantine, and how the checks went."""

    outputs: tuple[Output, ...]
    bad: DataFrame
    published: int
    quarantined: int
    reasons: Mapping[str, int]
    checks: tuple[CheckResult, ...]

    @property
    def is_stopped(self) -> bool:
        """Whether a check forbids publishing."""
        return any(check.stops for check in self.checks)


def audit(stage: Stage, config: StageConfig, wave: Wave, *, staged: DataFrame, parents: DataFrame) -> Audit:
    """Split and judge a staged wave. Reads materialised rows only."""
    readable = _readable(stage, staged)
    split = [_split(table, readable, wave) for table in _tables_with_manifest(stage, staged)]
    errors = _errors(stage, staged)
    counts = _counts(stage, staged, split)
    outputs = tuple(_without_duplicates(stage, part, counts) for part in split)
    bad = _bad_rows(stage, wave, errors=errors, split=split, outputs=outputs, counts=counts)
    reasons = {name[7:]: int(n) for name, n in counts.items() if name.startswith("reason:") and n}
    reasons |= {row["reason"]: row["n"] for row in _error_reasons(errors)} if counts["errors"] else {}
    quarantined = sum(reasons.values())
    published = max(output.count for output in outputs)
    checks = _judge(stage, config, wave, outputs=outputs, parents=parents, counts=counts, reasons=reasons)
    return Audit(
        outputs=outputs, bad=bad, published=published, quarantined=quarantined, reasons=reasons, checks=tuple(checks)
    )


def builtin_checks(config: StageConfig) -> tuple[Check, ...]:
    """The checks that every stage has."""
    share = f"{config.max_error_share:.0%}" if config.max_error_share >= 0.01 else f"{config.max_error_share:.2%}"
    return (
        Check(
            name="error_share",
            metric="error_share",
            maximum=config.max_error_share,
            share=True,
            expected=f"at most {share} of rows in quarantine",
        ),
        Check(
            name="failed_parents_share",
            metric="failed_parents_share",
            maximum=config.max_error_share,
            share=True,
            expected=f"at most {share} of inputs without a good row",
        ),
        Check(
            name="parents_accounted",
            metric="parents_without_rows",
            maximum=0,
            expected="every input yields at least one row, good or in quarantine",
        ),
        Check(name="duplicate_keys", metric="duplicate_keys", maximum=0, severity="warn", expected="keys are unique"),
        Check(
            name="row_rules", metric="rows_breaking_rules", maximum=0, severity="warn", expected="rows keep the rules"
        ),
    )


def all_checks(stage: Stage, config: StageConfig) -> tuple[Check, ...]:
    """Built-in checks, the tables' and the stage's own."""
    return (*builtin_checks(config), *(c for table in stage.outputs for c in table.checks), *stage.checks)


def _readable(stage: Stage, staged: DataFrame) -> DataFrame:
    """Rows of parents that were read to the end: of the others nothing is published, and their children stay."""
    from pyspark.sql import functions as F

    if not stage.unreadable or "error" not in staged.columns:
        return staged
    keys = list(stage.key_of_parent)
    away = staged.where(F.col("error.reason").isin(*stage.unreadable)).select(*keys).distinct()
    return staged.join(F.broadcast(away), keys, "left_anti")


@dataclass(frozen=True, kw_only=True)
class _Split:
    table: Table
    rows: DataFrame


def _tables_with_manifest(stage: Stage, staged: DataFrame) -> list[Table]:
    """The stage's tables, an open one with the columns that its struct has gained from manifests."""
    tables = []
    for table in stage.outputs:
        if table.is_open and len(stage.outputs) > 1:
            names = staged.select(f"{table.name}.*").columns
            extra = [n for n in names if n not in table.column_names]
            table = table.with_columns(Column(name=n, type="string", comment="from the manifest") for n in extra)
        tables.append(table)
    return tables


def _split(table: Table, staged: DataFrame, wave: Wave) -> _Split:
    """The table's rows with `_reason`: the first rule that a row breaks, null for a good row."""
    from pyspark.sql import functions as F

    single = table.name not in staged.columns
    rows = staged if single else staged.where(F.col(table.name).isNotNull())
    if single:
        rows = rows.where(F.col("error.reason").isNull()) if "error" in staged.columns else rows
        rows = rows.select(*(_cast(staged, c) for c in table.columns), _input_key(wave, staged))
    else:
        rows = rows.select(F.col(f"{table.name}.*"), _input_key(wave, staged))
    filled = {
        "input_version": F.lit(wave.progress.version).cast("bigint"),
        "run_id": F.lit(wave.run_id),
    }
    volatile = {c.name for c in table.columns if c.volatile}
    rows = rows.withColumns({name: value for name, value in filled.items() if name in volatile})
    broken = [_broken(rule) for rule in (*_key_rules(table), *table.rules)]
    reason = F.coalesce(*broken) if broken else F.lit(None).cast("string")
    return _Split(table=table, rows=rows.withColumn(REASON, reason))


def _cast(staged: DataFrame, column: Column) -> SparkColumn:
    from pyspark.sql import functions as F

    found = F.col(column.name) if column.name in staged.columns else F.lit(None)
    return found.cast(column.type).alias(column.name)


def _input_key(wave: Wave, staged: DataFrame) -> SparkColumn:
    return joined_key(wave.parent_key).alias("_input_key")


def _key_rules(table: Table) -> list[Rule]:
    holds = " AND ".join(f"`{name}` IS NOT NULL" for name in table.key)
    return [Rule(name="key_missing", holds=holds, message=f"{', '.join(table.key)} not null")]


def _broken(rule: Rule) -> SparkColumn:
    from pyspark.sql import functions as F

    return F.when(~F.coalesce(F.expr(rule.holds), F.lit(False)), F.lit(rule.name))


def _errors(stage: Stage, staged: DataFrame) -> DataFrame | None:
    from pyspark.sql import functions as F

    return staged.where(F.col("error.reason").isNotNull()) if "error" in staged.columns else None


def _error_reasons(errors: DataFrame | None) -> list[Any]:
    from pyspark.sql import functions as F

    return (
        []
        if errors is None
        else errors.groupBy(F.col("error.reason").alias("reason")).agg(F.count("*").alias("n")).collect()
    )


def _counts(stage: Stage, staged: DataFrame, split: Sequence[_Split]) -> dict[str, Metric]:
    """How many rows there are, how many break which rule, how many keys and parents differ: one pass per table."""
    from pyspark.sql import functions as F

    has_error = F.col("error.reason").isNotNull() if "error" in staged.columns else F.lit(False)
    overall = staged.agg(
        F.count("*").alias("rows"),
        F.count_if(has_error).alias("errors"),
        F.count_distinct(F.struct(*stage.key_of_parent)).alias("parents"),
    )
    counts: dict[str, Metric] = {}
    for part in split:
        names = [rule.name for rule in (*_key_rules(part.table), *part.table.rules)]
        good = F.col(REASON).isNull()
        row = part.rows.agg(
            F.count_if(good).alias("good"),
            F.count_distinct(F.when(good, F.struct(*part.table.key))).alias("keys"),
            F.count_distinct(F.when(good, F.col("_input_key"))).alias("good_parents"),
            *(F.count_if(F.col(REASON) == name).alias(f"reason:{name}") for name in names),
        )
        overall = overall.join(row.select(F.struct("*").alias(part.table.name)), how="cross")
    found = overall.collect()[0].asDict(recursive=True)
    for part in split:
        row = found.pop(part.table.name)
        counts |= {f"good:{part.table.name}": row.pop("good"), f"keys:{part.table.name}": row.pop("keys")}
        counts["good_parents"] = max(counts.get("good_parents") or 0, row.pop("good_parents"))
        for name, count in row.items():
            counts[name] = (counts.get(name) or 0) + count
    return counts | found


def _without_duplicates(stage: Stage, part: _Split, counts: dict[str, Metric]) -> Output:
    """Good rows with unique keys. Equal facts of the same content are no error where the table is only added to."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    good = part.rows.where(F.col(REASON).isNull()).drop(REASON, "_input_key")
    name = part.table.name
    surplus = int(counts[f"good:{name}"] or 0) - int(counts[f"keys:{name}"] or 0)
    if surplus:
        order = Window.partitionBy(*part.table.key).orderBy(F.xxhash64(*part.table.compared_columns))
        good = good.withColumn("_place", F.row_number().over(order)).where("_place = 1").drop("_place")
        counts[f"good:{name}"] = counts[f"keys:{name}"]
        if not stage.keeps_children:
            counts["reason:duplicate_key"] = (counts.get("reason:duplicate_key") or 0) + surplus
    count = int(counts[f"good:{name}"] or 0)
    return Output(table=part.table, rows=good.select(*part.table.column_names), count=count)


def _bad_rows(
    stage: Stage,
    wave: Wave,
    *,
    errors: DataFrame | None,
    split: Sequence[_Split],
    outputs: Sequence[Output],
    counts: Mapping[str, Metric],
) -> DataFrame:
    """Everything that goes to quarantine, in its columns, one row per key of that table."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    parts = [] if errors is None else [_error_rows(stage, errors)]
    for part in split:
        messages = {r.name: f"allowed: {r.message}" for r in (*_key_rules(part.table), *part.table.rules)}
        bad = part.rows.where(F.col(REASON).isNotNull())
        if counts.get("reason:duplicate_key") and not stage.keeps_children:
            order = Window.partitionBy(*part.table.key).orderBy(F.xxhash64(*part.table.compared_columns))
            again = part.rows.where(F.col(REASON).isNull()).withColumn("_place", F.row_number().over(order))
            again = again.where("_place > 1").drop("_place").withColumn(REASON, F.lit("duplicate_key"))
            bad, messages = bad.unionByName(again), messages | {"duplicate_key": "allowed: one row per key"}
        parts.append(_rule_rows(part.table, bad, messages))
    rows = parts[0]
    for part in parts[1:]:
        rows = rows.unionByName(part)
    rows = rows.withColumns(
        {
            "stage": F.lit(wave.stage),
            "producer": F.lit(wave.producer),
            "run_id": F.lit(wave.run_id),
            "wave_id": F.lit(wave.wave_id),
            "at": F.current_timestamp(),
            "replay_requested_at": F.lit(None).cast("timestamp"),
        }
    )
    return rows.select(*quarantine.TABLE.column_names).dropDuplicates(list(quarantine.TABLE.key))


def _error_rows(stage: Stage, errors: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    key = stage.outputs[0].key
    known = len(stage.outputs) == 1 and all(name in errors.columns for name in key)
    # As much of the key as is known: two streams with the same error are two rows.
    parts = [F.coalesce(F.col(name).cast("string"), F.lit("?")) for name in key] if known else []
    further = [name for name in key if name not in stage.key_of_parent] if known else []
    has_more = F.coalesce(*(F.col(name).cast("string") for name in further)).isNotNull() if further else F.lit(known)
    return errors.select(
        joined_key(stage.key_of_parent).alias("input_key"),
        (F.when(has_more, F.concat_ws("/", *parts)) if known else F.lit(None).cast("string")).alias("output_key"),
        F.col("error.reason").alias("reason"),
        F.col("error.message").alias("message"),
        F.col("error.payload").alias("payload"),
    )


def _rule_rows(table: Table, bad: DataFrame, messages: Mapping[str, str]) -> DataFrame:
    from pyspark.sql import functions as F

    shown = [c.name for c in table.columns if c.type != "binary" and not c.volatile]
    message = F.coalesce(*(F.when(F.col(REASON) == name, F.lit(text)) for name, text in messages.items()))
    return bad.select(
        F.col("_input_key").alias("input_key"),
        joined_key(table.key).alias("output_key"),
        F.col(REASON).alias("reason"),
        message.alias("message"),
        F.to_json(F.struct(*shown), {"timestampFormat": MICROSECONDS}).alias("payload"),
    )


def _judge(
    stage: Stage,
    config: StageConfig,
    wave: Wave,
    *,
    outputs: Sequence[Output],
    parents: DataFrame,
    counts: Mapping[str, Metric],
    reasons: Mapping[str, int],
) -> list[CheckResult]:
    checks = all_checks(stage, config)
    rows = int(counts["rows"] or 0)
    rule_names = {r.name for o in outputs for r in o.table.rules} | {"key_missing"}
    seen = int(counts["parents"] or 0)
    numbers: dict[str, Metric] = {
        "failed_parents_share": (seen - int(counts["good_parents"] or 0)) / seen if seen else None,
        "error_share": sum(reasons.values()) / rows if rows else None,
        "parents_without_rows": wave.rows_in - wave.rows_deleted - int(counts["parents"] or 0),
        "duplicate_keys": reasons.get("duplicate_key", 0),
        "rows_breaking_rules": sum(n for name, n in reasons.items() if name in rule_names),
    }
    good = sum(output.count for output in outputs)
    if good:
        if stage.measure:
            numbers |= stage.measure(outputs[0].rows, parents.where(f"NOT {DELETED}"), config).collect()[0].asDict()
        numbers |= _aggregates(outputs, stage.checks, known=numbers)
    profile = {**({} if good else {c.metric: None for c in checks}), **numbers}
    results: list[CheckResult] = []
    builtin = builtin_checks(config)
    by_parent = [check for check in builtin if check.name == "failed_parents_share"]
    by_row = [check for check in builtin if check not in by_parent]
    for group, count in ((by_parent, seen), (by_row, rows), (checks[len(builtin) :], good)):
        names = {check.name for check in group}
        levels: dict[str, Severity] = {name: level for name, level in config.severity.items() if name in names}
        results += judge_profile(profile, group, rows=count, min_rows=config.min_rows, severity=levels)
    for output in outputs:
        own = (*output.table.checks, *(stage.checks if output is outputs[0] else ()))
        results = with_offending_keys(results, own, output.rows, key=output.table.key)
    mine = [*config.expectations, *(load_expectations(config.expectations_file) if config.expectations_file else ())]
    return [*results, *(judge_rows(outputs[0].rows, mine, key=outputs[0].table.key) if mine else ())]


def _aggregates(outputs: Sequence[Output], extra: Sequence[Check], *, known: Mapping[str, Metric]) -> dict[str, Metric]:
    from pyspark.sql import functions as F

    numbers: dict[str, Metric] = {}
    for place, output in enumerate(outputs):
        checks = [c for c in (*output.table.checks, *(extra if place == 0 else ())) if c.metric not in known]
        if checks:
            row = output.rows.agg(*(F.expr(c.metric).alias(c.name) for c in checks)).collect()[0]
            numbers |= row.asDict()
    return {name: float(v) if v is not None else None for name, v in numbers.items()}
