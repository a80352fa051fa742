"""Settings that name where labels come from: sections of models, model ids, and sections that import annotations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from visionlake.errors import ConfigError
from visionlake.expectations.annotations import TABLE as ANNOTATIONS

from ._stages import one_of

if TYPE_CHECKING:
    from ._stage import Stage


def is_model(name: str) -> bool:
    """Whether a name, once it is pinned, is a model's; else it is that of a source of annotations."""
    return "@" in name


def labelling_sections(stages: Iterable[Stage]) -> dict[str, list[str]]:
    """What sections that label may be called, `people` or `import_annotations.people`, and the sections called so."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        if stage.producer or ANNOTATIONS in stage.outputs:
            for name in dict.fromkeys((stage.instance or stage.name, stage.label)):
                found.setdefault(name, []).append(stage.label)
    return found


def find_label_section(name: str, stages: Iterable[Stage]) -> str | None:
    """The section that a name means; None for a model id. Raises ConfigError for a name of none, or of several."""
    if is_model(name):
        return None
    known = labelling_sections(stages)
    meant = known.get(name, [])
    if not meant:
        raise ConfigError(f"there is no section {name!r} that labels; {one_of(name, sorted(known))}")
    if len(meant) > 1:
        raise ConfigError(f"{name!r} may mean {' or '.join(meant)}; give one of these")
    return meant[0]
