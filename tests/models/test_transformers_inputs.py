"""Backend `transformers`: 16 bits, batches of pictures of many sizes, tiny pictures, and files that break off."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_networks import changed, detect, pictures
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from visionlake.udfs._errors import ModelError
from visionlake.udfs._transformers import Boxes
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detector_types import DetectOptions


def loaded(options: DetectOptions) -> Any:
    return find_backend(options.backend).load(options)


@pytest.mark.parametrize("kind", ["detr", "rt_detr", "grounding_dino"])
def test_edges_are_not_rounded_where_a_model_computes_in_16_bits(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = changed(request.getfixturevalue(kind), precision="bfloat16", score_threshold=0.0)
    detector, seen = loaded(options), []
    plain = type(detector)._found

    def spied(self: Boxes, output: Any, given: Any, batch: Any) -> Any:
        seen.append(output.pred_boxes)
        return plain(self, output, given, batch)

    monkeypatch.setattr(type(detector), "_found", spied)
    detector.detect([detector.prepare(pictures((200, 120))[0])])
    (boxes,) = seen
    assert boxes.dtype == torch.float32
    assert (boxes.bfloat16().float() != boxes).float().mean() > 0.9  # not what 16 bits can tell, in wider clothes


def test_pictures_of_many_sizes_share_a_batch_where_the_model_brings_them_to_one(
    rt_detr: DetectOptions, detr: DetectOptions
) -> None:
    images = pictures((200, 120), (64, 64), (90, 210))
    detector = loaded(rt_detr)
    prepared = [detector.prepare(image) for image in images]
    assert len({one.bucket for one in prepared}) == 1
    together, alone = detector.detect(prepared), [detector.detect([one])[0] for one in prepared]
    for found, expected in zip(together, alone, strict=True):
        assert len(expected.scores) > 3
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
    by_side = loaded(detr)  # its processor keeps the shape of a picture
    assert len({by_side.prepare(image).bucket for image in images}) == 3


@pytest.mark.parametrize("size", [(90, 1), (90, 3), (90, 4), (3, 90)])
def test_a_picture_of_a_few_rows_is_one_like_others(rt_detr: DetectOptions, size: tuple[int, int]) -> None:
    (image,) = pictures(size)
    processor: Any = AutoImageProcessor.from_pretrained(str(rt_detr.weights))
    network: Any = AutoModelForObjectDetection.from_pretrained(str(rt_detr.weights)).eval()
    with torch.inference_mode():
        output = network(**processor(images=image, return_tensors="pt"))  # as Pillow has it, no axis is guessed
    (expected,) = processor.post_process_object_detection(output, threshold=0.3, target_sizes=[image.size[::-1]])
    (found,) = detect(rt_detr, image)
    assert len(found.scores) > 3
    np.testing.assert_allclose(found.scores, expected["scores"].sort(descending=True).values, rtol=1e-4)


def test_weights_that_break_off_are_told_before_anything_is_loaded(rt_detr: DetectOptions, tmp_path: Path) -> None:
    shutil.copytree(str(rt_detr.weights), tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    content = path.read_bytes()
    options = changed(rt_detr, weights=str(tmp_path / "m"))
    for cut in (content[:-1], content[:100], b"", content + b"more", b"\xff" * 100):
        path.write_bytes(cut)
        with pytest.raises(ModelError, match=r"model\.safetensors cannot be read as tensors alone"):
            find_backend(options.backend).describe(options)
