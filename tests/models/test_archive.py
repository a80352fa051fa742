"""Archives from outside: the good ones load, and none runs code, wherever it is hidden."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from visionlake.udfs._archive import load_archive
from visionlake.udfs._errors import ModelError

Edit = Callable[[dict[str, bytes]], object]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=2)
        self.register_buffer("shift", torch.arange(4.0).view(1, 4, 1, 1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return (self.convolution(pictures).relu() + self.shift).flatten(2).permute(0, 2, 1)


class Writes:
    """Pickled, it writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("archive") / "small.pt2"
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Small().eval(), (torch.rand(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that harmful archives try to write."""
    return tmp_path / "mark"


def tampered(archive: Path, target: Path, edit: Edit) -> Path:
    with zipfile.ZipFile(archive) as source:
        parts = {info.filename.partition("/")[2]: source.read(info) for info in source.infolist()}
    edit(parts)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as written:
        for name, part in parts.items():
            written.writestr(name if name.startswith("..") else f"small/{name}", part)
    return target


def edit_json(name: str, change: Callable[[Any], None]) -> Edit:
    def edit(parts: dict[str, bytes]) -> None:
        value = json.loads(parts[name])
        change(value)
        parts[name] = json.dumps(value).encode()

    return edit


def test_a_good_archive_gives_what_the_module_gives(archive: Path) -> None:
    torch.manual_seed(0)
    module, pictures = Small().eval(), torch.rand(5, 3, 32, 32)
    network = load_archive(archive).module(check_guards=False)
    assert torch.allclose(network(pictures), module(pictures))


class Chooses(nn.Module):
    """Torch writes assertions with sentences, and equations, into graphs such as this one's."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        mixed = torch.einsum("bchw,cd->bdhw", pictures, torch.eye(3))
        scores = mixed.mean(dim=(1, 2)).flatten()
        boxes = torch.stack([scores, scores, scores + 1, scores + 1], dim=1)
        return boxes[torchvision.ops.nms(boxes, scores, 0.5)]


def test_a_network_that_chooses_its_boxes_itself_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pictures, path = torch.rand(1, 3, 32, 32), tmp_path / "chooses.pt2"
    torch.export.save(torch.export.export(Chooses().eval(), (pictures,)), path)
    assert "Runtime assertion" in zipfile.ZipFile(path).read("chooses/models/model.json").decode()
    found = load_archive(path).module(check_guards=False)(pictures)
    assert torch.allclose(found, Chooses()(pictures)) and 0 < len(found) < 32


def test_example_inputs_are_not_kept(archive: Path) -> None:
    assert load_archive(archive).example_inputs is None


def put(name: str, content: bytes) -> Edit:
    return lambda parts: parts.__setitem__(name, content)


REASONS = {
    "a pickled weight": "is pickled", "an opaque object": "unknown or may run code",
    "example inputs": "does not load with",
    "an entry that torch does not know": "unknown or may run code", "compiled code": "unknown or may run code",
    "an entry outside": "not in one folder", "a weight elsewhere": "no entry of weights",
    "a call of torch": r"its graph calls 'torch\.hub", "a call of math": r"its graph calls 'math\.__loader__",
    "a file mapped": r"its graph calls 'torch\.ops\.aten\.from_file", "an extension": "its graph calls '#anything'",
    "a call in a graph of a graph": r"its graph calls 'torch\.hub", "a name": "no plain name",
    "a size": "no plain expression", "a size that takes for ever to match": "no plain expression",
    "a size that takes for ever to evaluate": "no plain expression", "a power of powers": "no plain expression",
    "training": "exported for training", "a message": "not printable",
    "two graphs": "holds the models", "no graph": "holds the models", "a graph that is no JSON": "Expecting",
    "a graph of other things": "list indices", "a deep graph": "recursion",
}  # fmt: skip


def harmful_edits(mark: Path) -> dict[str, Edit]:
    bad, code = pickle.dumps(Writes(str(mark))), f"__import__('os').system('touch {mark}')"
    graph = "models/model.json"

    def pickled_weight(parts: dict[str, bytes]) -> None:
        name = "data/weights/model_weights_config.json"
        config = json.loads(parts[name])
        payload = next(iter(config["config"].values()))
        payload["use_pickle"] = True
        parts[f"data/weights/{payload['path_name']}"] = bad
        parts[name] = json.dumps(config).encode()

    def opaque(parts: dict[str, bytes]) -> None:
        name = "data/constants/model_constants_config.json"
        payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        parts[name] = json.dumps({"config": {"thing": payload}}).encode()
        parts["data/constants/opaque_obj_0"] = bad

    def elsewhere(config: Any) -> None:
        next(iter(config["config"].values()))["path_name"] = "../../../etc/passwd"

    def call(target: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            node = model["graph_module"]["graph"]["nodes"][0]
            node["target"] = target
            node["inputs"] = [{"name": "f", "arg": {"as_string": f"touch {mark}"}, "kind": 1}]

        return change

    def rename(model: Any) -> None:
        """An input of the graph with a name that is code, as a default value of a parameter."""
        text = json.dumps(model)
        name = model["graph_module"]["signature"]["input_specs"][-1]["user_input"]["arg"]["as_tensor"]["name"]
        model.update(json.loads(text.replace(f'"{name}"', json.dumps(f"x={code}"))))

    def expression(text: str) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            for value in model["graph_module"]["graph"]["tensor_values"].values():
                for size in value["sizes"]:
                    if "as_expr" in size:
                        size["as_expr"]["expr_str"] = text

        return change

    def given(argument: dict[str, Any]) -> Callable[[Any], None]:
        return lambda model: model["graph_module"]["graph"]["nodes"][0]["inputs"].append(argument)

    inner = {"nodes": [{"target": "torch.hub.os.system", "inputs": [], "outputs": [], "metadata": {}}]}
    return {
        "a pickled weight": pickled_weight,
        "an opaque object": opaque,
        "example inputs": put("data/sample_inputs/model.pt", bad),
        "an entry that torch does not know": put("data/extra.bin", b"?"),
        "compiled code": put("data/aotinductor/model/x.so", b"\x7fELF"),
        "an entry outside": put("../mark", b"?"),
        "a weight elsewhere": edit_json("data/weights/model_weights_config.json", elsewhere),
        "a call of torch": edit_json(graph, call("torch.hub.os.system")),
        "a call of math": edit_json(graph, call("math.__loader__.load_module")),
        "a file mapped": edit_json(graph, call("torch.ops.aten.from_file.default")),
        "an extension": edit_json(graph, call("#anything")),
        "a name": edit_json(graph, rename),
        "a call in a graph of a graph": edit_json(
            graph, given({"name": "f", "arg": {"as_graph": {"name": "g", "graph": inner}}, "kind": 1})
        ),
        "training": edit_json(graph, given({"name": "training", "arg": {"as_bool": True}, "kind": 1})),
        "a message": edit_json(graph, given({"name": "m", "arg": {"as_string": "a\nb"}, "kind": 1})),
        "a size": edit_json(graph, expression(code)),
        "a size that takes for ever to match": edit_json(graph, expression("1" * 60 + "!")),
        "a size that takes for ever to evaluate": edit_json(graph, expression("9**9**9**9")),
        "a power of powers": edit_json(graph, expression("Pow(9, Pow(9, 9))")),
        "two graphs": put("models/other.json", b"{}"),
        "no graph": lambda parts: parts.pop(graph) and None,
        "a graph that is no JSON": put(graph, b"{"),
        "a graph of other things": put(graph, b"[1]"),
        "a deep graph": put(graph, b"[" * 100_000),
    }


@pytest.mark.parametrize("kind", harmful_edits(Path("/nowhere")))
def test_a_harmful_or_damaged_archive_is_refused_and_does_nothing(
    archive: Path, tmp_path: Path, mark: Path, kind: str
) -> None:
    path = tampered(archive, tmp_path / "bad.pt2", harmful_edits(mark)[kind])
    with pytest.raises(
        ModelError, match=rf"bad\.pt2 is no torch\.export archive that can be loaded: .*{REASONS[kind]}"
    ):
        load_archive(path)
    assert not mark.exists() and not (tmp_path.parent / "mark").exists()


def test_code_that_checks_sizes_is_left_out(archive: Path, tmp_path: Path, mark: Path) -> None:
    code = f"__import__('os').system('touch {mark}')"
    edit = edit_json("models/model.json", lambda model: model.update(guards_code=[code]))
    program = load_archive(tampered(archive, tmp_path / "guarded.pt2", edit))
    program.module()(torch.rand(1, 3, 32, 32))
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no zip", b"\x80\x04."])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"other\.pt2 is no torch\.export archive"):
        load_archive(path)


def test_compressed_entries_are_refused(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as written:
        for info in source.infolist():
            written.writestr(info.filename, source.read(info))
    with pytest.raises(ModelError, match="compressed"):
        load_archive(path)
