"""Stages that tell of tables as a whole, an evaluation or an export: when they are due, and of what versions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from ._stage import StageConfig, WholeConfig

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from ._lake import Lake
    from ._stage import Discovery, Stage


def find_due_whole(column: str, *, reads: Collection[str], stage: str) -> Callable[[Discovery], DataFrame]:
    """A stage's `discover`: its own section as `column`, one row, where a table that it reads has changed since."""

    def discover(discovery: Discovery) -> DataFrame:
        name, lake = discovery.config.name, discovery.lake
        is_due = (
            discovery.is_rebuild
            or discovery.seen is None
            or _differ(versions_to_read(lake, reads, discovery.config), discovery.seen)
            or is_asked_again(lake, stage=stage, key=name)
        )
        return discovery.spark.createDataFrame([(name,)] if is_due else [], f"`{column}` string")

    return discover


def is_asked_again(lake: Lake, *, stage: str, key: str) -> bool:
    """Whether somebody wants bad rows of a parent tried again."""
    from pyspark.sql import functions as F

    if not lake.exists("quarantine"):
        return False
    mine = (F.col("stage") == stage) & (F.col("input_key") == key) & F.col("replay_requested_at").isNotNull()
    return not lake.table("quarantine").where(mine).isEmpty()


def changed_since(lake: Lake, stage: Stage, config: StageConfig, seen: Mapping[str, int]) -> bool:
    """Whether a table that a stage reads, but for its own, is not at the version that was seen."""
    inputs = versions_to_read(lake, [each.table.name for each in stage.inputs], config)
    return _differ(read_by(stage, inputs), seen)


def read_by(stage: Stage, versions: Mapping[str, int]) -> dict[str, int]:
    """The versions of what a stage tells of: not those of its own table, where it looks at what it said before."""
    own = {table.name for table in stage.outputs}
    return {name: version for name, version in versions.items() if name not in own}


def versions_to_read(lake: Lake, names: Collection[str], config: StageConfig) -> dict[str, int]:
    """The version of each of the tables that there are: the newest, or that which the settings name."""
    asked = config.versions if isinstance(config, WholeConfig) else {}
    return {name: asked.get(name, lake.version(name)) for name in names if lake.exists(name)}


def as_map(versions: Mapping[str, int]) -> Column:
    """The versions as a column, `map<string, bigint>`, its keys in order."""
    from pyspark.sql import functions as F

    pairs = [F.lit(item) for name in sorted(versions) for item in (name, versions[name])]
    return F.create_map(*pairs).cast("map<string, bigint>")


def _differ(now: Mapping[str, int], seen: Mapping[str, int]) -> bool:
    return any(seen.get(name) != version for name, version in now.items())
