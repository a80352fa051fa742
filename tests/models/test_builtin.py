"""The builtin detector: its weights, its network, and the pictures that it is trained on."""

from __future__ import annotations

import io
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging_helpers import load_script
from PIL import Image
from safetensors.torch import save_file

from visionlake.udfs._builtin_network import make_network
from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import builtin
from visionlake.udfs.detector_types import DetectOptions, Instances
from visionlake.udfs.scenes import LABELS, SceneFrame, render_scene

PLAIN = DetectOptions(backend="builtin", device="cpu")


def held_out(index: int) -> SceneFrame:
    (frame,) = render_scene(seed=77, index=index, times_s=[1.0], split="held_out")
    return frame


def detect(detector: builtin.Builtin, picture: Image.Image) -> Instances:
    (found,) = detector.detect([detector.prepare(picture)])
    return found


def iou(boxes: Any, box: Any) -> Any:
    inner = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = inner.clip(0).prod(axis=1)
    return shared / ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2] - box[0]) * (box[3] - box[1]) - shared)


def test_held_out_scenes_are_labelled_well() -> None:
    """A little of what the training script measures, so that weights and code stay together."""
    detector, asked, found, false = builtin.load(PLAIN), 0, 0, 0
    for frame in map(held_out, range(12)):
        mine = detect(detector, Image.fromarray(frame.pixels))
        for thing in frame.objects:
            alike = mine.boxes[mine.label_ids == thing.label_id]
            if thing.visibility >= 0.5 and (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1]) >= 32 * 32:
                asked += 1
                found += bool((iou(alike, thing.box) > 0.7).any())
        large = mine.boxes[(mine.boxes[:, 2:] - mine.boxes[:, :2]).prod(axis=1) >= 32 * 32]
        false += sum(not any(iou(box[None], thing.box)[0] > 0.3 for thing in frame.objects) for box in large)
    assert asked > 20
    assert found / asked >= 0.8
    assert false / asked <= 0.2


def test_the_network_sees_pictures_as_large_as_they_are_prepared() -> None:
    network = make_network(len(LABELS)).eval()
    stacked, _ = network.transform([torch.zeros(3, 64, 96)])
    assert stacked.tensors.shape == (1, 3, 64, 96)
    prepared = builtin.load(PLAIN).prepare(Image.new("RGB", (1280, 720)))
    assert prepared.pixels.shape == (288, 480, 3)
    assert (prepared.scale_x, prepared.scale_y) == (0.375, 0.375)


def test_what_came_before_changes_nothing() -> None:
    picture = Image.fromarray(held_out(0).pixels)
    alone, after_a_strip = builtin.load(PLAIN), builtin.load(PLAIN)
    detect(after_a_strip, Image.new("RGB", (640, 9)))
    assert np.array_equal(detect(alone, picture).boxes, detect(after_a_strip, picture).boxes)


def test_lower_precision_moves_boxes_a_little() -> None:
    exact, rounded = builtin.load(PLAIN), builtin.load(replace(PLAIN, precision="bfloat16"))
    compared = 0
    for frame in map(held_out, range(3)):
        picture = Image.fromarray(frame.pixels)
        one, other = detect(exact, picture), detect(rounded, picture)
        assert not np.array_equal(one.scores, other.scores)
        for box, label_id in zip(one.boxes, one.label_ids, strict=True):
            if min(box[2:] - box[:2]) > 32:
                assert iou(other.boxes[other.label_ids == label_id], box).max() > 0.9
                compared += 1
    assert compared > 5
    with pytest.raises(ModelError, match=r"'float16' is for CUDA; .* allowed are 'float32', 'bfloat16'"):
        builtin.load(replace(PLAIN, precision="float16", device="cpu"))


def weights(folder: Path, others: Mapping[str, Any] | None = None, *, labels: str = ",".join(LABELS)) -> DetectOptions:
    """A file of random weights, some of them other ones."""
    tensors = {**make_network(len(LABELS)).state_dict(), **(others or {})}
    present = {name: values.contiguous() for name, values in tensors.items() if values is not None}
    save_file(present, folder / "own.safetensors", metadata={"labels": labels})
    return replace(PLAIN, weights=str(folder / "own.safetensors"))


def test_weights_of_ones_own(tmp_path: Path) -> None:
    own = weights(tmp_path)
    assert builtin.describe(own).model_id(own) != builtin.describe(PLAIN).model_id(PLAIN)
    assert detect(builtin.load(own), Image.new("RGB", (64, 64))).boxes.shape[1] == 4


def test_weights_of_something_else_are_known_before_loading(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no weights" * 100)
    (tmp_path / "deep").write_bytes((10**6).to_bytes(8, "little") + b"[" * 10**6)
    (tmp_path / "empty").touch()
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    for name in ("text", "deep", "empty", "other"):
        with pytest.raises(ModelError, match=f"{name} are not those of builtin; make some with scripts"):
            builtin.describe(replace(PLAIN, weights=str(tmp_path / name)))
    for name in ("absent", "."):
        with pytest.raises(ModelError, match="cannot be read: "):
            builtin.describe(replace(PLAIN, weights=str(tmp_path / name)))
    with pytest.raises(ModelError, match="are not those of builtin"):
        builtin.describe(weights(tmp_path, labels="person,car"))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    name = "roi_heads.box_predictor.cls_score.bias"
    for odd in (None, torch.zeros(3), torch.full((len(LABELS) + 1,), float("nan"))):
        with pytest.raises(ModelError, match=f"1 tensors of the weights, such as {name}, do not fit"):
            builtin.load(weights(tmp_path, {name: odd}))
    own = weights(tmp_path)
    path = tmp_path / "own.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match="no safetensors file"):
        builtin.load(own)


@pytest.fixture
def training_pictures() -> Any:
    return load_script("builtin_pictures")


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_boxes_of_training_pictures_hold_their_objects(training_pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """White things on black: cut out, scaled, mirrored, before other backgrounds or not."""
    mask = np.zeros((360, 640), bool)
    mask[100:180, 200:300] = True
    white = np.dstack([mask.astype(np.uint8) * 255] * 3)
    example = training_pictures.Example(
        jpeg=png(white), mask=png(mask), boxes=np.array([[200, 100, 300, 180]], np.float32), labels=np.array([3]),
        visible=np.ones(1, np.float32),
    )  # fmt: skip
    monkeypatch.setattr(training_pictures, "_texture", lambda rng, size: Image.new("RGB", size))
    monkeypatch.setattr(training_pictures, "_recoloured", lambda picture, rng: picture)
    solid = np.dstack([np.full((40, 60, 3), 255, np.uint8), np.full((40, 60), 255, np.uint8)])
    cut_outs = [[training_pictures.CutOut(label=label, png=png(solid))] for label in range(len(LABELS))]
    seen = 0
    for seed in range(40):
        pixels, target = training_pictures.augmented(example, cut_outs, random.Random(seed))
        is_white = pixels.min(axis=2) > 127
        boxes = target["boxes"].numpy()
        assert pixels.shape == (*training_pictures.CROP_PX[::-1], 3) and len(boxes) == len(target["labels"])
        if len(boxes):
            rows, columns = np.nonzero(is_white.any(axis=1))[0], np.nonzero(is_white.any(axis=0))[0]
            holding = [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]
            assert np.abs(np.array(holding) - [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).max() <= 2
            seen += 1
    assert seen > 20


def test_frames_are_drawn_with_their_truth(training_pictures: Any) -> None:
    examples, cut_outs = training_pictures.draw("train", 1, 2, 2)
    assert len(examples) == 2 and cut_outs
    for example in examples:
        assert Image.open(io.BytesIO(example.jpeg)).size == Image.open(io.BytesIO(example.mask)).size == (640, 360)
        assert len(example.boxes) == len(example.labels) == len(example.visible) > 0
