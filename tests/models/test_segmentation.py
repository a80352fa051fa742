"""What every backend that segments keeps to; a new one adds its case to `options`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model
from toy_networks import LABELS, Masks, card_text, changed, detect, save, save_onnx, seen_by
from toy_transformers import save_detr_segmentation, save_maskformer, save_small_masks

from visionlake.udfs import _torchvision
from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions, Instances
from visionlake.udfs.masks import Mask, find_mask
from visionlake.udfs.rle import decode_mask

SIZES = ((64, 64), (50, 60), (64, 64))
MASKRCNN = "maskrcnn_resnet50_fpn"
small_maskrcnn = partial(get_model, min_size=64, max_size=128)


@pytest.fixture(
    params=[
        "lraspp",
        "maskrcnn",
        "segformer",
        "mask2former",
        "mask2former_semantic",
        "mask2former_panoptic",
        "maskformer",
        "detr_segmentation",
        "builtin_masks",
        "exported:box",
        "exported:input",
        "exported:prototypes",
        "exported:detr",
        "onnx:box",
    ]
)
def options(request: pytest.FixtureRequest) -> DetectOptions:
    """A case for every backend, for every task, and for every kind of masks that a card may say."""
    name, _, masks = request.param.partition(":")
    return request.getfixturevalue("carded")(name, masks) if masks else request.getfixturevalue(name)


@pytest.fixture(scope="module")
def maskrcnn_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights by chance, with the statistics of some pictures, so that what it finds depends on what it sees."""
    torch.manual_seed(3)
    count = len(LABELS) + 1
    network: Any = small_maskrcnn(MASKRCNN, weights=None, weights_backbone=None, num_classes=count).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.train().momentum = None
    chooser, seen = network.roi_heads, list[torch.Tensor]()
    chooser.box_predictor.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    with torch.no_grad():
        network.backbone(torch.randn(4, 3, 64, 64))
        chooser.score_thresh = 1.0  # no masks yet
        network.eval()([torch.rand(3, 64, 64)])
        scores, mean = chooser.box_predictor.cls_score, seen[0].mean(dim=0)
        scores.weight *= 1.5 / (seen[0] @ scores.weight.T).std(dim=0)[:, None]
        scores.bias.copy_(-(scores.weight @ mean))
        scores.bias[0] += 3  # mostly there is nothing
        chooser.mask_predictor.mask_fcn_logits.weight *= 30  # some pixels on, some off
    path = tmp_path_factory.mktemp("maskrcnn") / "toy.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture
def maskrcnn(maskrcnn_file: Path, monkeypatch: pytest.MonkeyPatch) -> DetectOptions:
    """It sees pictures of 64 to 128 px: at the 800 px that torchvision gives it, it takes seconds for each."""
    monkeypatch.setattr(_torchvision, "get_model", small_maskrcnn)
    return DetectOptions(
        backend="torchvision", model=MASKRCNN, weights=str(maskrcnn_file), labels=LABELS, task="instance",
        device="cpu", score_threshold=0.4, nms_iou=0.3, max_instances=6,
    )  # fmt: skip


@pytest.fixture(scope="module")
def mask2former_panoptic(mask2former: DetectOptions, tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    options = save_small_masks(mask2former, tmp_path_factory.mktemp("transformers") / "small_masks")
    return changed(options, task="panoptic", score_threshold=0.3)


@pytest.fixture(scope="module")
def maskformer(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    options = save_maskformer(tmp_path_factory.mktemp("transformers") / "maskformer")
    return changed(options, task="instance", score_threshold=0.3)


@pytest.fixture(scope="module")
def detr_segmentation(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    options = save_detr_segmentation(tmp_path_factory.mktemp("transformers") / "detr_segmentation")
    return changed(options, task="instance", score_threshold=0.3)


@pytest.fixture(scope="module")
def carded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], DetectOptions]:
    """Networks with a card, by backend and by what their masks are over; "detr" is that head with masks over all."""

    @cache
    def make(backend: str, masks: str) -> DetectOptions:
        kind, its = ("detr", "input") if masks == "detr" else ("boxes_scores_labels", masks)
        card = card_text(f'kind = "{kind}"\nmasks = "{its}"\nscore_threshold = 0.3')
        saved = {"exported": save, "onnx": save_onnx}[backend]
        return changed(saved(Masks(masks), tmp_path_factory.mktemp(backend), card), task="instance")

    return make


def masks_of(found: Instances) -> tuple[Mask, ...]:
    """The masks of objects, then those of regions; a panoptic model has both."""
    assert found.masks is not None or found.regions is not None
    return (*(found.masks or ()), *(found.regions.masks if found.regions else ()))


def ids_of(found: Instances) -> list[int]:
    """The labels of `masks_of`."""
    return [*found.label_ids.tolist(), *(found.regions.label_ids.tolist() if found.regions else ())]


def test_batch_and_single_agree(options: DetectOptions) -> None:
    images = seen_by(options, *SIZES)
    batch, single = detect(options, *images), detect(options, *images, together=False)
    assert sum(len(masks_of(one)) for one in batch) > 5
    for one, other in zip(batch, single, strict=True):
        assert ids_of(one) == ids_of(other)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
        for mask, same in zip(masks_of(one), masks_of(other), strict=True):
            differing = np.count_nonzero(decode_mask(mask.rle) != decode_mask(same.rle))
            assert differing <= 1e-3 * mask.area_px + 1  # where two scores are equal but for the last bits


def test_masks_are_of_the_pictures_size_and_their_boxes_and_areas_are_theirs(options: DetectOptions) -> None:
    images = seen_by(options, *SIZES)
    for found, image in zip(detect(options, *images), images, strict=True):
        for mask in masks_of(found):
            decoded = decode_mask(mask.rle)
            assert decoded.shape == (image.height, image.width)
            assert find_mask(decoded) == mask  # bit for bit
        if found.masks is not None:
            assert found.boxes.tolist() == [[*mask.box] for mask in found.masks]
            assert len(found.masks) == len(found.scores) == len(found.label_ids)
            assert (np.diff(found.scores) <= 0).all()


def test_each_pixel_belongs_to_one_class(options: DetectOptions) -> None:
    for found in detect(options, *seen_by(options, *SIZES)):
        if found.regions is not None:
            ids = found.regions.label_ids.tolist()
            assert len({*ids}) == len(ids)
            assert np.sum([decode_mask(mask.rle) for mask in found.regions.masks], axis=0).max() == 1
            assert options.task == "panoptic" or (len(found.scores) == 0 and found.masks is None)


def test_classes_to_keep(options: DetectOptions) -> None:
    images, info = seen_by(options, *SIZES), find_backend(options.backend).describe(options)
    everything = detect(options, *images)
    label = "car" if options.backend == "builtin" else "bee"
    wanted = info.first_label_id + info.labels.index(label)
    kept = detect(changed(options, classes=(label,)), *images)
    assert any({*ids_of(one)} - {wanted} for one in everything)
    for one, all_of_it in zip(kept, everything, strict=True):
        assert ids_of(one) == [found for found in ids_of(all_of_it) if found == wanted]
    assert any(ids_of(one) for one in kept)


def test_the_task_is_part_of_the_id_and_must_be_one_that_the_model_can_do(options: DetectOptions) -> None:
    backend = find_backend(options.backend)

    def model_id(task: str) -> str:
        chosen = changed(options, task=task, score_threshold=None)
        return backend.describe(chosen).model_id(chosen)

    tasks = backend.describe(options).tasks
    assert len({model_id(task) for task in tasks}) == len(tasks)
    assert model_id("segmentation") == model_id(next(task for task in tasks if task != "detection"))
    if "detection" not in tasks:
        with pytest.raises(ModelError, match=r"task 'detection': model \S+ does .*segment_objects"):
            model_id("detection")


def test_a_model_of_boxes_does_not_segment(ssd: DetectOptions) -> None:
    with pytest.raises(ModelError, match=r"task 'segmentation': model \S+ does detection; .*detect_objects"):
        find_backend(ssd.backend).describe(ssd).model_id(changed(ssd, task="segmentation"))
