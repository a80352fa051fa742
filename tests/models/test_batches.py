"""From stored pictures to a backend and back: batches, models that are replaced, pictures from outside."""

from __future__ import annotations

import dataclasses
import gc
import io
import time
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toy_networks import LABELS, pictures

from visionlake.udfs._errors import MediaError, ModelError
from visionlake.udfs.detect_objects import detect_objects
from visionlake.udfs.detector_types import DetectOptions, Instances, Prepared, Regions
from visionlake.udfs.masks import find_mask
from visionlake.udfs.ontology import Ontology
from visionlake.udfs.rle import decode_mask
from visionlake.udfs.stored_picture import open_stored


def test_pictures_of_another_size_never_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[tuple[int, ...]]] = []

    class Recording:
        labels, first_label_id, batch_size = LABELS, 0, 3

        def prepare(self, picture: Image.Image) -> Prepared:
            width, height = picture.size
            return Prepared(
                pixels=np.asarray(picture),
                width_px=width,
                height_px=height,
                scale_x=1.0,
                scale_y=1.0,
                left=0.0,
                top=0.0,
            )

        def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
            asked.append([one.pixels.shape for one in batch])
            nothing = Instances(boxes=np.zeros((0, 4)), scores=np.zeros(0), label_ids=np.zeros(0, np.int64))
            return [nothing] * len(batch)

    known = SimpleNamespace(model_id=lambda options: "m")
    backend = SimpleNamespace(load=lambda options: Recording(), describe=lambda options: known)
    monkeypatch.setattr("visionlake.udfs.detect_objects.find_backend", lambda name: backend)
    sizes = [(8, 8), (9, 8), (8, 8), (8, 8), (9, 8), (8, 8), *((20 + n, 8) for n in range(12))]
    rows = pd.DataFrame({"key": range(len(sizes)), "image": [png(image) for image in pictures(*sizes)]})
    options = DetectOptions(backend="recording")
    (labelled,) = detect_objects(
        [rows.iloc[:4], rows.iloc[4:]], columns=["key", "instances", "error"], options=options, model_id="m",
        max_pixels=10_000, batch_limit_s=60,
    )  # fmt: skip
    assert sorted(labelled["key"]) == [*range(len(sizes))] and labelled["error"].tolist() == [None] * len(sizes)
    assert all(len(set(batch)) == 1 for batch in asked) and asked[0] == [(8, 8, 3)] * 3


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
        from visionlake.udfs import detect_objects as module

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
