"""Backend `mlflow`: versions of a real registry, fetched once to a machine, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_networks import changed, detect, pictures
from toy_registry import Registry, Store, serving

from visionlake.udfs import _mlflow
from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend, mlflow
from visionlake.udfs.detector_types import DetectOptions

pytestmark = pytest.mark.long  # the shared suite has a case of it, for every day

DOCS = Path(__file__).parents[2] / "docs" / "mlflow.md"
SIZES = [(64, 64), (50, 80)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store(grid: DetectOptions, tmp_path: Path) -> Iterator[Store]:
    with serving(copied(grid, tmp_path / "served")) as store:
        yield store


def copied(options: DetectOptions, folder: Path) -> Path:
    """A folder with nothing but weights and card of a model."""
    folder.mkdir(parents=True)
    for ending in (Path(str(options.weights)).suffix, ".toml"):
        shutil.copy(Path(str(options.weights)).with_suffix(ending), folder)
    return folder


def folder_of(files: dict[str, str], folder: Path) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def model_id(options: DetectOptions) -> str:
    return find_backend(options.backend).describe(options).model_id(options)


def refused(options: DetectOptions) -> str:
    with pytest.raises(ModelError) as caught:
        mlflow.describe(options)
    return str(caught.value)


def cached(home: Path, pattern: str) -> Path:
    (path,) = (home / ".cache" / "visionlake" / "models").glob(pattern)
    return path


def worker(options: DetectOptions, code: str = "mlflow.describe(options)") -> subprocess.Popen[str]:
    given = {"model": options.model, "registry_uri": options.registry_uri, "device": "cpu"}
    program = (
        "import sys; from visionlake.udfs.backends import mlflow\n"
        "from visionlake.udfs.detector_types import DetectOptions\n"
        f"options = DetectOptions(backend='mlflow', **{given!r})\n{code}\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def output(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.strip()


def register_as_documented(grid: DetectOptions, folder: Path, uri: str) -> DetectOptions:
    """Run the lines of the docs in a folder; the options that their section of a pipeline means."""
    text = DOCS.read_text().replace("http://mlflow:5000", uri)
    files = copied(grid, folder / "parts")
    (files / "toy.pt2").rename(files / "parts.pt2")
    (files / "toy.toml").rename(files / "parts.toml")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with contextlib.chdir(folder):
        exec(code, {})
    section, described = (tomllib.loads(lines) for lines in re.findall(r"```toml\n(.*?)```", text, re.DOTALL))
    assert described.keys() == mlflow._Description.__dataclass_fields__.keys()
    return DetectOptions(**section["detect_objects"]["champion"], device="cpu")


def assert_is_the_same(options: DetectOptions, inner: DetectOptions) -> None:
    info, wanted = mlflow.describe(options), find_backend(inner.backend).describe(inner)
    assert (info.labels, info.declared) == (wanted.labels, wanted.declared)
    assert dict(info.digests) == {**wanted.digests, **({"model": inner.model} if inner.model else {})}
    for one, other in zip(detect(options, *pictures(*SIZES)), detect(inner, *pictures(*SIZES)), strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_facts_name_the_version_and_the_licence_of_its_tag_or_card(
    grid: DetectOptions, registry: Registry, tmp_path: Path
) -> None:
    options = registry.add("told", copied(grid, tmp_path / "plain"), alias="champion")
    before, info = model_id(options), mlflow.describe(options)
    assert (info.source, info.registry_version, info.licence) == ("models:/told/1", "1", None)
    assert info.card["head"]["kind"] == "yolox" and mlflow.licence(options) is None
    with _mlflow.mlflow_settings():
        registry.client.set_model_version_tag("told", "1", "licence", "AGPL-3.0-only")
    assert mlflow.licence(options) == "AGPL-3.0-only" and model_id(options) == before


def test_the_lines_of_the_docs_register_a_model_that_runs(
    grid: DetectOptions, registry: Registry, tmp_path: Path
) -> None:
    options = register_as_documented(grid, tmp_path, registry.uri)
    assert model_id(options).startswith("parts@1:")
    assert_is_the_same(options, grid)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "parts"], "nothing in the working directory"


@pytest.mark.parametrize("name", ["grid_onnx", "ssd", "detr", "builtin"])
def test_other_backends_load_what_the_description_says(
    name: str, registry: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "builtin":
        weights = Path(str(mlflow.__file__)).with_name("builtin.safetensors")
        inner = DetectOptions(backend="builtin", weights=str(weights), device="cpu")
    else:
        inner = request.getfixturevalue(name)
    given = Path(str(inner.weights))
    if given.is_dir():
        shutil.copytree(given, tmp_path / "files" / "net")
    else:
        (tmp_path / "files" / "net").mkdir(parents=True)
        for path in given.parent.glob(f"{given.stem}.*"):
            shutil.copy(path, tmp_path / "files" / "net")
    lines = [f'backend = "{inner.backend}"', f'weights = "net{"" if given.is_dir() else f"/{given.name}"}"']
    lines += [f'model = "{inner.model}"'] if inner.model else []
    lines += [f"labels = {[*inner.labels]}"] if inner.labels else []
    folder_of({"visionlake.toml": "\n".join(lines)}, tmp_path / "files")
    options = registry.add(f"as {name}", tmp_path / "files")
    assert model_id(options).startswith(f"as {name}@1:")
    assert_is_the_same(options, inner)


def test_an_alias_that_moves_changes_later_runs_only(
    grid: DetectOptions, plain: DetectOptions, registry: Registry
) -> None:
    loose = registry.add("moved", Path(str(grid.weights)).parent, alias="live")
    pinned = mlflow.pin(loose)
    assert pinned.model == "models:/moved/1" and mlflow.pin(pinned) == pinned
    before = model_id(pinned)
    registry.add("moved", Path(str(plain.weights)).parent, alias="live")
    assert model_id(pinned) == before and before.startswith("moved@1:")
    later = mlflow.pin(loose)
    assert later.model == "models:/moved/2"
    assert model_id(later) == model_id(loose) != before and model_id(later).startswith("moved@2:")


def test_a_model_that_is_deleted_and_made_again_is_fetched_again(
    grid: DetectOptions, plain: DetectOptions, registry: Registry
) -> None:
    options = registry.add("again", Path(str(grid.weights)).parent)
    before = model_id(mlflow.pin(options))
    registry.client.delete_registered_model("again")
    assert registry.add("again", Path(str(plain.weights)).parent) == options
    assert model_id(mlflow.pin(options)) != before


def test_a_worker_with_the_files_needs_neither_mlflow_nor_the_registry(
    grid: DetectOptions, registry: Registry, tmp_path: Path
) -> None:
    options = registry.add("offline", copied(grid, tmp_path / "files"))
    before = model_id(options)
    shutil.rmtree(tmp_path / "files")
    code = "print(mlflow.describe(options).model_id(options), 'mlflow' in sys.modules)"
    assert output(worker(options, code)) == f"{before} False"


def test_processes_that_fetch_at_once_fetch_once(registry: Registry, store: Store) -> None:
    options = registry.add("once", store.url)
    store.wait_s = 1.0
    workers = [worker(options, "print(mlflow.describe(options).model_id(options))") for _ in range(2)]
    assert len({output(process) for process in workers}) == 1
    assert sorted(store.asked) == ["toy.pt2", "toy.toml"]


def test_what_a_killed_process_left_is_in_nobodys_way(registry: Registry, store: Store, home: Path) -> None:
    options = registry.add("killed", store.url)
    store.is_half = True
    process = worker(options)
    assert store.is_at_half.wait(60)
    process.kill()
    process.communicate()
    assert cached(home, "*.part").is_dir()
    store.is_half = False
    assert mlflow.describe(options).name == "killed"
    assert cached(home, "killed-1-*/files/toy.pt2").stat().st_size == (store.folder / "toy.pt2").stat().st_size
    assert not [*home.rglob("*.part")]


@pytest.mark.parametrize("change", ["content", "extra", "missing", "manifest", "link"])
def test_a_cache_that_was_changed_is_fetched_again(
    grid: DetectOptions, registry: Registry, home: Path, change: str
) -> None:
    options = registry.add(f"changed {change}", Path(str(grid.weights)).parent)
    before = model_id(options)
    manifest = cached(home, "*/manifest.json")
    card = manifest.parent / "files" / "toy.toml"
    if change == "content":
        card.write_text(card.read_text().replace("ant", "cat"))
    elif change == "extra":
        (card.parent / "config.json").write_text("{}")
    elif change == "missing":
        card.unlink()
    elif change == "manifest":
        manifest.write_text("[]")
    else:
        card.rename(home / "card")
        card.symlink_to(home / "card")
        (card.parent / "more").symlink_to("/")
    assert model_id(options) == before
    assert {path.name for path in card.parent.iterdir()} == {"toy.pt2", "toy.toml"} and "ant" in card.read_text()
    assert not card.is_symlink()
    assert manifest.parents[1].stat().st_mode & 0o077 == 0


DESCRIBED = {"net.pt2": "x", "net.toml": "x", "net.safetensors": "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('backend = "exported"\nweights = "../net.pt2"', "weights = '../net.pt2'; allowed is one of the files .pt2"),
        ('backend = "exported"\nweights = "/etc/hostname"', "weights = '/etc/hostname'; allowed is one of the files"),
        ('backend = "exported"\nweights = "a/../net.pt2"', "there are: net.pt2"),
        ('backend = "transformers"\nweights = ".."', "weights = '..'; allowed is one of the folders there are: ."),
        ('backend = "transformers"\nweights = "."\nmodel = "a/b"', "wants weights, a model's folder, or model"),
        ('backend = "torchvision"\nweights = "COCO_V1"', "allowed is one of the files .safetensors"),
        ('backend = "exported"\nweights = ["net.pt2"]', "weights = ['net.pt2']; allowed"),
        ('backend = "exported"', "weights = None; allowed"),
        ('backend = "mlflow"\nweights = "net.pt2"', "'mlflow'; allowed is one of exported, onnx, torchvision"),
        ('backend = "os"\nweights = "net.pt2"', "backend = 'os'; allowed"),
        ('backend = "exported"\nweigths = "net.pt2"', "key 'weigths' (allowed: backend, weights, model, labels)"),
        ('backend = "torchvision"\nweights = "net.safetensors"\nlabels = "ant"', "allowed is a list of text"),
        ('backend = "torchvision"\nweights = "net.safetensors"\nmodel = 3', "model = 3; allowed is text"),
        ("backend", "visionlake.toml is not valid TOML"),
        ("a = " + 2000 * "[" + 2000 * "]", "visionlake.toml is not valid TOML"),
        ("#" * (1 << 20) + "#", "at most 1048576"),
    ],
)  # fmt: skip
def test_a_description_is_held_to_what_is_allowed(registry: Registry, tmp_path: Path, text: str, message: str) -> None:
    options = registry.add("described", folder_of({**DESCRIBED, "visionlake.toml": text}, tmp_path / "files"))
    assert message in refused(options)


PICKLED = {"MLmodel": "flavors:\n  python_function:\n    loader_module: os\n", "data/model.pth": "x", "conda.yaml": ""}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (PICKLED, "its files are not clear: MLmodel, conda.yaml, data/model.pth; wanted is one .pt2 or .onnx with its"),
        (PICKLED, "What MLflow's flavours have saved may hold code, and is not loaded"),
        ({"net.pt2": "x"}, "its files are not clear: net.pt2; wanted is one .pt2 or .onnx with its card"),
        ({"net.pt2": "", "net.toml": "", "net.onnx": ""}, "not clear: net.onnx, net.pt2, net.toml; wanted is one"),
        ({"sub/net.pt2": "", "net.toml": ""}, "its files are not clear"),
        ({}, "it has none"),
    ],
)
def test_what_is_not_loaded_is_not_fetched_either(
    registry: Registry, tmp_path: Path, home: Path, files: dict[str, str], message: str
) -> None:
    (tmp_path / "files").mkdir()
    assert message in refused(registry.add("unclear", folder_of(files, tmp_path / "files")))
    assert not [path for path in home.rglob("*") if path.suffix != ".lock" and not path.is_dir()]


def test_links_that_lead_out_are_not_followed(grid: DetectOptions, registry: Registry, tmp_path: Path) -> None:
    folder = copied(grid, tmp_path / "files")
    (tmp_path / "secret").write_text("mine")
    (folder / "readme").symlink_to(tmp_path / "secret")
    assert "its file 'readme' is a link" in refused(registry.add("linked", folder))
    (folder / "readme").unlink()
    (folder / "up").symlink_to(tmp_path)
    assert "its file 'up' is a link" in refused(registry.add("linked", folder))
    (folder / "up").unlink()
    (folder / "round").symlink_to(folder)
    assert "its file 'round' is a link" in refused(registry.add("linked", folder))


@pytest.mark.parametrize("name", ["../../../../evil.pt2", "/evil.pt2", "a/../../evil.pt2", "%2e%2e/evil.pt2"])
def test_a_store_that_names_paths_elsewhere_is_refused(
    registry: Registry, store: Store, tmp_path: Path, name: str
) -> None:
    store.names = ["toy.pt2", "toy.toml", name]
    assert "registry" in refused(registry.add("elsewhere", store.url))
    assert not [*tmp_path.rglob("evil*")] and not Path("/evil.pt2").exists()


def test_a_file_that_cannot_be_fetched_is_named(registry: Registry, store: Store, home: Path) -> None:
    store.names = ["toy.pt2", "toy.toml", "gone.txt"]
    assert "its file 'gone.txt' cannot be fetched: 404 " in refused(registry.add("gone", store.url))
    assert not [*home.rglob("toy*")]


def test_what_is_too_large_is_not_fetched(
    registry: Registry, store: Store, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = registry.add("large", store.url)
    store.said["toy.pt2"] = _mlflow.MAX_BYTES
    assert f"at most {_mlflow.MAX_BYTES} are allowed" in refused(options) and not store.asked
    store.said["toy.pt2"] = 1
    monkeypatch.setattr(_mlflow, "MAX_BYTES", 1000)
    assert "at most 1000 are allowed" in refused(options) and store.asked, "and a store may lie"
    monkeypatch.setattr(_mlflow, "MAX_FILES", 1)
    assert "it has more than 1 files" in refused(options)
    assert not [*home.rglob("toy*")]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/nam@live", "no model 'nam'; did you mean 'named'?"),
        ("models:/quite_other/1", "no model 'quite_other'; there are: "),
        ("models:/named/3", "has no version 3; it has versions 1, 2 and aliases live (version 2), old (version 1)"),
        ("models:/named@new", "has no alias 'new'; it has versions 1, 2 and aliases live (version 2)"),
        (
            "models:/named",
            "knows no model = 'models:/named'; allowed is 'models:/name/version' or 'models:/name@alias'",
        ),
        ("models:/named/latest", "allowed is"),
        ("models:/named/0", "allowed is"),
        ("models:/../1", "allowed is"),
        ("models:/a' OR 1=1/1", "allowed is"),
        ("runs:/named/1", "allowed is"),
        (None, "wants model; allowed is"),
    ],
)
def test_what_is_not_in_the_registry_is_told_with_what_is(
    grid: DetectOptions, registry: Registry, model: str | None, message: str
) -> None:
    folder = Path(str(grid.weights)).parent
    if "named" not in {one.name for one in registry.client.search_registered_models()}:
        registry.add("named", folder, alias="old")
        registry.add("named", folder, alias="live")
    assert message in refused(changed(registry.options("x/1"), model=model))


def test_settings_that_mean_nothing_are_refused(
    grid: DetectOptions, grid_onnx: DetectOptions, registry: Registry
) -> None:
    options = registry.add("set", Path(str(grid.weights)).parent)
    assert "backend 'mlflow' wants registry_uri" in refused(changed(options, registry_uri=None))
    assert "no setting weights" in refused(changed(options, weights="a.pt2"))
    with pytest.raises(ModelError, match="has no setting labels"):
        model_id(changed(options, labels=("ant",)))
    with pytest.raises(ModelError, match="classes: dog not among"):
        model_id(changed(options, classes=("dog",)))
    as_onnx = registry.add("set", Path(str(grid_onnx.weights)).parent)
    assert "backend 'onnx' has no setting precision" in refused(changed(as_onnx, precision="bfloat16"))
    with pytest.raises(ModelError, match="has no setting registry_uri"):
        model_id(changed(grid, registry_uri="http://mlflow:5000"))


def test_a_registry_that_does_not_answer_is_an_error_within_seconds(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        port = silent.getsockname()[1]
        options = DetectOptions(
            backend="mlflow", model="models:/parts/1", registry_uri=f"http://me:hunter2@127.0.0.1:{port}/?token=s3cret"
        )
        started = time.monotonic()
        said = [refused(options)]
        assert time.monotonic() - started < 10
    said.append(refused(options))
    assert "timed out" in said[0] and "refused" in said[1]
    for words in (*said, repr(options)):
        assert "hunter2" not in words and "s3cret" not in words
    assert all(f"registry http://127.0.0.1:{port}/ cannot be used" in words for words in said)
    assert capfd.readouterr() == ("", "")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    options = DetectOptions(backend="mlflow", model="models:/parts/1", registry_uri=f"sqlite:///{tmp_path}/typo.db")
    assert "there is no such database" in refused(options)
    assert "the path is not absolute" in refused(changed(options, registry_uri="sqlite:///mlflow.db"))
    assert not [*tmp_path.glob("*.db")]


def test_without_a_home_models_are_kept_where_nobody_else_writes(
    grid: DetectOptions, registry: Registry, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = registry.add("homeless", Path(str(grid.weights)).parent)
    home.write_text("no folder")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert mlflow.describe(options).name == "homeless"
    (root,) = (tmp_path / "temporary").iterdir()
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o777)
    assert "is a folder that this user alone can write" in refused(options)
    shutil.rmtree(root)
    (tmp_path / "theirs").mkdir(mode=0o700)
    root.symlink_to(tmp_path / "theirs")
    assert "is a folder that this user alone can write" in refused(options)


def test_a_pipeline_is_pinned_and_records_no_password(grid: DetectOptions, registry: Registry, tmp_path: Path) -> None:
    from visionlake.errors import ConfigError
    from visionlake.jobs._config import load_pipeline, resolved
    from visionlake.jobs._pipeline import labellers, pin
    from visionlake.jobs.detect_objects import Config

    registry.add("piped", Path(str(grid.weights)).parent, alias="live")
    path = tmp_path / "pipeline.toml"
    section = f'backend = "mlflow"\nmodel = "models:/piped@live"\nregistry_uri = {json.dumps(registry.uri)}\n'
    path.write_text(
        f'lake = "l"\n[detect_objects.a]\n{section}[detect_objects.b]\n{section}[detect_objects.c]\nbackend = "builtin"'
    )
    pipeline = load_pipeline(path)
    pinned = pin(pipeline, only=["detect_objects.a", "detect_objects.c"])
    models = {stage.label: resolved(config)["model"] for stage, config in pinned.stages}
    assert models == {"detect_objects.a": "models:/piped/1", "detect_objects.b": "models:/piped@live",
                      "detect_objects.c": None}  # fmt: skip
    assert pin(pinned, only=["detect_objects.a"]) == pinned
    before = labellers(pinned)
    registry.add("piped", Path(str(grid.weights)).parent, alias="live")
    assert [one == other for one, other in zip(labellers(pinned), before, strict=True)] == [True, False, True]
    with pytest.raises(ConfigError, match=r"\[detect_objects.b\] .*no alias 'live'; it has versions 1, 2"):
        registry.client.delete_registered_model_alias("piped", "live")
        pin(pipeline, only=["detect_objects.b"])
    secret = load_pipeline(path, overrides=['detect_objects.a.registry_uri="http://me:hunter2@h/?k=v"'])
    config = secret.stages[0][1]
    assert isinstance(config, Config)
    assert resolved(config)["registry_uri"] == "http://h/"
    assert "hunter2" not in config.model_dump_json() + repr(config) + repr(secret)
    assert config.options().registry_uri == "http://me:hunter2@h/?k=v"


def test_only_two_places_import_mlflow() -> None:
    root = DOCS.parents[1]
    found = {
        path.relative_to(root).as_posix()
        for folder in ("visionlake", "jobs", "udfs", "expectations")
        for path in (root / folder).rglob("*.py")
        if re.search(r"^\s*(import|from) mlflow", path.read_text(), re.MULTILINE)
    }
    assert {name for name in found if not name.startswith("jobs/_tracking/")} == {"udfs/_mlflow.py"}


def test_a_real_server(grid: DetectOptions, tmp_path: Path) -> None:
    Registry(tmp_path)  # its database: the server takes long to make one
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--artifacts-destination", f"{tmp_path}/files"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([*command, *stores], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        uri = f"http://127.0.0.1:{port}"
        options = register_as_documented(grid, tmp_path, uri)
        assert model_id(options).startswith("parts@1:")
        assert_is_the_same(options, grid)
        assert "no model 'part'; did you mean 'parts'?" in refused(changed(options, model="models:/part@champion"))
        assert "it has versions 1 and aliases" in refused(changed(options, model="models:/parts/2"))
        assert "it has versions 1 and aliases" in refused(changed(options, model="models:/parts@challenger"))
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
