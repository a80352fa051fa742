"""Files of the small networks, for each kind of head and each kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model
from toy_networks import (
    LABELS,
    SIDE,
    DefaultBoxes,
    Grid,
    Plain,
    Queries,
    card_text,
    changed,
    default_corners,
    save,
    save_onnx,
    write_priors,
)
from toy_registry import Registry
from toy_transformers import save_detr, save_grounding_dino, save_mask2former, save_rt_detr, save_segformer

from visionlake.udfs.detector_types import DetectOptions

SSD, LRASPP = "ssdlite320_mobilenet_v3_large", "lraspp_mobilenet_v3_large"
GRID = 'kind = "yolox"\nstrides = [8, 16]\nnms_iou = 0.5\nscore_threshold = 0.2\nmany_labels = true'


def make_grid() -> Grid:
    torch.manual_seed(3)
    return Grid()


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return save(make_grid(), tmp_path_factory.mktemp("grid"), card_text(GRID))


@pytest.fixture(scope="session")
def grid_onnx(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return save_onnx(make_grid(), tmp_path_factory.mktemp("grid_onnx"), card_text(GRID))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    head = 'kind = "boxes_scores_labels"\nbackground_id = 0\nscore_threshold = 0.1\nfirst_label_id = 10'
    scaled = f"width_px = {SIDE}\nheight_px = {SIDE}\n"
    return save(Plain(), tmp_path_factory.mktemp("plain"), card_text(head, input=scaled))


@pytest.fixture(scope="session")
def queries(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    torch.manual_seed(5)
    head = 'kind = "detr"\nbackground_id = 3\nscore_threshold = 0.3'
    return save(Queries(), tmp_path_factory.mktemp("queries"), card_text(head))


@pytest.fixture(scope="session")
def offsets(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("offsets")
    write_priors(default_corners(), folder / "priors.txt")
    head = 'kind = "ssd"\nbox_form = "offsets"\npriors_file = "priors.txt"\nbackground_id = 0\nscore_threshold = 0.4'
    return save(DefaultBoxes(), folder, card_text(head))


@pytest.fixture(scope="session")
def lraspp(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    """A small network of classes, with weights by chance."""
    torch.manual_seed(3)
    network: Any = get_model(LRASPP, weights=None, weights_backbone=None, num_classes=len(LABELS) + 1).eval()
    with torch.no_grad():
        usual = network(torch.randn(2, 3, 128, 128))["out"].mean(dim=(0, 2, 3))
        network.classifier.high_classifier.bias -= usual  # each class is somewhere the likeliest
    path = tmp_path_factory.mktemp("lraspp") / "toy.safetensors"
    save_file(network.state_dict(), path)
    return DetectOptions(
        backend="torchvision", model=LRASPP, weights=str(path), labels=LABELS, task="semantic", device="cpu"
    )


@pytest.fixture(scope="session")
def ssd(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    """Weights by chance, with the statistics of some pictures, so that what it finds depends on what it sees."""
    torch.manual_seed(3)
    network: Any = get_model(SSD, weights=None, weights_backbone=None, num_classes=len(LABELS) + 1).eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = None
    with torch.no_grad():
        network([torch.rand(3, 64, 64) for _ in range(8)])
        for branch in network.head.classification_head.module_list:
            branch[-1].weight *= 3
            branch[-1].bias.view(-1, len(LABELS) + 1)[:, 0] += 4  # mostly there is nothing
    path = tmp_path_factory.mktemp("ssd") / "toy.safetensors"
    save_file(network.state_dict(), path)
    return DetectOptions(backend="torchvision", model=SSD, weights=str(path), labels=LABELS, device="cpu")


@pytest.fixture(scope="session")
def builtin() -> DetectOptions:
    return DetectOptions(backend="builtin", device="cpu")


@pytest.fixture(scope="session")
def builtin_masks(builtin: DetectOptions) -> DetectOptions:
    return changed(builtin, task="instance")


@pytest.fixture(scope="session")
def detr(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return save_detr(tmp_path_factory.mktemp("transformers") / "detr")


@pytest.fixture(scope="session")
def rt_detr(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return save_rt_detr(tmp_path_factory.mktemp("transformers") / "rt_detr")


@pytest.fixture(scope="session")
def grounding_dino(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return save_grounding_dino(tmp_path_factory.mktemp("transformers") / "grounding_dino")


@pytest.fixture(scope="session")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return changed(save_segformer(tmp_path_factory.mktemp("transformers") / "segformer"), task="semantic")


@pytest.fixture(scope="session")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    """Its queries overlap: of objects that own each pixel alone, few are left."""
    options = save_mask2former(tmp_path_factory.mktemp("transformers") / "mask2former")
    return changed(options, task="instance", score_threshold=0.3)


@pytest.fixture(scope="session")
def mask2former_semantic(mask2former: DetectOptions) -> DetectOptions:
    return changed(mask2former, task="semantic", score_threshold=None)


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="session")
def registered_grid(grid: DetectOptions, registry: Registry) -> DetectOptions:
    return registry.add("toy", Path(str(grid.weights)).parent, alias="champion")


@pytest.fixture
def registered(
    registered_grid: DetectOptions, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> DetectOptions:
    """The first network, fetched by its alias into a home that is not the user's."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))
    return registered_grid
