"""Small models of Hugging Face's kinds, with weights by chance and processors of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from toy_networks import LABELS
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
)

from visionlake.udfs.detector_types import DetectOptions

NAMES: dict[int, str] = dict(enumerate(LABELS))
SMALL: dict[str, Any] = {
    "d_model": 16, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 12, "id2label": NAMES,
}  # fmt: skip
DETR_SIZE = {"shortest_edge": 48, "longest_edge": 80}


def save_detr(folder: Path) -> DetectOptions:
    """Shares of all labels and of nothing; pictures keep their shape."""
    backbone = ResNetConfig(**_backbone(["stage4"]))
    config = DetrConfig(
        **SMALL, backbone_config=backbone, encoder_layers=1,
    )  # fmt: skip
    torch.manual_seed(3)
    network: Any = DetrForObjectDetection(config).eval()
    with torch.no_grad():
        for name, weight in network.model.named_parameters():
            if "query_position" in name or "q_proj.weight" in name or "k_proj.weight" in name:
                weight *= 20  # or all queries would see the same
    seen = _seen(network)
    _spread(network.class_labels_classifier, seen)
    *before, last = network.bbox_predictor.layers
    for layer in before:
        seen = layer(seen).relu()
    _spread(last, seen, by=0.5)
    return _save(network, DetrImageProcessor(size=DETR_SIZE), folder)


def save_rt_detr(folder: Path) -> DetectOptions:
    """A sigmoid for every label; pictures are stretched."""
    backbone = RTDetrResNetConfig(**_backbone(["stage2", "stage3", "stage4"]), layer_type="basic")
    config = RTDetrConfig(
        **SMALL, backbone_config=backbone, encoder_in_channels=[8, 16, 16], encoder_hidden_dim=16,
        decoder_in_channels=[16, 16, 16], num_denoising=0, hidden_expansion=1.0,
    )  # fmt: skip
    torch.manual_seed(3)
    network: Any = RTDetrForObjectDetection(config).eval()
    _spread(network.model.decoder.class_embed[-1], _seen(network))
    return _save(network, RTDetrImageProcessor(size={"height": 64, "width": 64}), folder)


def _backbone(stages: list[str]) -> dict[str, Any]:
    return {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "out_features": stages}


@torch.no_grad()
def _seen(network: Any) -> torch.Tensor:
    """What the queries know of some pictures: queries x features."""
    return network.model(pixel_values=torch.rand(4, 3, 64, 64)).last_hidden_state.flatten(0, 1)


@torch.no_grad()
def _spread(layer: Any, seen: torch.Tensor, *, by: float = 2.0) -> None:
    """Let a layer with weights by chance say different things of different queries."""
    layer.weight *= by / (seen @ layer.weight.T).std(dim=0)[:, None]
    layer.bias.copy_(-(layer.weight @ seen.mean(dim=0)))


def _save(network: Any, processor: Any, folder: Path) -> DetectOptions:
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return DetectOptions(backend="transformers", weights=str(folder), device="cpu")
