"""Small models of Hugging Face's kinds, with weights by chance and processors of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from toy_networks import LABELS, changed
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPTokenizer,
    DetrConfig,
    DetrForObjectDetection,
    DetrForSegmentation,
    DetrImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    MaskFormerImageProcessor,
    OwlViTConfig,
    OwlViTForObjectDetection,
    OwlViTImageProcessor,
    OwlViTProcessor,
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


def save_owl_vit(folder: Path) -> DetectOptions:
    """A score for each prompt and each part of the picture; its vocabulary is of letters."""
    letters = "abcdenorstw"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, model_max_length=16)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1}
    config = OwlViTConfig(
        text_config={**small, **ends, "vocab_size": len(tokens)},
        vision_config={**small, "image_size": 64, "patch_size": 16}, projection_dim=16,
    )  # fmt: skip
    torch.manual_seed(3)
    network: Any = OwlViTForObjectDetection(config).eval()
    boxes, scores = network.box_head, network.class_head
    with torch.no_grad():
        seen = network.image_embedder(torch.randn(4, 3, 64, 64))[0].flatten(0, 2)
        _spread(scores.dense0, seen)
        _spread(scores.logit_shift, seen)
        _spread(scores.logit_scale, seen, by=0.5)
        for layer in (boxes.dense0, boxes.dense1):
            seen = boxes.gelu(layer(seen))
        _spread(boxes.dense2, seen, by=0.5)
    processor = OwlViTProcessor(OwlViTImageProcessor(size={"height": 64, "width": 64}), tokenizer)
    return changed(_save(network, processor, folder), prompts=("Red ant", "bee", "cows"))


def save_detr_segmentation(folder: Path) -> DetectOptions:
    """What DETR puts out, and a mask for each query from what it looks at."""
    backbone = ResNetConfig(**_backbone(["stage1", "stage2", "stage3", "stage4"]))
    sizes: dict[str, Any] = {**SMALL, "d_model": 64, "encoder_attention_heads": 8}  # as few as its masks can have
    torch.manual_seed(15)
    network: Any = DetrForSegmentation(DetrConfig(**sizes, backbone_config=backbone, encoder_layers=1)).eval()
    pictures = torch.randn(4, 3, 96, 96)
    _tell_apart(network.detr)
    with torch.no_grad():
        seen = network(pictures).last_hidden_state.flatten(0, 1)
        _spread(network.detr.class_labels_classifier, seen, by=4.0)
        network.detr.class_labels_classifier.bias[-1] -= 4  # often there is something
        _spread(network.bbox_attention.q_proj, seen)
        network.mask_head.conv1.conv.weight[:, 64:] *= 50  # those of what a query looks at
        last, masks = network.mask_head.output_conv, network(pictures).pred_masks
        last.bias.copy_(4 * (last.bias - masks.mean()) / masks.std() - 4)
        last.weight *= 4 / masks.std()
    return _save(network, DetrImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}), folder)


def save_maskformer(folder: Path) -> DetectOptions:
    """Queries with a mask each; pictures are stretched."""
    backbone = SwinConfig(**_swin(["stage1", "stage2", "stage3", "stage4"]))
    config = MaskFormerConfig(
        backbone_config=backbone, decoder_config=DetrConfig(**{**SMALL, "d_model": 32}), fpn_feature_size=32,
        mask_feature_size=32, id2label=NAMES,
    )  # fmt: skip
    torch.manual_seed(3)
    network: Any = MaskFormerForInstanceSegmentation(config).eval()
    _tell_apart(network)
    with torch.no_grad():
        seen = network.model(torch.randn(4, 3, 64, 64)).transformer_decoder_last_hidden_state.flatten(0, 1)
        _spread(network.class_predictor, seen, by=4.0)
        network.class_predictor.bias[-1] -= 4  # often there is something
        *before, (last, _) = (block.children() for block in network.mask_embedder.children())
        for linear, activation in before:
            seen = activation(linear(seen))
        _spread(last, seen)
    return _save(network, MaskFormerImageProcessor(size={"height": 64, "width": 64}), folder)


def save_small_masks(mask2former: DetectOptions, folder: Path) -> DetectOptions:
    """The same network with smaller masks: less of an object is hidden by others."""
    torch.manual_seed(3)
    before = str(mask2former.weights)
    network: Any = Mask2FormerForUniversalSegmentation.from_pretrained(before).eval()
    *_, (last, _) = (
        block.children() for block in network.model.transformer_module.decoder.mask_predictor.mask_embedder.children()
    )
    with torch.no_grad():
        cells = network.model(torch.rand(4, 3, 64, 64)).pixel_decoder_last_hidden_state.movedim(1, -1).flatten(0, 2)
        last.bias -= torch.linalg.lstsq(cells, torch.ones(len(cells), 1)).solution[:, 0]  # about 1 less in every cell
    return _save(network, Mask2FormerImageProcessor.from_pretrained(before), folder)


@torch.no_grad()
def _tell_apart(network: Any) -> None:
    """Let queries with weights by chance look at different things."""
    for name, weight in network.named_parameters():
        if "quer" in name or "q_proj.weight" in name or "k_proj.weight" in name:
            weight *= 20


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
