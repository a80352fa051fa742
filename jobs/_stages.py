"""Finding stages: by the name of their module, or in a Python file of the user's own."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from visionlake import jobs
from visionlake.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from ._stage import Observer, Stage


def stage_names() -> tuple[str, ...]:
    """Names of the stages that come with visionlake, sorted. Imports none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(jobs.__path__) if module.name[0] != "_"))


def stage_summary(name: str) -> str:
    """The first line of a stage's docstring, read without importing the stage; empty where there is none."""
    source = pkgutil.get_data(jobs.__name__, f"{name}.py")
    docstring = ast.get_docstring(ast.parse(source)) if source else None
    return docstring.splitlines()[0] if docstring else ""


def load_stage(name: str) -> Stage | Observer:
    """The stage of that name. Raises UsageError for a name that does not exist."""
    if name not in stage_names():
        raise UsageError(f"no stage {name!r}; {one_of(name, stage_names())}")
    return importlib.import_module(f"{jobs.__name__}.{name}").STAGE


def load_stage_file(path: Path | str) -> Stage | Observer:
    """The `STAGE` of a Python file of the user's own. Raises ConfigError where there is none.

    The module does not stay in `sys.modules`: what cannot be imported, Spark sends to workers by value, and workers do
    not have the file. It is there while it runs, because dataclasses and pydantic look names up in it.
    """
    from ._stage import Observer, Stage

    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"stage file {path}: there is no such file")
    name = f"visionlake_stage_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"stage file {path}: not a Python file (its name must end in .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"stage file {path}: {type(error).__name__}: {error}") from error
    finally:
        sys.modules.pop(name, None)
    stage = getattr(module, "STAGE", None)
    if not isinstance(stage, Stage | Observer):
        raise ConfigError(f"stage file {path}: defines no STAGE (an instance of Stage or Observer of visionlake.stage)")
    return stage


def in_order(stages: Sequence[Stage], *, after: Mapping[str, Collection[str]] | None = None) -> tuple[Stage, ...]:
    """The stages, each after those that write what it reads, and its sources, otherwise in the order given.

    `after` maps the label of a stage to those of others that it has to come after. Tables that none of them writes are
    taken to be in the lake. Raises ConfigError for a circle.
    """
    ordered: list[Stage] = []
    waiting = list(stages)
    while waiting:
        unwritten = {table.name for stage in waiting for table in stage.outputs}
        unready = {stage.label for stage in waiting}
        free = (s for s in waiting if not unwritten & _reads(s) and not unready & {*s.sources.values()})
        ready = next((s for s in free if not unready & {*(after or {}).get(s.label, ())}), None)
        if ready is None:
            names = ", ".join(stage.label for stage in waiting)
            raise ConfigError(f"stages read each other's output in a circle: {names}")
        ordered.append(ready)
        waiting.remove(ready)
    return tuple(ordered)


def sections_by_name(stages: Iterable[Stage]) -> dict[str, list[str]]:
    """What the sections of models may be called, `nano` or `detect_objects.nano`, and the sections called so."""
    found: dict[str, list[str]] = {}
    for stage in stages:
        if stage.producer:
            for name in dict.fromkeys((stage.instance or stage.name, stage.label)):
                found.setdefault(name, []).append(stage.label)
    return found


def one_of(name: str, names: Sequence[str]) -> str:
    """What is allowed instead of `name`, the nearest first."""
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    allowed = f"allowed: {', '.join(names)}" if names else "nothing is allowed here"
    return f"did you mean {near[0]}? ({allowed})" if near else allowed


def _reads(stage: Stage) -> set[str]:
    own = {table.name for table in stage.outputs}  # a stage may read what it wrote before
    return {source.table.name for source in stage.inputs} - own
