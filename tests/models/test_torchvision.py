"""Backend `torchvision`: the boxes of a plain loop, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import get_model
from torchvision.transforms.functional import normalize
from toy_networks import LABELS, changed, detect, pictures

from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions
from visionlake.udfs.masks import paste_mask
from visionlake.udfs.rle import decode_mask

LRASPP = "lraspp_mobilenet_v3_large"


def state_of(options: DetectOptions) -> dict[str, torch.Tensor]:
    return load_file(str(options.weights))


def refused(options: DetectOptions) -> str:
    with pytest.raises(ModelError) as caught:
        backend = find_backend(options.backend)
        backend.describe(options).model_id(options)
        detector = backend.load(options)
        detector.detect([detector.prepare(Image.new("RGB", (64, 64)))])
    return str(caught.value)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".trained.pth"])
def test_it_finds_what_a_plain_call_finds(ssd: DetectOptions, tmp_path: Path, ending: str) -> None:
    (image,) = pictures((200, 120))
    network: Any = get_model(str(ssd.model), weights=None, weights_backbone=None, num_classes=len(LABELS) + 1)
    network.load_state_dict(state_of(ssd))
    with torch.inference_mode():
        (expected,) = network.eval()([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255])
    path = tmp_path / f"mine{ending}"
    if ending == ".safetensors":
        save_file(state_of(ssd), path)
    else:
        torch.save(state_of(ssd) if ending == ".pth" else {"model": state_of(ssd), "epoch": 3}, path)
    options = changed(ssd, weights=str(path), score_threshold=network.score_thresh, nms_iou=network.nms_thresh)
    (found,) = detect(changed(options, max_instances=network.detections_per_img), image)
    assert len(found.scores) > 10
    np.testing.assert_allclose(found.scores, expected["scores"], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, expected["boxes"], rtol=1e-4, atol=1e-3)
    assert (found.label_ids == expected["labels"].numpy()).mean() > 0.99  # equal scores may change places


@pytest.mark.long
def test_masks_are_those_of_a_plain_call(tmp_path: Path) -> None:
    torch.manual_seed(3)
    name = "maskrcnn_resnet50_fpn"
    network: Any = get_model(name, weights=None, weights_backbone=None, num_classes=len(LABELS) + 1).eval()
    with torch.no_grad():
        network.roi_heads.mask_predictor.mask_fcn_logits.weight *= 300  # some pixels on, some off
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    (image,) = pictures((200, 24))
    network.roi_heads.score_thresh, network.roi_heads.nms_thresh = 0.05, 0.5
    raw: list[torch.Tensor] = []
    network.roi_heads.register_forward_hook(lambda _module, _given, found: raw.append(found[0][0]["masks"][:, 0]))
    with torch.inference_mode():
        (expected,) = network([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255])
    options = DetectOptions(
        backend="torchvision", model=name, weights=str(tmp_path / "mine.safetensors"), labels=LABELS, device="cpu",
        task="instance", score_threshold=float(expected["scores"][7:9].mean()),
    )  # fmt: skip
    (found,) = detect(options, image)
    assert found.masks is not None and len(found.masks) == 8
    np.testing.assert_allclose(found.scores, expected["scores"][:8], rtol=1e-4)
    for place, mask in enumerate(found.masks):
        ours, theirs = decode_mask(mask.rle), expected["masks"][place, 0].numpy() >= 0.5
        pasted = paste_mask(raw[0][place], expected["boxes"][place].double().numpy(), size=(24, 200))
        assert pasted is not None and (decode_mask(pasted.rle) != ours).sum() <= 0.02 * mask.area_px
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.5  # these are noise, and they round small boxes
    (boxes,) = detect(changed(options, task="detection"), image)
    assert boxes.masks is None and boxes.scores.tolist() == found.scores.tolist()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_boxes_stay_inside_whatever_the_precision(tmp_path: Path, precision: Any) -> None:
    """Where a picture is scaled, the way back is rounded: its edge may come out beyond the edge."""
    torch.manual_seed(3)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    network: Any = get_model(name, weights=None, weights_backbone=None, num_classes=len(LABELS) + 1)
    with torch.no_grad():
        network.roi_heads.box_predictor.bbox_pred.bias[2::2] += 30  # boxes as large as can be, cut off at the edges
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    options = DetectOptions(
        backend="torchvision", model=name, weights=str(tmp_path / "mine.safetensors"), labels=LABELS, device="cpu",
        score_threshold=0.2, precision=precision, max_instances=5,
    )  # fmt: skip
    for size in ((640, 480), (320, 240), (480, 640), (1280, 960)):
        (found,) = detect(options, Image.new("RGB", size, "grey"))
        assert len(found.boxes) and found.boxes.min() >= 0 and (found.boxes <= [*size, *size]).all()
        assert (np.abs(found.boxes[:, 2:] - size) < 1).any()


def test_classes_are_those_of_a_plain_call(lraspp: DetectOptions) -> None:
    (image,) = pictures((600, 520))  # as large as the network takes it
    network: Any = get_model(LRASPP, weights=None, weights_backbone=None, num_classes=len(LABELS) + 1).eval()
    network.load_state_dict(state_of(lraspp))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    with torch.inference_mode():
        given = normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        expected = network(given[None])["out"][0].argmax(dim=0)
    (found,) = detect(lraspp, image)
    assert found.regions is not None and len(found.regions.masks) > 1 and 0 not in found.regions.label_ids
    for label_id, mask in zip(found.regions.label_ids, found.regions.masks, strict=True):
        assert (decode_mask(mask.rle) != (expected == label_id).numpy()).mean() < 1e-3


def test_what_does_not_fit_is_refused_with_its_reason(ssd: DetectOptions, tmp_path: Path) -> None:
    assert "wants model, the name of a builder; there are: fasterrcnn_" in refused(changed(ssd, model=None))
    assert "knows no model 'resnet18'" in refused(changed(ssd, model="resnet18"))
    assert "want labels" in refused(changed(ssd, labels=None))
    assert "do not fit ssdlite320_mobilenet_v3_large with 2 labels" in refused(changed(ssd, labels=("a", "b")))
    assert "there is no such file" in refused(changed(ssd, weights=str(tmp_path / "a.pth")))
    assert "has COCO_V1, DEFAULT; or give a file" in refused(changed(ssd, weights="COCO_V9", labels=None))
    (tmp_path / "a.pth").write_bytes(b"nothing of the kind")
    assert "cannot be read as tensors alone" in refused(changed(ssd, weights=str(tmp_path / "a.pth")))
    torch.save([1, 2], tmp_path / "a.pth")
    assert "hold no tensors by name" in refused(changed(ssd, weights=str(tmp_path / "a.pth")))


def test_a_pickle_that_would_run_code_runs_none(ssd: DetectOptions, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"weight": Harmful()}, tmp_path / "a.pth")
    assert "cannot be read as tensors alone" in refused(changed(ssd, weights=str(tmp_path / "a.pth")))
    assert not (tmp_path / "touched").exists()


def test_no_numbers_are_an_error_and_not_an_empty_picture(ssd: DetectOptions, tmp_path: Path) -> None:
    state = state_of(ssd)
    for name in state:
        if "classification_head" in name and name.endswith("weight"):
            state[name] = torch.full_like(state[name], float("nan"))
    save_file(state, tmp_path / "a.safetensors")
    assert "no numbers" in refused(changed(ssd, weights=str(tmp_path / "a.safetensors")))


def test_weights_of_torchvision_are_taken_from_its_folder_or_asked_for(
    ssd: DetectOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    options = changed(ssd, weights="COCO_V1", labels=None)
    said = refused(options)
    assert "cannot be fetched (no network); put https://download.pytorch.org/" in said and str(tmp_path) in said
    network = get_model(str(ssd.model), weights=None, weights_backbone=None)
    torch.save(network.state_dict(), said.rpartition(" at ")[2])
    info = find_backend("torchvision").describe(options)
    assert (info.version, info.labels[0], len(info.labels)) == ("COCO_V1", "person", 90)
    assert find_backend("torchvision").load(options).labels == info.labels
    assert "leave labels out" in refused(changed(options, labels=LABELS))
