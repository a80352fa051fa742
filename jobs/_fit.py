"""Whether the sections of a pipeline file fit each other, and which of them others name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from visionlake.errors import ConfigError
from visionlake.expectations import splits

from ._label_names import find_label_section
from ._predicate import named_models, sections_named
from ._sections import find_sources
from ._stage import GatherConfig, Input, Observer, Settings, Stage, StageConfig
from ._stages import one_of, sections_by_name

Complaint = Callable[[str, object, str], None]
"""Told of what is wrong in the file: the key, its value, and what is allowed."""


def with_sources(stage: Stage, configs: Mapping[str, StageConfig], stages: Sequence[Stage], wrong: Complaint) -> Stage:
    """The stage with what its settings mean where they name other sections."""
    config = configs.get(stage.label)
    if not isinstance(config, GatherConfig):
        return stage
    try:
        return replace(stage, sources=find_sources(stage, config, stages))
    except ConfigError as error:
        wrong(f"{stage.label}.sources", config.sources, str(error))
        return stage


def check_fit(stages: Sequence[Stage], configs: Mapping[str, StageConfig], wrong: Complaint) -> None:
    """Settings of a stage that leave out what another stage reads are wrong."""
    for reader in stages:
        for needed in reader.inputs:
            for maker in stages:
                is_read = maker.label in reader.sources.values() if reader.gather else needed.table in maker.outputs
                if is_read and maker.label in configs:
                    _check_needs(needed, reader, maker, configs[maker.label], wrong)


def _check_needs(needed: Input, reader: Stage, maker: Stage, config: StageConfig, wrong: Complaint) -> None:
    for key, refused in needed.refuses.items():
        value = getattr(config, key, None)  # another maker of the table may not have the setting
        if value in refused:
            words = f"[{reader.label}] needs what this leaves out; give another value, or take that section out"
            wrong(f"{maker.label}.{key}", value, words)


def check_splits(stages: Sequence[Stage], configs: Mapping[str, StageConfig], wrong: Complaint) -> None:
    """A set of splits, or a split, that the sections of the file do not make is wrong; one of another file may be."""
    sets = {stage.instance or stage.name: configs.get(stage.label) for stage in stages if splits.TABLE in stage.outputs}
    for label, config in configs.items():
        name = getattr(config, "split_set", None)
        if not sets or name is None:
            continue
        if name not in sets:
            wrong(f"{label}.split_set", name, f"there is no [split_dataset.{name}]; {one_of(name, sorted(sets))}")
            continue
        made: Any = sets[name]
        if made is None or made.column is not None:  # it is wrong itself, or a manifest may name more
            continue
        for split in getattr(config, "splits", None) or ():
            if split not in made.shares:
                wrong(
                    f"{label}.splits", split, f"[split_dataset.{name}] has none such; {one_of(split, [*made.shares])}"
                )


def check_models(
    stages: Sequence[Stage],
    configs: Mapping[str, StageConfig],
    looks: Sequence[tuple[Observer, Settings | None]],
    wrong: Complaint,
) -> dict[str, set[str]]:
    """Names of models that mean no section or several are wrong. Returns which sections a stage's predicate names."""
    known, after = sections_by_name(stages), {}
    for stage in stages:
        for key, named in stage.names_labels.items():
            value = getattr(configs.get(stage.label), key, None)
            for name in value if isinstance(value, tuple) else (value,) if value else ():
                try:
                    find_label_section(name, stages, named=named)
                except ConfigError as error:
                    wrong(f"{stage.label}.{key}", value, str(error))
        text = getattr(configs.get(stage.label), stage.narrow or "", None)
        if text is not None:
            labels, problems = sections_named(named_models(text), known)
            after[stage.label] = labels - {stage.label}
            for problem in problems:
                wrong(f"{stage.label}.{stage.narrow}", text, problem)
    for observer, config in looks:
        for key in observer.names_models:
            for problem in sections_named(getattr(config, key, None) or (), known)[1]:
                wrong(f"{observer.name}.{key}", getattr(config, key, None), problem)
    return after
