"""The builtin detector: its weights, its network, and the pictures that it is trained on."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging_helpers import load_script
from PIL import Image
from safetensors.torch import save_file

from visionlake.udfs._builtin_masks import MaskHead
from visionlake.udfs._builtin_network import make_network
from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import builtin
from visionlake.udfs.detector_types import DetectOptions, Instances
from visionlake.udfs.rle import decode_mask
from visionlake.udfs.scenes import LABELS, SceneFrame, SceneObject, render_scene

PLAIN = DetectOptions(backend="builtin", device="cpu")
MASKS, MASKS_FILE = replace(PLAIN, task="instance"), "builtin_masks.safetensors"


def held_out(index: int) -> SceneFrame:
    (frame,) = render_scene(seed=77, index=index, times_s=[1.0], split="held_out")
    return frame


def matched(mine: Instances, frame: SceneFrame) -> Iterator[tuple[int, SceneObject]]:
    """The place of what was found of each object of a frame, and the object."""
    for thing in frame.objects:
        alike = np.flatnonzero(mine.label_ids == thing.label_id)
        near = iou(mine.boxes[alike], thing.box)
        if near.max(initial=0) >= 0.5:
            yield int(alike[near.argmax()]), thing


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


def test_masks_of_held_out_scenes_are_good() -> None:
    """A little of what the training script of the masks measures."""
    detector, overlaps = builtin.load(MASKS), []
    for frame in map(held_out, range(8)):
        mine = detect(detector, Image.fromarray(frame.pixels))
        assert mine.masks is not None
        for place, thing in matched(mine, frame):
            seen, true = decode_mask(mine.masks[place].rle), decode_mask(thing.mask)
            overlaps.append((seen & true).sum() / (seen | true).sum())
    assert len(overlaps) > 25
    assert np.mean(overlaps) >= 0.85


def test_what_masks_bring_changes_no_box_of_detections_and_no_id_of_theirs() -> None:
    assert builtin.describe(PLAIN).model_id(PLAIN) == "builtin@1:761a4dbbbc482516"  # lakes hold it: think twice
    assert builtin.describe(MASKS).model_id(MASKS) != builtin.describe(PLAIN).model_id(PLAIN)
    picture = Image.fromarray(held_out(0).pixels)
    assert detect(builtin.load(PLAIN), picture).masks is None
    small = picture.resize((480, 270))  # seen at the same size with and without masks
    plain, masked = detect(builtin.load(PLAIN), small), detect(builtin.load(MASKS), small)
    assert len(plain.scores) and plain.scores.tolist() == masked.scores.tolist()
    assert plain.label_ids.tolist() == masked.label_ids.tolist()
    nothing = detect(builtin.load(MASKS), Image.new("RGB", (64, 64)))
    assert nothing.masks == () and nothing.boxes.shape == (0, 4)


def test_what_comes_with_the_project_is_small() -> None:
    folder = Path(builtin.__file__).parent
    assert sum((folder / name).stat().st_size for name in ("builtin.safetensors", MASKS_FILE)) <= 3_000_000


def test_masks_go_with_the_weights_that_they_were_trained_for(tmp_path: Path) -> None:
    own = replace(weights(tmp_path), task="instance")
    with pytest.raises(ModelError, match=r"task 'instance': model builtin does detection; .*detect_objects"):
        builtin.load(own)
    masks, path = MaskHead(len(LABELS)).state_dict(), tmp_path / "own_masks.safetensors"
    digest = sha256((tmp_path / "own.safetensors").read_bytes()).hexdigest()
    for labels, of in ((",".join(LABELS), "0" * 64), ("person,car", digest)):
        save_file(masks, path, metadata={"labels": labels, "weights": of})
        with pytest.raises(ModelError, match=r"own_masks\.safetensors do not belong to the weights beside them; make"):
            builtin.describe(own)
    metadata = {"labels": ",".join(LABELS), "weights": digest}
    save_file({**masks, "last.1.bias": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(ModelError, match=r"1 tensors of the masks, such as last\.1\.bias, do not fit"):
        builtin.load(own)
    save_file(masks, path, metadata=metadata)
    found = detect(builtin.load(replace(own, score_threshold=0.01)), Image.fromarray(held_out(0).pixels))
    assert found.masks is not None and len(found.masks) == len(found.boxes)
    before = builtin.describe(own).model_id(own)
    save_file({**masks, "last.1.bias": torch.ones(1)}, path, metadata=metadata)
    assert builtin.describe(own).model_id(own) != before


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


def test_boxes_and_masks_of_training_pictures_hold_their_objects(
    training_pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White things on black: cut out, scaled, mirrored, before other backgrounds or not."""
    mask = np.zeros((360, 640), bool)
    mask[100:180, 200:300] = True
    white = np.dstack([mask.astype(np.uint8) * 255] * 3)
    example = training_pictures.Example(
        jpeg=png(white), owners=png(mask.astype(np.uint8)), boxes=np.array([[200, 100, 300, 180]], np.float32),
        labels=np.array([3]), visible=np.ones(1, np.float32),
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
            masks = target["masks"].numpy()
            assert masks.shape == (len(boxes), *pixels.shape[:2])
            for seen_of_it, (left, top, right, bottom) in zip(masks, boxes.round().astype(int), strict=True):
                assert seen_of_it[top:bottom, left:right].sum() >= 0.95 * seen_of_it.sum() > 0
            covered = masks.max(axis=0) > 127
            assert (covered & is_white).sum() >= 0.9 * covered.sum()
            seen += 1
    assert seen > 20


def test_frames_are_drawn_with_their_truth(training_pictures: Any) -> None:
    examples, cut_outs = training_pictures.draw("train", 1, 2, 2)
    assert len(examples) == 2 and cut_outs
    for example in examples:
        assert Image.open(io.BytesIO(example.jpeg)).size == Image.open(io.BytesIO(example.owners)).size == (640, 360)
        assert len(example.boxes) == len(example.labels) == len(example.visible) > 0
        owners = np.asarray(Image.open(io.BytesIO(example.owners)))
        for place, box in enumerate(example.boxes.tolist()):
            rows, columns = np.nonzero(owners == place + 1)
            assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box
