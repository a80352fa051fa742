"""Backend `transformers`: the boxes of a plain call, and models that are not taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toy_networks import changed, detect, pictures
from toy_transformers import save_detr_segmentation, save_maskformer, save_owl_vit
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)

from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions
from visionlake.udfs.masks import Extent
from visionlake.udfs.rle import decode_mask


def refused(options: DetectOptions) -> str:
    with pytest.raises(ModelError) as caught:
        detect(options, *pictures((64, 64)))
    return str(caught.value)


def copied(options: DetectOptions, folder: Path) -> tuple[DetectOptions, Path]:
    shutil.copytree(str(options.weights), folder)
    return changed(options, weights=str(folder)), folder


@pytest.fixture(scope="module")
def owl_vit(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return save_owl_vit(tmp_path_factory.mktemp("transformers") / "owl_vit")


@pytest.fixture(scope="module")
def detr_segmentation(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    options = save_detr_segmentation(tmp_path_factory.mktemp("transformers") / "detr_segmentation")
    return changed(options, task="semantic")


@pytest.fixture(scope="module")
def maskformer(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    return changed(save_maskformer(tmp_path_factory.mktemp("transformers") / "maskformer"), task="semantic")


@pytest.mark.parametrize("kind", ["detr", "rt_detr"])
def test_it_finds_what_a_plain_call_finds(kind: str, request: pytest.FixtureRequest) -> None:
    options: DetectOptions = request.getfixturevalue(kind)
    (image,) = pictures((200, 120))
    processor: Any = AutoImageProcessor.from_pretrained(str(options.weights))
    network: Any = AutoModelForObjectDetection.from_pretrained(str(options.weights)).eval()
    with torch.inference_mode():
        output = network(**processor(images=image, return_tensors="pt"))
    (expected,) = processor.post_process_object_detection(output, threshold=0.3, target_sizes=[(120, 200)])
    inside = expected["boxes"].clamp(min=0).minimum(torch.tensor([200.0, 120.0, 200.0, 120.0]))
    order = expected["scores"].argsort(descending=True, stable=True)
    (found,) = detect(options, image)
    assert len(found.scores) > 3
    np.testing.assert_allclose(found.scores, expected["scores"][order], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, inside[order], rtol=1e-4, atol=1e-3)
    assert found.label_ids.tolist() == expected["labels"][order].tolist()


def test_prompts_are_found_with_the_scores_of_a_plain_call(grounding_dino: DetectOptions) -> None:
    (image,) = pictures((200, 120))
    processor: Any = AutoProcessor.from_pretrained(str(grounding_dino.weights))
    network: Any = AutoModelForZeroShotObjectDetection.from_pretrained(str(grounding_dino.weights)).eval()
    with torch.inference_mode():
        given = processor(images=image, text="red ant. bee. cows.", return_tensors="pt")
        output = network(**given)
    (theirs,) = processor.post_process_grounded_object_detection(
        output, given["input_ids"], threshold=0.3, target_sizes=[(120, 200)]
    )
    words = processor.tokenizer.convert_ids_to_tokens(given["input_ids"][0])
    scores = output.logits[0].sigmoid()[:, : len(words)]
    prompts = [[words.index(word) for word in prompt] for prompt in (("red", "ant"), ("bee",), ("cow", "##s"))]
    expected, labels = torch.stack([scores[:, its].amax(dim=1) for its in prompts]).max(dim=0)
    order = [place for place in expected.argsort(descending=True).tolist() if expected[place] > 0.3]
    (found,) = detect(grounding_dino, image)
    assert len(found.scores) > 3 and len({*found.label_ids.tolist()}) > 1
    np.testing.assert_allclose(found.scores, expected[order], rtol=1e-4)
    assert found.label_ids.tolist() == labels[order].tolist()
    inside = theirs["boxes"].clamp(min=0).minimum(torch.tensor([200.0, 120.0, 200.0, 120.0]))
    for box in found.boxes:
        assert np.abs(inside.numpy() - box).max(axis=1).min() < 0.01


def test_every_box_is_scored_against_every_prompt_as_in_a_plain_call(owl_vit: DetectOptions) -> None:
    (image,) = pictures((200, 120))
    processor: Any = AutoProcessor.from_pretrained(str(owl_vit.weights))
    network: Any = AutoModelForZeroShotObjectDetection.from_pretrained(str(owl_vit.weights)).eval()
    with torch.inference_mode():
        output = network(**processor(images=image, text=[["Red ant", "bee", "cows"]], return_tensors="pt"))
    (expected,) = processor.post_process_grounded_object_detection(output, threshold=0.3, target_sizes=[(120, 200)])
    order = expected["scores"].argsort(descending=True)
    inside = expected["boxes"].clamp(min=0).minimum(torch.tensor([200.0, 120.0, 200.0, 120.0]))
    (found,) = detect(owl_vit, image)
    assert len(found.scores) > 3 and len({*found.label_ids.tolist()}) > 1
    np.testing.assert_allclose(found.scores, expected["scores"][order], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, inside[order], rtol=1e-4, atol=1e-3)
    assert found.label_ids.tolist() == expected["labels"][order].tolist()


def test_what_prompts_find_is_inside_and_the_same_in_a_batch(owl_vit: DetectOptions) -> None:
    images = pictures((64, 64), (50, 80), (200, 30), (64, 64), (7, 7))
    batch, single = detect(owl_vit, *images), detect(owl_vit, *images, together=False)
    assert sum(len(one.scores) for one in batch) > 5
    for found, alone, image in zip(batch, single, images, strict=True):
        assert found.label_ids.tolist() == alone.label_ids.tolist()
        np.testing.assert_allclose(found.boxes, alone.boxes, rtol=1e-4)
        np.testing.assert_allclose(found.scores, alone.scores, rtol=1e-4)
        assert (found.boxes >= 0).all() and (found.boxes <= [*image.size, *image.size]).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all() and (np.diff(found.scores) <= 0).all()


def test_prompts_make_the_model_and_must_be_there(grounding_dino: DetectOptions) -> None:
    assert "set prompts" in refused(changed(grounding_dino, prompts=None))
    assert "leave nothing of ' '" in refused(changed(grounding_dino, prompts=("bee", " ")))
    assert "have 62 tokens; the model takes 32: use fewer" in refused(
        changed(grounding_dino, prompts=("red ant",) * 20)
    )
    backend = find_backend("transformers")
    others = [changed(grounding_dino, prompts=prompts) for prompts in (("bee",), ("bee", "ant"), ("ant", "bee"))]
    assert len({backend.describe(one).model_id(one) for one in (grounding_dino, *others)}) == 4
    assert backend.describe(grounding_dino).labels == ("Red ant", "bee", "cows")


@pytest.mark.parametrize(("kind", "classes"), [("segformer", 3), ("detr_segmentation", 3), ("maskformer", 2)])
def test_regions_are_those_of_a_plain_call(kind: str, classes: int, request: pytest.FixtureRequest) -> None:
    options: DetectOptions = request.getfixturevalue(kind)
    (image,) = pictures((200, 120))
    processor: Any = AutoImageProcessor.from_pretrained(str(options.weights))
    maker = AutoModelForSemanticSegmentation if kind == "segformer" else AutoModelForUniversalSegmentation
    network: Any = maker.from_pretrained(str(options.weights)).eval()
    with torch.inference_mode():
        output = network(**processor(images=image, return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(output, target_sizes=[(120, 200)])
    (found,) = detect(options, image)
    assert found.regions is not None and len(found.regions.masks) == classes
    for label_id, mask in zip(found.regions.label_ids, found.regions.masks, strict=True):
        assert (decode_mask(mask.rle) != (expected == label_id).numpy()).mean() < 1e-3


def test_objects_are_those_of_the_paper_and_near_to_those_of_a_plain_call(mask2former: DetectOptions) -> None:
    """Hugging Face makes masks at 384 x 384 pixels, and enlarges those as they are."""
    (image,) = pictures((96, 64))
    processor: Any = AutoImageProcessor.from_pretrained(str(mask2former.weights))
    network: Any = AutoModelForUniversalSegmentation.from_pretrained(str(mask2former.weights)).eval()
    with torch.inference_mode():
        given = processor(images=image, return_tensors="pt")
        output = network(**given)
        planes = torch.nn.functional.interpolate(output.masks_queries_logits, size=(64, 96), mode="bilinear")[0]
        shares = output.class_queries_logits[0].softmax(dim=-1)[:, :-1]
    (plain,) = processor.post_process_instance_segmentation(
        output, threshold=0.3, target_sizes=[(64, 96)], return_binary_maps=True
    )
    expected = sorted(
        (float(share * plane[plane > 0].sigmoid().mean()), label_id, (plane > 0).numpy())
        for plane, row in zip(planes, shares, strict=True)
        for label_id, share in enumerate(row)
        if share * plane[plane > 0].sigmoid().mean() > 0.3
    )[::-1]
    (found,) = detect(mask2former, image)
    assert found.masks is not None and len(expected) > 3
    np.testing.assert_allclose(found.scores, [score for score, *_ in expected], rtol=1e-4)
    assert found.label_ids.tolist() == [label_id for _, label_id, _ in expected]
    masks = [decode_mask(mask.rle) for mask in found.masks]
    for mask, (*_, plane) in zip(masks, expected, strict=True):
        assert (mask != plane).mean() < 1e-3
    for segment, plane in zip(plain["segments_info"], plain["segmentation"].numpy() == 1, strict=True):
        near = (np.abs(found.scores - segment["score"]) < 0.02) & (found.label_ids == segment["label_id"])
        assert max((masks[i] == plane).mean() for i in np.flatnonzero(near)) > 0.85  # most of it is noise


def test_what_is_padded_is_no_part_of_the_masks(mask2former_semantic: DetectOptions) -> None:
    (image,) = pictures((200, 120))
    processor: Any = AutoImageProcessor.from_pretrained(str(mask2former_semantic.weights))
    network: Any = AutoModelForUniversalSegmentation.from_pretrained(str(mask2former_semantic.weights)).eval()
    processor.pad_size = {"height": 96, "width": 128}
    with torch.inference_mode():
        given = processor(images=image, return_tensors="pt")
        height, width = (int(given["pixel_mask"][0].any(dim=axis).sum()) for axis in (1, 0))
        assert tuple(given["pixel_values"].shape[-2:]) == (96, 128) and height < 96 and width < 128
        output = network(**given)
        shares = output.class_queries_logits.softmax(dim=-1)[..., :-1]
        scores = torch.einsum("bql,bqhw->blhw", shares, output.masks_queries_logits.sigmoid())
        whole = torch.nn.functional.interpolate(scores, size=(96, 128), mode="bilinear")[..., :height, :width]
        expected = torch.nn.functional.interpolate(whole, size=(120, 200), mode="bilinear")[0].argmax(dim=0)
    detector: Any = find_backend("transformers").load(mask2former_semantic)
    detector.processor.pad_size = processor.pad_size
    (found,) = detector.detect([detector.prepare(image)])
    assert found.regions is not None and len(found.regions.masks) > 1
    for label_id, mask in zip(found.regions.label_ids, found.regions.masks, strict=True):
        assert (decode_mask(mask.rle) != (expected == label_id).numpy()).mean() < 0.03  # theirs is interpolated twice


def test_each_pixel_goes_to_one_object_and_what_is_mostly_hidden_goes(mask2former: DetectOptions) -> None:
    detector: Any = find_backend("transformers").load(changed(mask2former, task="panoptic", score_threshold=0.3))
    grids = torch.full((5, 8, 8), -9.0)
    grids[0, :, :4] = 9  # the left half
    grids[1, :, 3:] = 6  # the right part, a column of it shared with the left half, which is surer
    grids[2, :4, :4] = 9  # lies all below the first
    grids[3:] = 9  # likely nothing
    shares = torch.tensor([[0.9, 0.0, 0.0], [0.0, 0.8, 0.0], [0.7, 0.0, 0.0], [0.1, 0.1, 0.1], [0.4, 0.0, 0.0]])
    (image,) = pictures((16, 16))
    found = detector._panoptic(shares, grids, Extent(rows=8, columns=8), detector.prepare(image))
    assert found.label_ids.tolist() == [0, 1] and found.scores.tolist() == pytest.approx([0.9, 0.8])
    left, right = (decode_mask(mask.rle) for mask in found.masks)
    assert not (left & right).any() and left[:, :7].all() and right[:, 9:].all()
    assert found.regions.label_ids.tolist() == [0, 1]
    assert [mask.rle for mask in found.regions.masks] == [mask.rle for mask in found.masks]


def test_suppression_is_there_for_those_who_want_it(detr: DetectOptions) -> None:
    (image,) = pictures((64, 64))
    (every,), (fewer,) = detect(detr, image), detect(changed(detr, nms_iou=0.5), image)
    assert 0 < len(fewer.scores) < len(every.scores) and fewer.scores[0] == every.scores[0]


def test_folders_that_do_not_fit_are_refused_with_their_reason(detr: DetectOptions, tmp_path: Path) -> None:
    assert "wants weights, a model's folder, or model" in refused(changed(detr, weights=None))
    assert "wants weights, a model's folder, or model" in refused(changed(detr, model="a/b"))
    assert "there is no such folder" in refused(changed(detr, weights=str(tmp_path / "none")))
    assert "has no setting labels" in refused(changed(detr, labels=("a",)))
    options, folder = copied(detr, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())

    def with_config(**values: Any) -> str:
        (folder / "config.json").write_text(json.dumps(config | values))
        return refused(options)

    assert "comes with code of its own" in with_config(auto_map={"AutoModel": "evil.Model"})
    assert "no id2label" in with_config(id2label=None)
    assert "is a BertForMaskedLM; allowed are" in with_config(architectures=["BertForMaskedLM"])
    assert "is a model without architectures" in with_config(architectures=None)
    assert "transformers cannot load it" in with_config(model_type="no_such_kind")
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(options)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "has no safetensors" in refused(options)


def test_weights_of_another_network_are_refused_and_not_made_up_by_chance(detr: DetectOptions, tmp_path: Path) -> None:
    options, folder = copied(detr, tmp_path / "odd")
    state = {f"detr.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert "its weights do not fit its config.json" in refused(options)


def test_no_numbers_are_an_error(detr: DetectOptions, tmp_path: Path) -> None:
    options, folder = copied(detr, tmp_path / "bad")
    state = load_file(folder / "model.safetensors")
    state["class_labels_classifier.weight"].fill_(float("nan"))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert "no numbers" in refused(options)


def test_a_model_of_the_hub_that_is_not_here_says_what_to_fetch(
    detr: DetectOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def fetch(repo_id: str, *, revision: str | None, local_files_only: bool = False, **_: Any) -> str:
        assert (repo_id, revision) == ("somebody/detr", "abc")
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    options = changed(detr, weights=None, model="somebody/detr@abc")
    said = refused(options)
    assert "'somebody/detr@abc' cannot be fetched (no network)" in said and "name their folder as weights" in said
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **_: detr.weights)
    assert find_backend("transformers").describe(options).model_id(options).startswith("detr@abc:")
    assert detect(options, Image.new("RGB", (64, 64)))
