"""Settings that name where labels come from: sections of models, model ids, and sections that import annotations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from visionlake.errors import ConfigError
from visionlake.expectations.annotations import TABLE as ANNOTATIONS

from ._stages import one_of

if TYPE_CHECKING:
    from ._stage import Named, Stage


def is_model(name: str) -> bool:
    """Whether a name, once it is pinned, is a model's; else it is that of a source of annotations."""
    return "@" in name


def label_sections(stages: Iterable[Stage], *, named: Named = "any") -> tuple[str, ...]:
    """The sections that label: those of people before fusions of models, and these before models."""
    found = [(place, stage.label) for stage in stages if (place := _place(stage, named)) is not None]
    return tuple(label for _, label in sorted(found, key=lambda each: each[0]))


def _place(stage: Stage, named: Named) -> int | None:
    if ANNOTATIONS in stage.outputs:
        return 0 if named != "models" else None
    if stage.producer is None or named == "annotations":
        return None
    return 1 if stage.gather else 2


def _sections_by_name(stages: Iterable[Stage], *, named: Named) -> dict[str, list[str]]:
    """What sections that label may be called, `people` or `import_annotations.people`, and the sections called so."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        if _place(stage, named) is not None:
            for name in dict.fromkeys((stage.instance or stage.name, stage.label)):
                found.setdefault(name, []).append(stage.label)
    return found


def find_label_section(name: str, stages: Iterable[Stage], *, named: Named = "any") -> str | None:
    """The section that a name means; None for a model id. Raises ConfigError for a name of none, or of several."""
    if is_model(name) and named != "annotations":
        return None
    known = _sections_by_name(stages, named=named)
    meant = known.get(name, [])
    if not meant:
        what = {"models": "of a model", "annotations": "that imports annotations", "any": "that labels"}[named]
        raise ConfigError(f"there is no section {name!r} {what}; {one_of(name, sorted(known))}")
    if len(meant) > 1:
        raise ConfigError(f"{name!r} may mean {' or '.join(meant)}; give one of these")
    return meant[0]
