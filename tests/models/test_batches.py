"""From stored pictures to a backend and back: batches, models that are replaced, pictures from outside."""

from __future__ import annotations

import dataclasses
import gc
import io
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pytest
from PIL import Image
from toy_networks import LABELS, pictures

from visionlake.udfs import detect_objects as module
from visionlake.udfs._decoder import kept_decoder
from visionlake.udfs._errors import MediaError, ModelError
from visionlake.udfs.detect_objects import detect_again, detect_objects
from visionlake.udfs.detector_types import DetectOptions, Instances, Prepared, Regions
from visionlake.udfs.frame_types import FrameOptions, Limits
from visionlake.udfs.masks import find_mask
from visionlake.udfs.ontology import Ontology
from visionlake.udfs.rle import decode_mask
from visionlake.udfs.stored_picture import open_stored
from visionlake.udfs.uris import stat, to_uri


class Recording:
    """Finds nothing, says what it was asked, and has memory for `room` pictures."""

    labels, first_label_id, batch_size = LABELS, 0, 3

    def __init__(self, *, room: int = 3, device_type: str = "cpu") -> None:
        self.room, self.device_type = room, device_type
        self.asked: list[list[tuple[int, ...]]] = []

    def prepare(self, picture: Image.Image) -> Prepared:
        return Prepared.unchanged(picture)

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        self.asked.append([one.pixels.shape for one in batch])
        if len(batch) > self.room:
            raise RuntimeError("CUDA out of memory")
        nothing = Instances(boxes=np.zeros((0, 4)), scores=np.zeros(0), label_ids=np.zeros(0, np.int64))
        return [nothing] * len(batch)


def labelled_by(
    detector: Recording, sizes: Sequence[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, *, broken: int | None = None
) -> pd.DataFrame:
    """The rows of pictures of these sizes, in two batches; the one at the place `broken` is none."""
    known = SimpleNamespace(model_id=lambda options: "m")
    backend = SimpleNamespace(load=lambda options: detector, describe=lambda options: known)
    monkeypatch.setattr("visionlake.udfs.detect_objects.find_backend", lambda name: backend)
    module._forget()
    images = [b"none" if n == broken else png(image) for n, image in enumerate(pictures(*sizes))]
    rows = pd.DataFrame({"key": range(len(sizes)), "image": images})
    found = detect_objects(
        [rows.iloc[:4], rows.iloc[4:]], columns=["key", "frame_width_px", "instances", "error"],
        options=DetectOptions(backend="recording"), model_id="m", max_pixels=10_000, batch_limit_s=60,
    )  # fmt: skip
    return pd.concat([*found])


SIZES = [(8, 8), (9, 8), (8, 8), (8, 8), (9, 8), (8, 8), *((20 + n, 8) for n in range(12))]


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])  # beside a GPU threads decode
def test_pictures_of_another_size_never_share_a_batch(device_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Recording(device_type=device_type)
    labelled = labelled_by(detector, SIZES, monkeypatch)
    assert sorted(labelled["key"]) == [*range(len(SIZES))] and labelled["error"].tolist() == [None] * len(SIZES)
    assert all(SIZES[key][0] == width for key, width in zip(labelled["key"], labelled["frame_width_px"], strict=True))
    assert all(len(set(batch)) == 1 for batch in detector.asked) and detector.asked[0] == [(8, 8, 3)] * 3
    labelled = labelled_by(Recording(device_type=device_type), SIZES, monkeypatch, broken=0).set_index("key")
    assert labelled["error"].notna().tolist().count(True) == 1 and labelled.loc[0, "error"] is not None


def test_a_batch_beyond_the_memory_is_halved_and_so_are_those_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Recording(room=1)
    labelled = labelled_by(detector, [(8, 8)] * 9, monkeypatch)
    assert [len(batch) for batch in detector.asked] == [3, 2, *[1] * 9] and len(labelled) == 9
    with pytest.raises(ModelError, match="model m: CUDA out of memory"):
        labelled_by(Recording(room=0), [(8, 8)], monkeypatch)


def test_waiting_pictures_are_bounded_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Recording()
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 2 * 40 * 50 * 3)
    sizes = [(40, 50), (50, 40), (40, 50), (8, 8), (50, 40), (40, 50)]
    assert len(labelled_by(detector, sizes, monkeypatch)) == len(sizes)
    assert detector.asked[0] == [(50, 40, 3)] * 2 and sum(map(len, detector.asked)) == len(sizes)


def test_a_model_that_is_replaced_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        labels, first_label_id, batch_size = ("a",), 0, 4

        def prepare(self, picture: Image.Image) -> Prepared:
            return Prepared(pixels=np.asarray(picture), width_px=8, height_px=8, scale_x=1, scale_y=1, left=0, top=0)

        def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
            nothing = Instances(boxes=np.zeros((0, 4)), scores=np.zeros(0), label_ids=np.zeros(0, np.int64))
            return [nothing] * len(batch)

    loaded: list[weakref.ref[Empty]] = []

    def load(options: DetectOptions) -> Empty:
        made = Empty()
        loaded.append(weakref.ref(made))
        return made

    current = ""
    known = SimpleNamespace(model_id=lambda options: current)
    backend = SimpleNamespace(load=load, describe=lambda options: known)
    monkeypatch.setattr("visionlake.udfs.detect_objects.find_backend", lambda name: backend)
    rows = pd.DataFrame({"image": [png(image) for image in pictures((8, 8))]})
    for current in ("a", "b", "b", "c"):
        found = detect_objects(
            [rows], columns=["instances", "error"], options=DetectOptions(backend="x"), model_id=current,
            max_pixels=100, batch_limit_s=60,
        )  # fmt: skip
        assert [len(frame) for frame in found] == [1]
    assert len(loaded) == 3
    for _ in range(100):  # their threads end by themselves
        gc.collect()
        if [one() is None for one in loaded] == [True, True, False]:
            break
        time.sleep(0.05)
    assert [one() is None for one in loaded] == [True, True, False]
    current = "d"
    with pytest.raises(ModelError, match="model c: its files are those of d here"):
        module._forget()
        list(detect_objects(
            [rows], columns=["error"], options=DetectOptions(backend="x"), model_id="c", max_pixels=100,
            batch_limit_s=60,
        ))  # fmt: skip


def stored(image: Image.Image, **options: Any) -> Image.Image:
    target = io.BytesIO()
    image.save(target, "PNG", **options)
    return open_stored(target.getvalue(), max_pixels=1000)


def test_pictures_from_outside_are_upright_and_before_black() -> None:
    half = Image.new("RGBA", (4, 2), (200, 100, 50, 0))
    half.putpixel((0, 0), (200, 100, 50, 255))
    turned = half.getexif()
    turned[0x0112] = 6  # the top is at the right
    seen = stored(half, exif=turned)
    assert (seen.mode, seen.size) == ("RGB", (2, 4))
    assert seen.getpixel((1, 0)) == (200, 100, 50) and seen.getpixel((0, 3)) == (0, 0, 0)
    with pytest.raises(MediaError, match=r"image_unsupported: .* more than 8 bits"):
        stored(Image.new("I;16", (4, 2), 40_000))
    with pytest.raises(MediaError, match="image_too_large"):
        stored(Image.new("L", (101, 10)))
    with pytest.raises(MediaError) as caught:
        open_stored(b"nothing of the kind", max_pixels=9)
    assert caught.value.reason == "image_unreadable" and "0x" not in caught.value.message


def png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def test_labels_are_those_of_the_ontology_and_regions_of_one_class_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seeing:
        labels, first_label_id, batch_size = ("car", "lorry", "tree"), 1, 1

        def prepare(self, picture: Image.Image) -> Prepared:
            pixels = np.asarray(picture)
            return Prepared(pixels=pixels, width_px=8, height_px=8, scale_x=1.0, scale_y=1.0, left=0.0, top=0.0)

        def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
            masks = [find_mask(np.arange(64).reshape(8, 8) // 8 == row) for row in (1, 3, 5)]
            found = Instances.of_masks(masks, scores=[0.9, 0.8, 0.7], label_ids=[3, 2, 1])
            regions = Regions(label_ids=np.array([1, 2, 3]), masks=tuple(mask for mask in masks if mask))
            return [dataclasses.replace(found, regions=regions)] * len(batch)

    backend = SimpleNamespace(load=lambda _: Seeing(), describe=lambda _: SimpleNamespace(model_id=lambda _: "o"))
    monkeypatch.setattr("visionlake.udfs.detect_objects.find_backend", lambda name: backend)
    ontology = Ontology(classes=("person", "car"), aliases=(("lorry", "car"),), drop=("tree",))
    (labelled,) = detect_objects(
        [pd.DataFrame({"image": [png(Image.new("RGB", (8, 8)))]})], columns=["instances", "regions"],
        options=DetectOptions(backend="seeing", ontology=ontology), model_id="o", max_pixels=100, batch_limit_s=60,
    )  # fmt: skip
    assert [(one["label_id"], one["label"], one["score"]) for one in labelled["instances"][0]] == [
        (1, "car", 0.8), (1, "car", 0.7),
    ]  # fmt: skip
    (region,) = labelled["regions"][0]
    assert (region["label_id"], region["label"], region["area_px"]) == (1, "car", 16)
    assert np.flatnonzero(decode_mask(region["mask"]).any(axis=1)).tolist() == [1, 3]


def test_another_model_finds_the_decoder_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, limits = tmp_path / "still.png", Limits()
    Image.new("RGB", (64, 48)).save(path)
    (frame,) = kept_decoder(limits).frames(to_uri(path), kind="image", options=FrameOptions(image_format="rgb"))
    kept_decoder(limits).close()  # frames were extracted elsewhere
    facts = stat(to_uri(path))
    part = {
        "media_id": "m", "kind": "image", "uri": to_uri(path), "size_bytes": facts.size_bytes, "mtime": facts.mtime,
        "elsewhere": None, "stream_index": 0, "is_seekable": False, "frames": [vars(frame) | {"image": None}],
    }  # fmt: skip
    current = ""
    known = SimpleNamespace(model_id=lambda options: current)
    backend = SimpleNamespace(load=lambda options: Recording(), describe=lambda options: known)
    monkeypatch.setattr("visionlake.udfs.detect_objects.find_backend", lambda name: backend)
    module._forget()
    schema = pa.schema([("pts", pa.int64()), ("error", pa.struct([("reason", pa.string())]))])
    decoders = set[int | None]()
    for current in ("a", "b"):
        (found,) = detect_again(
            [pa.RecordBatch.from_pylist([part])], schema=schema, options=DetectOptions(backend="recording"),
            model_id=current, limits=limits, batch_limit_s=60,
        )  # fmt: skip
        assert found.to_pylist() == [{"pts": 0, "error": None}]
        decoders.add(kept_decoder(limits).child_pid)
        time.sleep(0.2)  # a decoder that is told to end with a thread does so a little later
    assert len(decoders) == 1 and psutil.pid_exists(decoders.pop() or 0)
