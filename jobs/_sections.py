"""Settings that name other sections of a pipeline file: which stages are meant, and who their producers are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from visionlake.errors import ConfigError

from ._stage import GatherConfig, Stage, StageConfig
from ._stages import one_of

if TYPE_CHECKING:
    from ._lake import Lake


def find_sources(stage: Stage, config: GatherConfig, stages: Sequence[Stage]) -> dict[str, str]:
    """The section that each of the sources means which a stage gathers: a whole label, or the last part of one.

    Sections are those of stages with a producer that write what this one reads, and gather nothing themselves. Names
    with an @ are producers already. Raises ConfigError for a name that means no section, or several.
    """
    makers = [other for other in stages if other.producer and stage.inputs[0].table in other.outputs]
    plain = [maker for maker in makers if not maker.gather]
    found: dict[str, str] = {}
    for name in config.sources:
        if "@" in name:
            continue
        meant = [maker.label for maker in plain if name in (maker.label, maker.instance)]
        if not meant and name in {each for maker in makers for each in (maker.label, maker.instance)}:
            raise ConfigError(f"{name!r} is made of other sources; name those")
        if not meant:
            raise ConfigError(f"there is no section {name!r}; {one_of(name, _short_names(plain))}")
        if len(meant) > 1:
            raise ConfigError(f"{name!r} may mean {' or '.join(meant)}; give one of these")
        found[name] = meant[0]
    return found


def with_producers(stage: Stage, config: StageConfig, others: Iterable[tuple[Stage, StageConfig]]) -> StageConfig:
    """The settings, with producers in place of the sections that they name. Raises ConfigError where one is unknown."""
    if not isinstance(config, GatherConfig) or not stage.sources:
        return config
    settings = {other.label: (other, each) for other, each in others}
    meant = {name: _producer(*settings[label]) for name, label in stage.sources.items()}
    return config.model_copy(update={"sources": tuple(meant.get(name, name) for name in config.sources)})


def sections_of(stage: Stage) -> set[str]:
    """The sections whose settings say who the producer of a stage is."""
    return {stage.label, *stage.sources.values()}


def why_nothing(stage: Stage, config: StageConfig, lake: Lake) -> str:
    """Why there is nothing to gather: sources of which there is no row, or that have looked at different frames."""
    assert isinstance(config, GatherConfig)
    table = stage.inputs[0].table.name
    known = {row["model_id"] for row in lake.table(table).select("model_id").distinct().collect()}
    if silent := [source for source in config.sources if source not in known]:
        return f"there is no row of {' or '.join(silent)} in {table} yet"
    return f"its sources have nothing in {table} in common yet"


def seen_with_sources(seen: Mapping[str, int], configs: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    """How far producers have seen, with those that gather: they know what all of their sources do.

    `configs` are the settings of each producer, as `waves` has them.
    """
    found = dict(seen)
    for producer, config in configs.items():
        sources = config.get("sources")
        if producer not in seen and isinstance(sources, list) and sources and {*map(str, sources)} <= {*seen}:
            found[producer] = min(seen[source] for source in sources)
    return found


def _producer(stage: Stage, config: StageConfig) -> str:
    assert stage.producer is not None
    try:
        return stage.producer(config)
    except ConfigError as error:
        raise ConfigError(f"needs [{stage.label}]: {error}") from error


def _short_names(makers: Sequence[Stage]) -> list[str]:
    """Names of sections, without their stage where that leaves no doubt."""
    instances = [maker.instance for maker in makers]
    return [maker.instance if maker.instance and instances.count(maker.instance) == 1 else maker.label
            for maker in makers]  # fmt: skip
