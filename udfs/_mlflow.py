"""What is asked of MLflow outside of tracking: versions of models in its registry, and their files.

Only this module and `jobs/_tracking` import MLflow, and only once they need it, for that takes seconds. Files are
fetched as they are: nothing of MLflow's own loads a model here, for its loaders may run what comes with one.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ._errors import ModelError

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.tracking import MlflowClient

MAX_BYTES = 8 << 30
MAX_FILES = 1000
"""Files and folders that a version may have."""

_ANSWER_S = 4
_DOWNLOAD_S = 300  # a server may fetch a file from elsewhere before it begins to send it
_ENVIRONMENT = {  # MLflow's own defaults wait for minutes; what the user has set stays
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_LICENCE_TAGS = ("license", "licence")
_LOGGERS = ("mlflow", "alembic", "urllib3")
_one_at_a_time = threading.Lock()  # the settings are those of the process


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version in a registry. A deleted model's numbers may come again, `created_ms` tells them apart."""

    number: int
    created_ms: int
    licence: str | None = None


def find_version(registry_uri: str, *, name: str, number: int | None = None, alias: str | None = None) -> Version:
    """The version of a registered model that its number, or else an alias, stands for now.

    Raises ModelError where there is none, with those there are, and where the registry does not answer.
    """
    with _asking(registry_uri, answer_s=_ANSWER_S) as client:
        return _find_version(client, name=name, number=number, alias=alias)


def fetch_files(
    registry_uri: str, *, name: str, number: int, into: Path, check: Callable[[Sequence[str]], None]
) -> Version:
    """Copy all files of a version into an empty folder. Returns the version that they are of.

    `check` gets the paths of the files before they are fetched, and may raise. Raises ModelError for files that are too
    many, too large or elsewhere, and where the registry or the store of its files does not answer.
    """
    with _asking(registry_uri, answer_s=_ANSWER_S) as client:
        version = _find_version(client, name=name, number=number)
    with _asking(registry_uri, answer_s=_DOWNLOAD_S) as client:
        store = _store(client, registry_uri, name=name, number=number)
        files = _listed(store)
        check(files)
        size = 0
        for path in files:
            _fetch_file(store, path, into)
            size += (into / path).stat().st_size  # what a listing says of sizes need not be so
            _check_size(size)
    return version


@contextmanager
def mlflow_settings(*, answer_s: int = _ANSWER_S) -> Iterator[None]:
    """Short waits and silence, for our own calls of MLflow only. One thread at a time; others wait."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with _one_at_a_time:
        wanted = _ENVIRONMENT | {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(answer_s)}
        added = {name: value for name, value in wanted.items() if name not in os.environ}
        levels = [logger.level for logger in loggers]
        os.environ.update(added)
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def explain(error: BaseException, *, secret: str = "") -> str:
    """The innermost cause, in one line without secrets: MLflow's errors quote the whole address, `secret`."""
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    lines = str(cause).strip().splitlines() or [""]
    said = lines[0].replace(secret, address_without_secrets(secret)) if secret else lines[0]
    return without_secrets(f"{type(cause).__name__}: {said}")[:300]


def without_secrets(text: str) -> str:
    """The text without the users, passwords and queries of addresses. An `@` in a path is taken for a password's."""
    return re.sub(r"\?[^\s?=]*=\S*|(?<=/)\?\S*", "", re.sub(r"://\S*@", "://", text))


def address_without_secrets(address: str) -> str:
    """The same of an address by itself, whose password may hold anything."""
    return without_secrets(re.sub(r"://.*@", "://", address, flags=re.DOTALL)).partition("?")[0]


@contextmanager
def _asking(registry_uri: str, *, answer_s: int) -> Iterator[MlflowClient]:
    """A client of the registry. Whatever goes wrong with it is a ModelError in one line."""
    shown = address_without_secrets(registry_uri)
    _check_database(registry_uri)
    try:
        with mlflow_settings(answer_s=answer_s):
            from mlflow.tracking import MlflowClient

            yield MlflowClient(tracking_uri=_tracking_uri(registry_uri), registry_uri=registry_uri)
    except ModelError as error:
        raise ModelError(f"registry {shown}: {error}") from None
    except Exception as error:  # of the network, the server, the database, the store of the files
        raise ModelError(
            f"registry {shown} cannot be used: {explain(error, secret=registry_uri)}; see whether registry_uri is "
            "right, whether it runs, and whether you may read it"
        ) from None


def _check_database(registry_uri: str) -> None:
    """MLflow would make a database that is not there."""
    begins = re.match(r"sqlite(\+\w+)?:///", registry_uri)
    if not begins:
        return
    path = Path(unquote(registry_uri[begins.end() :].partition("?")[0]))
    if not path.is_absolute():
        raise ModelError(
            f"registry_uri = {registry_uri!r}: the path is not absolute; write sqlite:////folder/mlflow.db"
        )
    if not path.is_file():
        raise ModelError(f"registry_uri = {registry_uri!r}: there is no such database")


def _tracking_uri(registry_uri: str) -> str:
    """Unity Catalog is nothing but a registry."""
    return re.sub(r"^databricks-uc\b", "databricks", registry_uri)


def _find_version(client: MlflowClient, *, name: str, number: int | None = None, alias: str | None = None) -> Version:
    from mlflow.exceptions import MlflowException

    try:
        if number is None:
            found = client.get_model_version_by_alias(name, str(alias))
        else:
            found = client.get_model_version(name, str(number))
    except MlflowException as error:
        if not _is_absent(error):
            raise
        wanted = f"alias {alias!r}" if number is None else f"version {number}"
        raise ModelError(_absent(client, name, wanted)) from None
    licence = next((str(found.tags[name]) for name in _LICENCE_TAGS if found.tags.get(name)), None)
    return Version(number=int(found.version), created_ms=found.creation_timestamp, licence=licence)


def _is_absent(error: Exception) -> bool:
    """Whether MLflow says that something is not there: of an alias it says that it is not valid."""
    return getattr(error, "error_code", None) in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE")


def _absent(client: MlflowClient, name: str, wanted: str) -> str:
    """What to say of a version or a whole model that there is not."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if not _is_absent(error):
            raise
        names = [model.name for model in client.search_registered_models(max_results=100)]
        near = get_close_matches(name, names, n=1)
        told = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names[:20]) or 'none'}"
        return f"no model {name!r}; {told}"
    numbers = sorted(int(found.version) for found in client.search_model_versions(f"name = '{name}'", max_results=100))
    told = [f"versions {', '.join(map(str, numbers[-20:]))}" if numbers else "no version"]
    told += [f"aliases {', '.join(f'{a} (version {n})' for a, n in sorted(aliases.items()))}"] if aliases else []
    return f"model {name!r} has no {wanted}; it has {' and '.join(told)}"


def _store(client: MlflowClient, registry_uri: str, *, name: str, number: int) -> ArtifactRepository:
    """Where the files of a version lie."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = f"models:/{name}/{number}"  # Unity Catalog gives access to files by way of the model alone
    if not registry_uri.startswith("databricks"):
        uri = client.get_model_version_download_uri(name, str(number))
    store = get_artifact_repository(uri, tracking_uri=_tracking_uri(registry_uri), registry_uri=registry_uri)
    while isinstance(inner := getattr(store, "repo", None), ArtifactRepository):
        store = inner
    return store


def _listed(store: ArtifactRepository) -> list[str]:
    """Paths of all files, relative to their folder. Raises ModelError for too many, too large, links and odd paths."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    root = Path(store.artifact_dir) if isinstance(store, LocalArtifactRepository) else None
    files: list[str] = []
    folders: list[str | None] = [None]
    seen = size = 0
    while folders:
        folder = folders.pop()
        for one in store.list_artifacts(folder):
            if one.path in (".", folder):  # so do some stores list a folder
                continue
            path = PurePosixPath(one.path)
            if path.is_absolute() or ".." in path.parts or (root and (root / path).is_symlink()):
                raise ModelError(f"its file {one.path!r} is a link, or leads out of its folder; put files in its place")
            seen += 1
            if seen > MAX_FILES:
                raise ModelError(f"it has more than {MAX_FILES} files; put the model in a folder of its own")
            size += one.file_size or 0
            _check_size(size)
            (folders if one.is_dir else files).append(one.path)
    return files


def _fetch_file(store: ArtifactRepository, path: str, into: Path) -> None:
    try:
        store.download_artifacts(path, str(into))
    except Exception as error:  # stores have many kinds; what MLflow makes of them has the cause after a rule
        said = str(error).rpartition("#####\n")[2].strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"its file {path!r} cannot be fetched: {without_secrets(said)[:300]}") from None


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise ModelError(f"its files have {size} bytes or more; at most {MAX_BYTES} are allowed")
