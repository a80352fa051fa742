"""Pipeline files: one TOML file, checked as a whole before anything starts."""

from __future__ import annotations

import glob
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer

from visionlake.errors import ConfigError, UsageError
from visionlake.udfs._mlflow import address_without_secrets
from visionlake.udfs.uris import ADDRESS

from ._fields import TomlFloat, describe_field
from ._fit import Complaint, check_fit, check_models, check_splits, with_sources
from ._ontology import OntologySection
from ._stage import Observer, Settings, Stage, StageConfig
from ._stages import in_order, load_stage, load_stage_file, one_of, stage_names

_Model = TypeVar("_Model", bound=BaseModel)

_CATALOG_AND_SCHEMA = re.compile(r"[^\W\d]\w*\.[^\W\d]\w*")
_INSTANCE = re.compile(r"[A-Za-z0-9][\w-]{0,49}")
_NOT_STAGES = ("lake", "mlflow", "ontology", "spark", "stage_files")
_OWN_NAMES = ("name", "source")  # settings that say what the section itself is called


class TrackingConfig(BaseModel):
    """Section `[mlflow]`. `enabled` null: on for a lake in a local folder, elsewhere if there is a `tracking_uri`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    enabled: bool | None = Field(default=None, description="unset: on for a local lake or where tracking_uri is set")
    tracking_uri: str | None = Field(
        default=None, min_length=1, repr=False, description="MLflow's tracking server or database"
    )
    experiment: str = Field(default="visionlake", min_length=1, description="name of the experiment")

    @field_serializer("tracking_uri")
    def _without_secrets(self, value: str | None) -> str | None:
        """What is printed holds no password."""
        return value and address_without_secrets(value)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A checked pipeline: the lake (absolute path, URI or `catalog.schema`) and its stages in the order of work.

    `observers` only look at what is there in the end. `after` has the stages whose labels a stage's predicate asks.
    """

    path: Path
    folder: Path
    lake: str
    stages: tuple[tuple[Stage, StageConfig], ...]
    observers: tuple[tuple[Observer, Settings], ...] = ()
    after: Mapping[str, Collection[str]] = field(default_factory=dict)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    spark: Mapping[str, str] = field(default_factory=dict)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Names of the stages, in order; those that only look come last."""
        return tuple(stage.label for stage, _ in (*self.stages, *self.observers))

    def choose(
        self, *, only: Sequence[str] | None = None, first: str | None = None, last: str | None = None
    ) -> tuple[tuple[Stage, StageConfig], ...]:
        """The stages to run: those named, or those from `first` to `last`. Raises UsageError for names not there."""
        return tuple(self.stages[place] for place in self._chosen(only, first, last) if place < len(self.stages))

    def choose_observers(
        self, *, only: Sequence[str] | None = None, first: str | None = None, last: str | None = None
    ) -> tuple[tuple[Observer, Settings], ...]:
        """The same of what only looks."""
        stages = len(self.stages)
        return tuple(self.observers[place - stages] for place in self._chosen(only, first, last) if place >= stages)

    def _chosen(self, only: Sequence[str] | None, first: str | None, last: str | None) -> list[int]:
        names = self.stage_names
        if not names:
            raise UsageError(f"{self.path} has no stage; add a section, for example [{stage_names()[0]}]")
        for name in (*(only or ()), first, last):
            if name is not None and not self._places(name):
                more = f"; or add a section [{name}]" if name in stage_names() else ""
                raise UsageError(f"{self.path} has no stage {name!r}; {one_of(name, names)}{more}")
        begin = self._places(first)[0] if first else 0
        end = self._places(last)[-1] + 1 if last else len(names)
        if begin >= end:
            raise UsageError(f"nothing to run: {first} comes after {last} (order: {', '.join(names)})")
        wanted = {place for name in only for place in self._places(name)} if only is not None else {*range(end)}
        return [place for place in range(begin, end) if place in wanted]

    def _places(self, name: str) -> list[int]:
        """Where a stage stands; one name may mean several of the same kind."""
        stages = (*self.stages, *self.observers)
        return [place for place, (stage, _) in enumerate(stages) if name in (stage.label, stage.name)]


def load_pipeline(path: Path | str, *, overrides: Sequence[str] = ()) -> Pipeline:
    """Read and check a pipeline file; `overrides` are texts like `extract_frames.fps=2`, over what the file says.

    Raises ConfigError that lists everything which is wrong.
    """
    path = Path(os.path.abspath(os.path.expanduser(path)))
    data = _read_toml(path)
    overridden = {_override(data, text) for text in overrides}
    problems: list[str] = []

    def wrong(key: str, value: object, words: str) -> None:
        origin = "--set " if key in overridden or key.partition(".")[0] in overridden else ""
        problems.append(f"{origin}{key} = {_show(value)}: {words}")

    found = _stages(data, path.parent, wrong)
    stages, observers = [s for s in found if isinstance(s, Stage)], [s for s in found if isinstance(s, Observer)]
    lake = data.get("lake")
    if "lake" not in data:
        problems.append('lake: missing; set it at the top of the file, for example lake = "lake"')
    elif not isinstance(lake, str) or not lake.strip():
        wrong("lake", lake, "allowed is text: a folder, a URI (s3a://...) or catalog.schema")
    configs: dict[str, StageConfig] = {}
    is_shared = "ontology" in data and _section(OntologySection, data, "ontology", path.parent, wrong) is not None
    for stage in stages:
        sections = data if stage.instance is None else data[stage.name]
        name = stage.instance or stage.name
        given = {"ontology": data["ontology"]} if is_shared else {}
        given |= dict.fromkeys(_OWN_NAMES, stage.instance) if stage.instance else {}
        taken = {key: value for key, value in given.items() if key in stage.config.model_fields}
        for key in taken.keys() & sections[name].keys() & {*_OWN_NAMES}:
            wrong(f"{stage.label}.{key}", sections[name][key], "not to be set: it is the section's own name")
        sections = {**sections, name: {**taken, **sections[name]}}
        config = _section(stage.config, sections, name, path.parent, wrong, label=stage.label)
        if config is not None:
            configs[stage.label] = config
    stages = [with_sources(stage, configs, stages, wrong) for stage in stages]
    check_fit(stages, configs, wrong)
    check_splits(stages, configs, wrong)
    looks = [(o, _section(o.config, data, o.name, path.parent, wrong)) for o in observers]
    after = check_models(stages, configs, looks, wrong)
    tracking = _section(TrackingConfig, data, "mlflow", path.parent, wrong) or TrackingConfig()
    spark = _spark_settings(data, wrong)
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{path}: {count}\n" + "\n".join(f"  {problem}" for problem in problems))
    return Pipeline(
        path=path,
        folder=path.parent,
        lake=resolve_lake(str(lake), folder=path.parent),
        stages=tuple((stage, configs[stage.label]) for stage in in_order(stages, after=after)),
        observers=tuple((observer, config) for observer, config in looks if config is not None),
        after=after,
        tracking=tracking,
        spark=spark,
    )


def resolve_lake(lake: str, *, folder: Path) -> str:
    """A lake as an absolute path, a URI or `catalog.schema`.

    Two words with a dot between are catalog and schema, unless there is a folder of that name; `./a.b` is a folder.
    """
    lake = lake.strip()
    if ADDRESS.match(lake):
        return lake.rstrip("/")
    path = os.path.abspath(folder / os.path.expanduser(lake))
    return lake if _CATALOG_AND_SCHEMA.fullmatch(lake) and not os.path.isdir(path) else path


def resolved(config: BaseModel) -> dict[str, Any]:
    """Every setting with its value, as JSON types, for records."""
    return config.model_dump(mode="json")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text, parse_float=TomlFloat)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _override(data: dict[str, Any], text: str) -> str:
    """Put one `section.key=value` into the data and return its key."""
    key, equals, value = text.partition("=")
    key = key.strip()
    names = key.split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set {text}: allowed is section.key=value, for example extract_frames.fps=2")
    if names[0] == "spark":
        names = ["spark", key.removeprefix("spark.")]
    table = data
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {text}: {name} is not a section")
    table[names[-1]] = _parse_value(value.strip())
    return key


def _parse_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}", parse_float=TomlFloat)
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _stages(data: Mapping[str, Any], folder: Path, wrong: Complaint) -> list[Stage | Observer]:
    """The stages whose sections are there; sections of nobody are wrong."""
    files = data.get("stage_files", [])
    own: dict[str, Stage | Observer] = {}
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        wrong("stage_files", files, "allowed is a list of Python files")
        files = []
    for file in files:
        try:
            stage = load_stage_file(_absolute(file, folder))
        except ConfigError as error:
            wrong("stage_files", file, str(error))
            continue
        if stage.name in (*own, *stage_names(), *_NOT_STAGES):
            wrong("stage_files", file, f"there is already something called {stage.name!r}")
        own[stage.name] = stage
    known = sorted({*own, *stage_names()})
    stages: list[Stage | Observer] = []
    for name, section in data.items():
        if name in _NOT_STAGES:
            continue
        if name not in known:
            allowed = one_of(name, (*known, *_NOT_STAGES))
            if isinstance(section, dict):
                wrong(f"[{name}]", section, f"unknown section; {allowed}")
            else:
                wrong(name, section, f"unknown key; {allowed}")
        elif not isinstance(section, dict):
            wrong(name, section, f"allowed is a section, [{name}]")
        else:
            stages += _instances(own[name] if name in own else load_stage(name), section, wrong)
    return stages


def _instances(stage: Stage | Observer, section: Mapping[str, Any], wrong: Complaint) -> list[Stage | Observer]:
    """The stage, or one for each section below its own."""
    if isinstance(stage, Observer) or not stage.is_named:
        return [stage]
    if not section:
        wrong(f"[{stage.name}]", section, f"allowed are sections [{stage.name}.<name>], a name for each model")
    for key, value in section.items():
        if not isinstance(value, dict) or not _INSTANCE.fullmatch(key):
            words = f"allowed are sections [{stage.name}.<name>], the name of letters, digits, - and _"
            wrong(f"{stage.name}.{key}", value, words)
    return [replace(stage, instance=k) for k, v in section.items() if isinstance(v, dict) and _INSTANCE.fullmatch(k)]


def _section(
    model: type[_Model],
    data: Mapping[str, Any],
    name: str,
    folder: Path,
    wrong: Complaint,
    *,
    label: str | None = None,
) -> _Model | None:
    section, label = data.get(name, {}), label or name
    if not isinstance(section, dict):
        wrong(label, section, f"allowed is a section, [{label}]")
        return None
    values = {key: _with_paths(model, key, value, folder) for key, value in section.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        seen = set()
        for problem in error.errors():
            key, value = _place(section, problem["loc"])
            if key not in seen:  # a union reports each of its branches
                wrong(f"{label}.{key}" if key else f"[{label}]", value, _explain(model, problem))
            seen.add(key)
        return None


def _explain(model: type[BaseModel], problem: Any) -> str:
    """What is allowed where pydantic found something wrong."""
    if not problem["loc"]:
        return str(problem["ctx"]["error"]) if "error" in problem.get("ctx", {}) else problem["msg"]
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden" and name not in model.model_fields:
        return f"unknown key; {one_of(name, sorted(model.model_fields))}"
    allowed = f"allowed is {describe_field(model.model_fields[name])}"
    if problem["type"] == "missing":
        return f"missing; {allowed}"
    if problem["type"] == "value_error":
        return f"{problem['ctx']['error']}; {allowed}"
    return allowed


def _place(section: Any, location: Sequence[int | str]) -> tuple[str, Any]:
    """Key and value in the file that pydantic's location means (which also names branches of unions)."""
    key, value = "", section
    for step in location:
        if isinstance(value, dict) and step in value:
            key, value = f"{key}.{step}".lstrip("."), value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            key, value = f"{key}[{step}]", value[step]
        elif not key:
            return str(step), None  # a required key that is not there
    return key, value


def _with_paths(model: type[BaseModel], key: str, value: Any, folder: Path) -> Any:
    info = model.model_fields.get(key)
    marks = info.json_schema_extra if info else None
    if not isinstance(marks, dict) or not marks.get("is_path"):
        return value
    if isinstance(value, list):
        return [_absolute(item, folder) if isinstance(item, str) else item for item in value]
    return _absolute(value, folder) if isinstance(value, str) else value


def _absolute(path: str, folder: Path) -> str:
    """The path taken from the folder; URIs and empty text stay. Nothing is normalised, so that globs keep meaning."""
    if not path or ADDRESS.match(path):
        return path
    path = os.path.expanduser(path)
    is_glob = glob.has_magic(path) and not os.path.lexists(folder / path)
    return os.path.join(glob.escape(str(folder)) if is_glob and not os.path.isabs(path) else folder, path)


def _spark_settings(data: Mapping[str, Any], wrong: Complaint) -> dict[str, str]:
    """Section `[spark]`, flattened: Spark's names, with or without `spark.` in front, and its way to write values."""
    section = data.get("spark", {})
    if not isinstance(section, dict):
        wrong("spark", section, "allowed is a section, [spark]")
        return {}
    settings: dict[str, str] = {}
    pending = [(str(key), value) for key, value in section.items()]
    while pending:
        key, value = pending.pop(0)
        if isinstance(value, dict):
            pending[:0] = [(f"{key}.{inner}", item) for inner, item in value.items()]
        elif isinstance(value, bool | int | float | str):
            text = str(value).lower() if isinstance(value, bool) else getattr(value, "text", str(value))
            settings[key if key.startswith("spark.") else f"spark.{key}"] = text
        else:
            wrong(f"spark.{key}", value, "allowed is text, a number, true or false")
    return settings


def _show(value: object) -> str:
    """A value as TOML would have it, short."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = '"' + value + '"'
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key} = {_show(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(map(_show, value)) + "]"
    else:
        text = "(nothing)" if value is None else getattr(value, "text", str(value))
    return text if len(text) <= 80 else text[:77] + "..."
