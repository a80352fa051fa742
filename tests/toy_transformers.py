"""Small models of Hugging Face's kinds, with weights by chance and processors of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from toy_networks import LABELS, changed
from transformers import (
    BertConfig,
    BertTokenizer,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    ResNetConfig,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    SwinConfig,
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


def save_segformer(folder: Path) -> DetectOptions:
    """Scores of every label on a coarse grid."""
    config = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16, num_attention_heads=[1, 1, 2, 2],
        id2label=NAMES,
    )  # fmt: skip
    torch.manual_seed(3)
    network: Any = SegformerForSemanticSegmentation(config).eval()
    head = network.decode_head
    head.classifier.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    seen: list[torch.Tensor] = []
    network(pixel_values=torch.rand(4, 3, 64, 64))
    head.classifier._forward_pre_hooks.clear()
    flat = seen[0].detach().permute(0, 2, 3, 1).flatten(0, 2)
    with torch.no_grad():
        head.classifier.bias.copy_(-(head.classifier.weight[:, :, 0, 0] @ flat.mean(dim=0)))
    return _save(network, SegformerImageProcessor(size={"height": 64, "width": 64}), folder)


def save_mask2former(folder: Path) -> DetectOptions:
    """Queries with a mask each; pictures keep their shape and are padded to multiples of 32."""
    backbone = SwinConfig(**_swin(["stage1", "stage2", "stage3", "stage4"]))
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=12, id2label=NAMES,
    )  # fmt: skip
    torch.manual_seed(3)
    network: Any = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        seen = network.model(torch.rand(4, 3, 64, 64)).transformer_decoder_last_hidden_state.flatten(0, 1)
        _spread(network.class_predictor, seen, by=4.0)
        network.class_predictor.bias[-1] -= 4  # often there is something
        embedder = network.model.transformer_module.decoder.mask_predictor.mask_embedder
        *before, (last, _) = (block.children() for block in embedder.children())
        for linear, activation in before:
            seen = activation(linear(seen))
        _spread(last, seen)
    processor = Mask2FormerImageProcessor(size={"shortest_edge": 48, "longest_edge": 80}, size_divisor=32)
    return _save(network, processor, folder)


def save_grounding_dino(folder: Path) -> DetectOptions:
    """Boxes for what a text names: its vocabulary has the labels, some letters and what prompts are divided by."""
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "red", *LABELS, "##s"]
    (folder / "vocab.txt").write_text("\n".join(words))
    text = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64,
    )  # fmt: skip
    backbone = SwinConfig(**_swin(["stage2", "stage3", "stage4"]))
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, encoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_layers=2, decoder_ffn_dim=32, decoder_attention_heads=2, num_queries=12,
        max_text_len=32,
    )  # fmt: skip
    torch.manual_seed(3)
    network: Any = GroundingDinoForObjectDetection(config).eval()
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}),
        BertTokenizer(vocab=str(folder / "vocab.txt")),
    )
    return changed(_save(network, processor, folder), prompts=("Red ant", "bee", "cows"))


def _backbone(stages: list[str]) -> dict[str, Any]:
    return {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "out_features": stages}


def _swin(stages: list[str]) -> dict[str, Any]:
    heads = {"depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 4}
    return {"image_size": 64, "embed_dim": 8, **heads, "out_features": stages}


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
