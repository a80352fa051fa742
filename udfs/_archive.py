"""Loads `torch.export` archives (`.pt2`) that nobody has vouched for.

Such an archive can run code when it is loaded, in more ways than by pickled entries: names, targets and symbolic
expressions of its graph become Python source or are evaluated. So the archive is looked into first, and what torch gets
to read is a new archive, put together from the parts that were understood and found harmless. Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._errors import ModelError, first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MAX_BYTES = 4 << 30
MAX_ENTRIES = 50_000
MAX_GRAPH_BYTES = 256 << 20

_ENTRY = re.compile(
    r"archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id"
    r"|models/(?P<model>\w+)\.json|data/weights/(?:weight_\d+|\w+_weights_config\.json)"
    r"|data/constants/(?:tensor_\d+|\w+_constants_config\.json)|data/sample_inputs/\w+\.pt"
)
_PAYLOAD = re.compile(r"(?:weight|tensor)_\d+")
_TEXT = re.compile(r"[\w.:+-]*")
_TARGET = re.compile(
    r"torch\.ops\.(?:aten|prims|torchvision)\.\w+\.\w+|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|neg|pow"
    r"|eq|ne|lt|le|gt|ge|and_|or_)|torch\.sym_(?:not|min|max|float|int|ite|sqrt)|math\.(?:floor|ceil|trunc)"
)
_REFUSED = re.compile(r"torch\.ops\.aten\.(?:from_file|_?print|save|load)\b.*")  # they reach out of the graph
_MESSAGE = re.compile(r"[\x20-\x7e]{0,500}")
_FUNCTIONS = (
    "Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|Integer|Add|Mul|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not"
    "|GreaterThan|LessThan|StrictGreaterThan|StrictLessThan|Equality|Unequality"
)
_SYMBOL = r"Symbol\('\w{1,20}'(?:, \w{1,20}=(?:True|False))*+\)|[su]\d{1,9}(?!\d)"
_EXPRESSION = re.compile(  # possessive, and no power but of a symbol: neither matching nor evaluating takes long
    rf"(?:{_SYMBOL}|(?:{_FUNCTIONS})(?=\()|Pow\((?:{_SYMBOL}), (?:Integer\([1-4]\)|[1-4])\)|\d{{1,18}}(?!\d)"
    r"|\*(?!\*)|[-+/%(), <>=])*+"
)
_TRAINING = ("training", "train")  # how batch normalisation and dropout call it
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


def load_archive(path: str | Path) -> ExportedProgram:
    """The program of a `.pt2` file. Raises ModelError for an archive that is damaged, too large or not understood."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ModelError(f"{path} has {size} bytes; at most {MAX_BYTES} are allowed")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    try:
        clean = _cleaned(content)
    except Exception as error:  # whatever comes up: what is not understood is not loaded
        raise ModelError(f"{path} is no torch.export archive that can be loaded: {error}") from error
    from torch.export import load

    try:
        return load(io.BytesIO(clean))
    except Exception as error:  # torch raises whatever comes up inside
        raise ModelError(f"{path}: torch cannot load it: {first_line(error)}") from error


def _cleaned(content: bytes) -> bytes:
    """The archive, rebuilt from what is understood. Raises ValueError that names what is not."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root, names = _entries(archive)
        parts = {name: archive.read(f"{root}/{name}") for name in names}
    models = [name for name in names if name.startswith("models/")]
    if models != ["models/model.json"]:
        raise ValueError(f"it holds the models {models}; allowed is one, models/model.json")
    for name in names:
        if name.endswith("_config.json"):
            _check_payloads(name, json.loads(parts[name]), {*names})
        elif name.startswith("data/sample_inputs/"):
            _check_sample(name, parts[name])
            parts[name] = b""  # not needed
    parts["models/model.json"] = json.dumps(_clean_graph(json.loads(parts["models/model.json"]))).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(f"{root}/{name}", part)
    return target.getvalue()


def _entries(archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    """The folder that all entries are in, and their names in it."""
    infos = archive.infolist()
    if not 0 < len(infos) <= MAX_ENTRIES:
        raise ValueError(f"it has {len(infos)} entries; allowed are 1 to {MAX_ENTRIES}")
    root = infos[0].filename.partition("/")[0]
    names = []
    for info in infos:
        folder, _, name = info.filename.partition("/")
        if folder != root or not re.fullmatch(r"[\w.-]+", root) or root in (".", ".."):
            raise ValueError(f"entry {info.filename!r} is not in one folder with the others")
        if not _ENTRY.fullmatch(name):
            raise ValueError(f"entry {name!r} is unknown or may run code; allowed are weights, constants and one graph")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_BYTES:
            raise ValueError(f"entry {name!r} is compressed or too large")
        if name.startswith("models/") and info.file_size > MAX_GRAPH_BYTES:
            raise ValueError(f"entry {name!r} has {info.file_size} bytes; at most {MAX_GRAPH_BYTES} are allowed")
        names.append(name)
    if len({*names}) != len(names):
        raise ValueError("two entries have the same name")
    return root, names


def _check_payloads(name: str, config: Mapping[str, Any], names: set[str]) -> None:
    """Refuse weights and constants that are anything but plain numbers in an entry of their own."""
    folder = name.rpartition("/")[0]
    for key, payload in config["config"].items():
        if payload["use_pickle"] is not False:
            raise ValueError(f"{name}: {key!r} is pickled, and to unpickle it may run code")
        where = payload["path_name"]
        if not _PAYLOAD.fullmatch(where) or f"{folder}/{where}" not in names:
            raise ValueError(f"{name}: {key!r} lies in {where!r}, which is no entry of weights or constants")
        _check_text(key)
        _check_values(payload)


def _check_sample(name: str, part: bytes) -> None:
    """Refuse example inputs that torch would read by unpickling, though they are left out: somebody meant harm."""
    import torch

    if not part:
        return
    try:
        torch.load(io.BytesIO(part), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever comes up inside
        raise ValueError(f"{name} does not load with weights_only=True, and to unpickle it may run code") from error


def _clean_graph(model: dict[str, Any]) -> dict[str, Any]:
    """The graph without what is only for people; every text in it is one that cannot be code."""
    graph_module = model["graph_module"]
    model["guards_code"] = []  # source code; what the card says of sizes is checked by us
    model["torch_version"] = ""
    graph_module["metadata"] = {}
    if graph_module.get("treespec_namedtuple_fields"):
        raise ValueError("its inputs or outputs are named tuples; allowed are tensors in tuples, lists and dicts")
    for entry in graph_module["module_call_graph"]:
        signature = entry.get("signature") or {}
        for side in ("in_spec", "out_spec"):
            if side in signature:
                _check_tree(json.loads(signature[side])[1])
                signature[side] = json.dumps(json.loads(signature[side]))
    for node in _nodes(graph_module["graph"]):
        node["metadata"] = {}
        target = node["target"]
        if not _TARGET.fullmatch(target) or _REFUSED.fullmatch(target):
            raise ValueError(f"its graph calls {target!r}; allowed are torch's own operations on tensors")
        if any(given["name"] in _TRAINING and given["arg"].get("as_bool") for given in node["inputs"]):
            raise ValueError(f"it was exported for training ({target}); call eval() on the model before the export")
    _check_values({**model, "graph_module": {**graph_module, "module_call_graph": _without_specs(graph_module)}})
    return model


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """The nodes of a graph and of the graphs inside it."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name == "nodes":
            yield from item
        yield from _nodes(item)


def _without_specs(graph_module: Mapping[str, Any]) -> list[Any]:
    calls = []
    for entry in graph_module["module_call_graph"]:
        signature = entry.get("signature")
        kept = {k: v for k, v in signature.items() if k not in ("in_spec", "out_spec")} if signature else signature
        calls.append({**entry, "signature": kept})
    return calls


def _check_tree(spec: Mapping[str, Any]) -> None:
    """How inputs and outputs are nested: builtin containers only."""
    if spec["type"] not in _TREE_TYPES:
        raise ValueError(f"its inputs or outputs are a {spec['type']!r}; allowed are tuples, lists and dicts")
    context = spec["context"]
    if context is not None:
        keys = json.loads(context)
        for key in keys if isinstance(keys, list) else [] if keys is None else [keys]:
            _check_text(key if isinstance(key, str) else "?!")
    for child in spec["children_spec"]:
        _check_tree(child)


def _check_values(value: Any) -> None:
    for key, text in _texts(value, key=""):
        if key == "expr_str":
            if len(text) > 1000 or not _EXPRESSION.fullmatch(text):
                raise ValueError(f"the size {text[:80]!r} in its graph is no plain expression")
        elif key in ("as_string", "as_strings"):  # arguments of operations; torch writes them as literals
            if not _MESSAGE.fullmatch(text):
                raise ValueError(f"the text {text[:80]!r} in its graph is not printable, or too long")
        else:
            _check_text(text)


def _check_text(text: str) -> None:
    if len(text) > 500 or not _TEXT.fullmatch(text):
        raise ValueError(f"the text {text[:80]!r} in it is no plain name")


def _texts(value: Any, *, key: str) -> Iterator[tuple[str, str]]:
    """All texts in a JSON value, each with the key it stands under; keys are texts, too."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield "", name
            yield from _texts(item, key=name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key=key)
