"""Backend `mlflow`: models of an MLflow registry, by version or by alias. `docs/mlflow.md` shows how they get there.

`model` is `models:/name/version` or `models:/name@alias`. A version's files are fetched once to each machine and loaded
by another backend. Which one, a file `visionlake.toml` among them says; without it, one `.pt2` or `.onnx` with its card
will do. Nothing is loaded by MLflow, and what an `MLmodel` file says is not read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

from .._errors import ModelError, first_line
from .._mlflow import Version, fetch_files, find_version
from .._model_cache import forget, kept
from ..cards import card_path
from ..detector_types import DetectOptions, Detector, ModelInfo
from . import find_backend

IMPORTS = ("torchvision.ops",)  # all that the backends below have in common
DESCRIPTION = "visionlake.toml"
_ENDINGS = {
    "exported": ".pt2", "onnx": ".onnx", "torchvision": ".safetensors", "builtin": ".safetensors", "transformers": None
}  # fmt: skip
_WITH_CARD = {".pt2": "exported", ".onnx": "onnx"}
_MAX_DESCRIPTION_BYTES = 1 << 20
_MODEL = re.compile(r"models:/(?P<name>\w[\w. -]{0,199})(?:/(?P<number>[1-9][0-9]{0,8})|@(?P<alias>[\w.-]{1,200}))")


def pin(options: DetectOptions) -> DetectOptions:
    """The options with the version that the registry means by `model` now. Raises ModelError."""
    wanted = _wanted(options)
    found = find_version(wanted.registry_uri, name=wanted.name, number=wanted.number, alias=wanted.alias)
    forget(wanted.registry_uri, wanted.name, str(found.number), unless=_mark(found))
    return replace(options, model=f"models:/{wanted.name}/{found.number}")


def describe(options: DetectOptions) -> ModelInfo:
    """The facts of the model in the version, under the name and the number that it is registered by.

    Its files are fetched if they are not on this machine. Raises ModelError.
    """
    wanted, inner = _fetched(options)
    info = find_backend(inner.backend).describe(inner)
    info.resolved(inner)  # what the other backend refuses is refused now
    digests = {**info.digests, "model": inner.model} if inner.model else info.digests
    sources = ("model", "registry_uri", *({"prompts"} & {*info.sources}))
    return replace(
        info, name=wanted.name, version=str(wanted.number), digests=digests, sources=sources,
        source=f"models:/{wanted.name}/{wanted.number}", registry_version=str(wanted.number),
    )  # fmt: skip


def licence(options: DetectOptions) -> str | None:
    """What the version's tag `license` or `licence` says. Raises ModelError where the registry does not answer."""
    wanted = _wanted(options)
    return find_version(wanted.registry_uri, name=wanted.name, number=wanted.number, alias=wanted.alias).licence


def load(options: DetectOptions) -> Detector:
    """The model, by the backend that it is for. Raises ModelError."""
    _, inner = _fetched(options)
    return find_backend(inner.backend).load(inner)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What `options` name: a model in a registry, by number or by alias."""

    registry_uri: str
    name: str
    number: int | None
    alias: str | None


def _wanted(options: DetectOptions) -> _Wanted:
    if options.registry_uri is None:
        raise ModelError(
            "backend 'mlflow' wants registry_uri, for example 'http://mlflow:5000', 'sqlite:////data/mlflow.db' or "
            "'databricks-uc'"
        )
    if options.weights is not None:
        raise ModelError("backend 'mlflow' has no setting weights; model says which they are")
    found = _MODEL.fullmatch(options.model or "")
    if found is None:
        given = "wants model" if options.model is None else f"knows no model = {options.model!r}"
        raise ModelError(f"backend 'mlflow' {given}; allowed is 'models:/name/version' or 'models:/name@alias'")
    number = int(found["number"]) if found["number"] else None
    return _Wanted(registry_uri=options.registry_uri, name=found["name"], number=number, alias=found["alias"])


def _fetched(options: DetectOptions) -> tuple[_Wanted, DetectOptions]:
    """The version, and the options for the backend that loads its files on this machine."""
    if _wanted(options).number is None:
        options = pin(options)
    wanted = _wanted(options)
    assert wanted.number is not None
    number = wanted.number

    def fetch(folder: Path) -> str:
        return _mark(fetch_files(wanted.registry_uri, name=wanted.name, number=number, into=folder, check=_check_names))

    try:
        found = kept(wanted.registry_uri, wanted.name, str(number), fetch=fetch)
        inner = _description(found.folder, found.names)
    except ModelError as error:
        raise ModelError(f"{options.model}: {error}") from None
    weights = str(found.folder / inner.weights)
    return wanted, replace(
        options, backend=inner.backend, model=inner.model, weights=weights, labels=inner.labels, registry_uri=None
    )


def _mark(version: Version) -> str:
    return str(version.created_ms)


@dataclass(frozen=True, kw_only=True)
class _Description:
    """Which backend loads what of a version's files; `model` and `labels` are that backend's settings."""

    backend: str
    weights: str
    model: str | None = None
    labels: tuple[str, ...] | None = None


def _description(folder: Path, names: Collection[str]) -> _Description:
    if DESCRIPTION not in names:
        return _without_description(names)
    path = folder / DESCRIPTION
    if path.stat().st_size > _MAX_DESCRIPTION_BYTES:
        raise ModelError(f"{DESCRIPTION} has {path.stat().st_size} bytes; at most {_MAX_DESCRIPTION_BYTES}")
    try:
        given = tomllib.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{DESCRIPTION} is not valid TOML: {first_line(error)}") from None
    if unknown := sorted(given.keys() - {each.name for each in fields(_Description)}):
        allowed = ", ".join(each.name for each in fields(_Description))
        raise ModelError(f"{DESCRIPTION}: unknown key {', '.join(map(repr, unknown))} (allowed: {allowed})")
    backend, model, labels = given.get("backend"), given.get("model"), given.get("labels")
    if not isinstance(backend, str) or backend not in _ENDINGS:
        raise ModelError(f"{DESCRIPTION}: backend = {backend!r}; allowed is one of {', '.join(_ENDINGS)}")
    if not isinstance(model, str | None):
        raise ModelError(f"{DESCRIPTION}: model = {model!r}; allowed is text")
    if labels is not None and not (isinstance(labels, list) and labels and all(isinstance(one, str) for one in labels)):
        raise ModelError(f"{DESCRIPTION}: labels = {labels!r:.80}; allowed is a list of text")
    weights = _inside(given.get("weights"), names, ending=_ENDINGS[backend])
    return _Description(backend=backend, weights=weights, model=model, labels=tuple(labels) if labels else None)


def _inside(weights: object, names: Collection[str], *, ending: str | None) -> str:
    """The path, if it is one of the version's files that end so, or, for no ending, one of its folders."""
    if ending is None:
        there = {str(folder) for name in names for folder in PurePosixPath(name).parents}
        kind = "folders"
    else:
        there = {name for name in names if name.endswith(ending)}
        kind = f"files {ending}"
    if not isinstance(weights, str) or weights not in there:
        shown = ", ".join(sorted(there)[:10]) or "none"
        raise ModelError(f"{DESCRIPTION}: weights = {weights!r}; allowed is one of the {kind} there are: {shown}")
    return weights


def _without_description(names: Collection[str]) -> _Description:
    """What a single file of weights with its card beside it is for. Raises ModelError where it is not that clear."""
    there = [name for name in names if PurePosixPath(name).suffix in _WITH_CARD]
    if len(there) == 1 and str(card_path(there[0])) in names:
        return _Description(backend=_WITH_CARD[PurePosixPath(there[0]).suffix], weights=there[0])
    shown = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
    ours = "" if "MLmodel" not in names else " What MLflow's flavours have saved may hold code, and is not loaded."
    raise ModelError(
        f"its files are not clear: {shown or 'it has none'}; wanted is one {' or '.join(_WITH_CARD)} with its card "
        f"(.toml) beside it, or {DESCRIPTION} that names backend and weights.{ours}"
    )


def _check_names(names: Collection[str]) -> None:
    """Refuse what cannot be loaded before it is fetched."""
    if DESCRIPTION not in names:
        _without_description(names)
