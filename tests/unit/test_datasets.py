"""Frames and labels of a lake as PyTorch data sets: real Delta tables, real pictures, real DataLoaders."""

from __future__ import annotations

import copy
import io
import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from deltalake import DeltaTable, WriterProperties, write_deltalake
from PIL import Image
from torch.utils.data import DataLoader

from visionlake import _dataset_tables
from visionlake._dataset_samples import Pictures
from visionlake._dataset_tables import open_table
from visionlake.datasets import FrameDataset, FrameStream, collate
from visionlake.errors import UsageError, VisionlakeError
from visionlake.expectations.annotations import TABLE as ANNOTATIONS
from visionlake.expectations.detections import TABLE as DETECTIONS
from visionlake.expectations.frames import TABLE as FRAMES
from visionlake.udfs.rle import encode_mask
from visionlake.udfs.uris import to_uri

Row = dict[str, Any]
MODEL = "yolo@1:abc"
SPLITS = pa.schema([(name, pa.string()) for name in ("split_set", "media_id", "group_id", "split")])
SCHEMAS = {table.name: table.arrow_schema() for table in (FRAMES, DETECTIONS, ANNOTATIONS)}
WIDTH, HEIGHT = 64, 48
PEOPLE: Row = {"labels": "people"}


def put(lake: Path, name: str, rows: Sequence[Row], *, schema: pa.Schema | None = None, group_rows: int = 7) -> None:
    """Append rows, of which each file has row groups of a few."""
    schema = schema or {**SCHEMAS, "splits": SPLITS}[name]
    table = pa.Table.from_pylist(list(rows), schema=schema)
    properties = WriterProperties(max_row_group_size=group_rows, write_batch_size=group_rows)
    write_deltalake(to_uri(lake / name), table, mode="append", writer_properties=properties)


def media(number: int) -> str:
    return f"{number:064x}"


def colour(number: int, pts: int) -> tuple[int, int, int]:
    return (20 * number + 10, 3 * pts + 5, 200 - 20 * number)


def encoded(pixels: Any, kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(target, kind)
    return target.getvalue()


def frame(number: int, pts: int, *, width: int = WIDTH, height: int = HEIGHT, **more: Any) -> Row:
    picture = np.broadcast_to(np.array(colour(number, pts), np.uint8), (height, width, 3))
    row = {
        "media_id": media(number), "stream_index": 0, "pts": pts, "width_px": width, "height_px": height,
        "full_width_px": width, "full_height_px": height, "image": encoded(picture), "image_format": "png",
    }  # fmt: skip
    return row | more


def thing(label: str, *box: float, **more: Any) -> Row:
    return {"label": label, "box": dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True))} | more


def said(number: int, pts: int, *things: Row, source: str = "people", **more: Any) -> Row:
    row = {"media_id": media(number), "stream_index": 0, "pts": pts, "source": source, "instances": list(things)}
    return row | {"full_width_px": WIDTH, "full_height_px": HEIGHT} | more


def found(number: int, pts: int, *things: Row, model: str = MODEL, **more: Any) -> Row:
    row = {"media_id": media(number), "stream_index": 0, "pts": pts, "model_id": model, "instances": list(things)}
    return row | {"frame_width_px": WIDTH, "frame_height_px": HEIGHT} | more


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Three media of 20 frames in two files of several row groups, all annotated; a split of one and two media."""
    lake = tmp_path / "a lake, ü"
    for numbers in ((2, 0), (1,)):
        put(lake, "frames", [frame(n, pts) for n in numbers for pts in reversed(range(20))])
    put(lake, "annotations", [said(n, pts, thing("car", 1, 2, 11, 22)) for n in range(3) for pts in range(20)])
    rows = [{"split_set": "main", "media_id": media(n), "split": "train" if n else "val"} for n in range(3)]
    put(lake, "splits", rows)
    return lake


def keys(samples: Any) -> list[tuple[int, int]]:
    """(number of the media, pts) of samples."""
    return [(int(target["frame"][0], 16), target["frame"][2]) for _, target in samples]


EVERY = [(number, pts) for number in range(3) for pts in range(20)]


def flat(loader: DataLoader[Any]) -> list[Any]:
    return [sample for images, targets in loader for sample in zip(images, targets, strict=True)]


def test_a_sample_is_what_torchvision_takes(lake: Path):
    data = FrameDataset(lake, labels="people")
    assert (len(data), data.classes, data.versions) == (60, ("car",), {"frames": 1, "annotations": 0})
    assert keys(data) == EVERY, "in order, wherever they are stored"
    image, target = data[25]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, HEIGHT, WIDTH))
    assert image[:, 30, 40].tolist() == list(colour(1, 5))
    assert {name: (value.dtype, value.tolist()) for name, value in target.items() if torch.is_tensor(value)} == {
        "boxes": (torch.float32, [[1, 2, 11, 22]]),
        "labels": (torch.int64, [1]),
        "area": (torch.float32, [200]),
        "iscrowd": (torch.int64, [0]),
    }
    assert (target["image_id"], target["frame"]) == (25, (media(1), 0, 5))
    assert data.get_height_and_width(25) == (HEIGHT, WIDTH)
    assert data[-1][1]["frame"] == (media(2), 0, 19)
    for outside in (60, -61):
        with pytest.raises(IndexError, match="60 frames"):
            data[outside]


def test_a_split(lake: Path):
    options: dict[str, Any] = {"labels": "people", "split_set": "main"}
    train, val = (FrameDataset(lake, split=split, **options) for split in ("train", "val"))
    assert keys(val) + keys(train) == EVERY
    assert keys(FrameDataset(lake, labels="people", split="val")) == keys(val), "there is one set only"
    put(lake, "splits", [{"split_set": "other", "media_id": media(1), "split": "val"}])
    assert {number for number, _ in keys(FrameDataset(lake, labels="people", split="val", split_set="other"))} == {1}
    with pytest.raises(UsageError, match="several: name one of main, other"):
        FrameDataset(lake, labels="people", split="val")


def test_splits_agree_on_classes(lake: Path):
    put(lake, "annotations", [said(0, 3, thing("bus", 1, 1, 5, 5), source="more")])
    for split in ("train", "val"):
        data = FrameDataset(lake, labels=["people", "more"], split=split)
        assert data.classes == ("bus", "car"), "also where a split has no bus"


def test_the_first_labels_that_looked_at_a_frame_count(tmp_path: Path):
    put(tmp_path, "frames", [frame(0, pts) for pts in range(5)])
    put(tmp_path, "annotations", [
        said(0, 0, thing("car", 0, 0, 1, 1), source="people"),
        said(0, 1, source="people"),  # they looked, and nothing was there
        said(0, 0, thing("car", 0, 0, 2, 2), source="tool"),
        said(0, 1, thing("car", 0, 0, 2, 2), source="tool"),
        said(0, 2, thing("car", 0, 0, 2, 2), source="tool"),
    ])  # fmt: skip
    put(tmp_path, "detections", [found(0, pts, thing("car", 0, 0, 3, 3, score=0.9)) for pts in range(4)])

    def sizes(*labels: str, **options: Any) -> list[list[float]]:
        data = FrameDataset(tmp_path, labels=labels, **options)
        return [[target["frame"][2], *target["boxes"][:, 2].tolist()] for _, target in data]

    assert sizes("people", "tool", MODEL) == [[0, 1], [1], [2, 2], [3, 3]]
    assert sizes(MODEL, "people") == [[0, 3], [1, 3], [2, 3], [3, 3]]
    assert sizes("people") == [[0, 1], [1]], "frames that nobody looked at are left out"
    assert sizes("people", unlabelled="empty") == [[0, 1], [1], [2], [3], [4]]


def test_the_only_labels_need_no_name(tmp_path: Path):
    put(tmp_path, "frames", [frame(0, pts) for pts in range(2)])
    with pytest.raises(UsageError, match="has no labels: run import_annotations or detect_objects"):
        FrameDataset(tmp_path)
    put(tmp_path, "detections", [found(0, pts, thing("car", 0, 0, 3, 3, score=0.9)) for pts in range(2)])
    assert keys(FrameDataset(tmp_path)) == [(0, 0), (0, 1)], "the only model"
    put(tmp_path, "annotations", [said(0, 1, thing("bus", 0, 0, 1, 1), source="people")])
    assert FrameDataset(tmp_path).classes == ("bus",), "people before models"
    put(tmp_path, "annotations", [said(0, 1, source="tool")])
    with pytest.raises(UsageError, match="'annotations' has several: name one of people, tool"):
        FrameDataset(tmp_path)
    assert FrameDataset(tmp_path, version={"annotations": 0}).classes == ("bus",)


def test_one_annotator_counts(tmp_path: Path):
    put(tmp_path, "frames", [frame(0, 0)])
    rows = [said(0, 0, thing("car", 0, 0, size, 9), annotator=who) for who, size in (("zoe", 5), ("anna", 4))]
    put(tmp_path, "annotations", rows)
    put(tmp_path, "detections", [found(0, 0, thing("car", 0, 0, 6, 9, score=0.9))])

    def width(labels: str | list[str] = "people", **options: Any) -> list[float]:
        return FrameDataset(tmp_path, labels=labels, **options)[0][1]["boxes"][:, 2].tolist()

    assert width() == [4], "the first by name"
    assert width(annotator="zoe") == [5]
    assert width([MODEL, "people"], annotator="zoe") == [6], "models have none"
    with pytest.raises(UsageError, match="annotator = 'Zoe'"):
        width(annotator="Zoe")


def test_classes_and_scores(tmp_path: Path):
    put(tmp_path, "frames", [frame(0, 0), frame(0, 1)])
    scores = {"dog": 0.3, "cat": 0.6, "car": 0.9}
    put(tmp_path, "detections", [found(0, 0, *(thing(name, 0, 0, 9, 9, score=s) for name, s in scores.items()))])
    people = said(0, 1, thing("cat", 0, 0, 5, 5), thing("car", 0, 0, 4, 4, score=0.1))
    put(tmp_path, "annotations", [people])

    def labels(**options: Any) -> list[list[int]]:
        return [target["labels"].tolist() for _, target in FrameDataset(tmp_path, labels=[MODEL, "people"], **options)]

    assert labels() == [[3, 2, 1], [2, 1]], "names in order, from 1"
    with pytest.warns(UserWarning, match="unicorn is no label of yolo@1:abc, people; allowed: car, cat, dog") as told:
        assert labels(classes=["cat", "unicorn", "car"]) == [[1, 3], [1, 3]]
    assert told[0].filename == __file__
    assert labels(min_score=np.float32(0.75)) == labels(min_score=0.75)
    for bad in (-0.1, 1.5, "0.5", float("nan"), True):
        with pytest.raises(UsageError, match=r"min_score = .*: allowed is a number from 0 to 1"):
            labels(min_score=bad)
    assert labels(min_score=0.6) == [[2, 1], [2, 1]], "a score of exactly that stays; people's objects have none"
    assert labels(classes=["dog"], min_score=0.5) == [[], []], "frames stay that are without an object then"


def test_boxes_are_in_pixels_of_the_stored_frame_and_inside_it(tmp_path: Path):
    put(tmp_path, "frames", [frame(0, pts, full_width_px=256, full_height_px=96) for pts in range(2)])
    full: Row = {"full_width_px": 256, "full_height_px": 96}  # 4 and 2 times the stored frame
    put(tmp_path, "annotations", [
        said(0, 0, thing("a", 8, 8, 40, 24), thing("b", -1, -0.5, 257, 97), thing("c", 256, 4, 257, 9), **full),
        said(0, 1, thing("a", 8, 8, 40, 24, area=80.0), thing("b", 0, 0, 8, 8, area_px=16, iscrowd=True), **full),
    ])  # fmt: skip
    put(tmp_path, "detections", [found(0, 0, thing("a", 1, 2, 3, 4, score=1.0), frame_width_px=32, frame_height_px=24)])
    (_, first), (_, second) = FrameDataset(tmp_path, labels="people")
    assert first["boxes"].tolist() == [[2, 4, 10, 12], [0, 0, 64, 48]], "what lies outside alone is gone"
    assert first["labels"].tolist() == [1, 2]
    assert first["area"].tolist() == [64, 64 * 48]
    assert second["area"].tolist() == [10, 2], "what the annotation or its mask says, scaled"
    assert second["iscrowd"].tolist() == [0, 1], "crowds stay"
    assert FrameDataset(tmp_path, labels=MODEL)[0][1]["boxes"].tolist() == [[2, 4, 6, 8]]


def test_masks_come_in_the_size_of_the_stored_frame(tmp_path: Path):
    own = np.zeros((HEIGHT, WIDTH), bool)
    own[10:20, 5:30] = True
    double = own.repeat(2, axis=0).repeat(2, axis=1)
    put(tmp_path, "frames", [frame(0, pts) for pts in range(3)])
    put(tmp_path, "detections", [found(0, 0, thing("a", 5, 10, 30, 20, score=1.0, mask=encode_mask(own)))])
    large = said(0, 1, thing("a", 10, 20, 60, 40, mask=encode_mask(double)), full_width_px=128, full_height_px=96)
    put(tmp_path, "annotations", [large, said(0, 2)])
    data = FrameDataset(tmp_path, labels=["people", MODEL], masks=True)
    for _, target in (data[0], data[1]):
        assert (target["masks"].dtype, target["boxes"].tolist()) == (torch.uint8, [[5, 10, 30, 20]])
        assert np.array_equal(target["masks"].numpy(), own[None])
    assert tuple(data[2][1]["masks"].shape) == (0, HEIGHT, WIDTH)
    assert "masks" not in FrameDataset(tmp_path, labels=MODEL)[0][1]

    put(tmp_path, "annotations", [said(0, 0, thing("a", 1, 1, 2, 2)), said(0, 0, thing("b", 1, 1, 2, 2), source="x")])
    with pytest.raises(UsageError, match="1 of 2 objects of people have no mask"):
        FrameDataset(tmp_path, labels="people", masks=True)


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [10**6, 10**6], "counts": "0"},
        {"size": [4, 4], "counts": "0"},
        {"size": [4, 4], "counts": "o" * 40 + "0"},
        {"size": [-4, -4], "counts": "0"},
        {"size": [16], "counts": "0"},
    ],
)
def test_masks_that_cannot_be_are_told_of(tmp_path: Path, mask: Row):
    put(tmp_path, "frames", [frame(0, 0)])
    put(tmp_path, "annotations", [said(0, 0, thing("a", 1, 1, 5, 5, mask=mask))])
    with pytest.raises(VisionlakeError, match=r"frame 0+ stream 0 pts 0 cannot be used: a mask"):
        FrameDataset(tmp_path, labels="people", masks=True)[0]


def test_pictures_of_any_format_are_decoded_within_bounds(tmp_path: Path):
    grey = np.broadcast_to(np.arange(0, 256, 4), (HEIGHT, WIDTH))
    coloured = np.stack([grey, grey[:, ::-1], grey], axis=-1)
    images = [encoded(coloured, "JPEG"), encoded(grey), encoded(coloured, "WEBP"), b"nothing", encoded(coloured)[:90]]
    put(tmp_path, "frames", [frame(0, pts, image=image) for pts, image in enumerate(images)])
    put(tmp_path, "annotations", [said(0, pts) for pts in range(5)])
    data = FrameDataset(tmp_path, labels="people")
    assert tuple(data[0][0].shape) == tuple(data[2][0].shape) == (3, HEIGHT, WIDTH)
    assert (data[0][0].numpy().astype(int) - coloured.transpose(2, 0, 1)).std() < 12
    assert np.array_equal(data[1][0].numpy(), np.stack([grey] * 3))
    assert tuple(data[0][1]["boxes"].shape) == (0, 4)
    for bad in (3, 4):
        with pytest.raises(VisionlakeError, match=f"pts {bad} cannot be used"):
            data[bad]
    with pytest.raises(VisionlakeError, match="allowed are 3071"):
        FrameDataset(tmp_path, labels="people", max_pixels=WIDTH * HEIGHT - 1)[0]


def test_a_transform_has_the_last_word(lake: Path):
    data = FrameDataset(lake, labels="people", transform=lambda image, target: (image / 255, target["labels"]))
    image, labels = data[0]
    assert (image.dtype, float(image.max()) <= 1, labels.tolist()) == (torch.float32, True, [1])


def test_versions_are_pinned_and_can_be_asked_for(lake: Path):
    before = FrameDataset(lake, labels="people")
    put(lake, "annotations", [said(3, 0, thing("bus", 0, 0, 9, 9))])
    put(lake, "frames", [frame(3, 0)])
    now = FrameDataset(lake, labels="people")
    assert (len(before), len(now), now.versions) == (60, 61, {"frames": 2, "annotations": 1})
    assert keys(before) == EVERY, "what was opened stays as it was"
    again = FrameDataset(lake, labels="people", version=before.versions)
    assert (len(again), again.classes, again.versions) == (60, ("car",), before.versions)
    mixed = FrameDataset(lake, labels="people", version={"frames": 1})
    assert (len(mixed), mixed.classes, mixed.versions) == (60, ("bus", "car"), {"frames": 1, "annotations": 1})
    assert len(FrameDataset(lake, labels="people", version={"frames": 0, "splits": 7})) == 40


def test_a_file_that_is_gone_is_told_of(lake: Path):
    data = FrameDataset(lake, labels="people")
    for file in (lake / "frames").glob("*.parquet"):
        file.unlink()
    with pytest.raises(VisionlakeError, match=r"version 1, is gone.*VACUUM"):
        data[0]


def test_columns_that_a_file_does_not_know_yet(tmp_path: Path):
    instance = "label", "box"
    kind = SCHEMAS["annotations"].field("instances").type.value_type
    old = pa.schema(
        pa.field("instances", pa.list_(pa.struct([kind.field(name) for name in instance])))
        if field.name == "instances"
        else field
        for field in SCHEMAS["annotations"]
        if field.name != "annotator"
    )
    put(tmp_path, "frames", [frame(0, 0)])
    put(tmp_path, "annotations", [said(0, 0, thing("a", 1, 1, 5, 5))], schema=old)
    target = FrameDataset(tmp_path, labels="people")[0][1]
    assert (target["area"].tolist(), target["iscrowd"].tolist()) == ([16], [0])
    with pytest.raises(UsageError, match="1 of 1 objects"):
        FrameDataset(tmp_path, labels="people", masks=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": "poeple"}, "did you mean people"),
        ({"labels": []}, "allowed is a name or a sequence"),
        ({"labels": ["people", "people"]}, "once"),
        ({"labels": MODEL}, "no table 'detections' in lake .*it has annotations, frames, splits"),
        ({"classes": "car"}, "allowed is a sequence of names"),
        ({"classes": ["cars"]}, "none is a label of people; the labels there are car"),
        ({"split": "tain"}, r"'tain': set 'main' has no such split; did you mean train\? \(allowed: train, val\)"),
        ({"split": "train", "split_set": "mian"}, "did you mean main"),
        ({"split_set": "main"}, "says nothing without a split"),
        ({"version": {"frame": 1}}, "a table 'frame'; allowed: frames, annotations, detections, splits"),
        ({"version": {"frames": "1"}}, "allowed is a whole number"),
        ({"version": {"frames": 9}}, "'frames' has no version 9: the newest is 1"),
        ({"version": 3}, "a mapping of tables to versions"),
        ({"unlabelled": "drop"}, '"leave_out" and "empty"'),
    ],
)
def test_what_does_not_fit_is_told_of(lake: Path, options: Row, words: str):
    with pytest.raises(UsageError, match=words):
        FrameDataset(lake, **(PEOPLE | options))


def test_a_lake_that_is_none(tmp_path: Path, lake: Path):
    with pytest.raises(UsageError, match=r"main\.lake is not there; .*location"):
        FrameDataset("main.lake", labels="people")
    with pytest.raises(UsageError, match=r"no table 'frames' in lake .*it has no tables"):
        FrameDataset(tmp_path, labels="people")
    put(tmp_path / "other", "frames", [frame(7, 0)])
    put(tmp_path / "other", "annotations", [said(8, 0)])
    with pytest.raises(UsageError, match="of 1 frames, none is labelled by people"):
        FrameDataset(tmp_path / "other", labels="people")


def test_frames_without_pictures_are_refused_at_once(lake: Path):
    put(lake, "frames", [frame(4, pts, image=None, image_format=None) for pts in range(3)])
    assert len(FrameDataset(lake, labels="people")) == 60, "they are not asked for"
    put(lake, "annotations", [said(4, 1)])
    with pytest.raises(UsageError, match=r'1 of 61 frames have no picture.*image_format = "jpeg"'):
        FrameDataset(lake, labels="people")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"],
                       "writerFeatures": ["deletionVectors"]}}, "deletion vectors.*PURGE"),
        ({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["columnMapping"],
                       "writerFeatures": ["columnMapping"]}}, "columnMapping"),
    ],
)  # fmt: skip
def test_tables_that_need_more_than_files_are_refused(lake: Path, action: Row, words: str):
    (lake / "frames" / "_delta_log" / f"{2:020}.json").write_text(json.dumps(action))
    with pytest.raises(UsageError, match=words):
        FrameDataset(lake, labels="people")
    assert len(FrameDataset(lake, labels="people", version={"frames": 1})) == 60


def test_a_row_group_is_read_once_while_it_is_cached(lake: Path, monkeypatch: pytest.MonkeyPatch):
    data, small = (FrameDataset(lake, labels="people", cache_bytes=size) for size in (1 << 20, 0))
    read, reads = Pictures._read, Counter[tuple[int, ...]]()

    def counted(self: Pictures, *row_group: int) -> Any:
        reads.update([row_group])
        return read(self, *row_group)

    monkeypatch.setattr(Pictures, "_read", counted)
    assert keys(data) == keys(data) == EVERY
    assert sorted(reads.values()) == [1] * (6 + 3), "40 and 20 rows, seven to a row group"
    assert keys(small) == EVERY, "one stays at least"
    assert keys([small[0], small[40], small[0]]) == [(0, 0), (2, 0), (0, 0)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are processors
@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (3, "fork"), (2, "spawn")])
def test_a_data_loader_with_workers(lake: Path, workers: int, context: str | None):
    data = FrameDataset(lake, labels="people")
    keys([data[0], data[59]])  # files are open when processes fork
    options: Row = {"num_workers": workers, "multiprocessing_context": context, "collate_fn": collate}
    if context != "spawn":  # which takes seconds
        assert keys(flat(DataLoader(data, batch_size=7, **options))) == EVERY
    drawn = flat(DataLoader(data, batch_size=7, shuffle=True, generator=torch.manual_seed(1), **options))
    assert keys(drawn) != EVERY
    assert sorted(keys(drawn)) == EVERY
    for image, target in drawn:
        assert image[:, 0, 0].tolist() == list(colour(int(target["frame"][0], 16), target["frame"][2]))


def test_data_sets_survive_pickling(lake: Path):
    data = FrameDataset(lake, labels="people")
    data[3]
    for other in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert keys(other) == EVERY
    stream = FrameStream(lake, labels="people", shuffle=True)
    assert keys(pickle.loads(pickle.dumps(stream))) == keys(stream)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_frame_comes_once_in_an_epoch(lake: Path, ranks: int, workers: int, shuffle: bool):
    counts, seen = [], []
    for rank in range(ranks):
        stream = FrameStream(lake, labels="people", shuffle=shuffle, rank=rank, world_size=ranks, buffer_bytes=2000)
        loader = DataLoader(stream, batch_size=4, num_workers=workers, collate_fn=collate)
        counts.append(len(found := keys(flat(loader))))
        seen += found
    assert sorted(seen) == EVERY
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("ranks", [1, 7, 60])
def test_even_shares_leave_out_the_rest(lake: Path, ranks: int):
    seen = []
    for rank in range(ranks):
        found = keys(FrameStream(lake, labels="people", rank=rank, world_size=ranks, even=True, shuffle=True))
        assert len(found) == 60 // ranks
        seen += found
    assert len({*seen}) == len(seen)


@pytest.mark.parametrize("shuffle", [False, True])
def test_even_shares_leave_out_others_in_each_epoch(lake: Path, shuffle: bool):
    seen = []
    for epoch in range(8):
        for rank in range(3):
            stream = FrameStream(
                lake, labels="people", split="val", rank=rank, world_size=3, even=True, shuffle=shuffle
            )
            stream.set_epoch(epoch)
            seen += keys(stream)
    assert len(seen) == 8 * 18
    assert len({*seen}) == 20


def test_even_shares_of_fewer_frames_than_readers_are_refused(lake: Path):
    with pytest.raises(UsageError, match="even = True, but 61 workers of all ranks are more than 60 frames"):
        keys(FrameStream(lake, labels="people", rank=0, world_size=61, even=True))


def test_streams_give_the_samples_of_the_data_set(lake: Path):
    put(lake, "annotations", [said(n, pts, thing("bus", 0, 0, n + 1, pts + 1), source="tool") for n, pts in EVERY[::3]])
    options: Row = {"labels": ["tool"], "split": "train", "classes": ["car", "bus"]}
    with pytest.warns(UserWarning, match="car is no label of tool"):
        data, stream = FrameDataset(lake, **options), FrameStream(lake, **options)
    assert (stream.classes, stream.versions, stream.frame_count) == (data.classes, data.versions, len(data))
    seen = [*stream]
    assert len(seen) == len(data) == 13
    for image, target in seen:
        same, expected = data[target["image_id"]]
        assert torch.equal(image, same)
        assert target["frame"] == expected["frame"]
        assert all(torch.equal(target[name], expected[name]) for name in ("boxes", "labels", "area", "iscrowd"))


def test_shuffling_follows_seed_and_epoch(lake: Path):
    def order(seed: int = 0, epoch: int = 0, buffer_bytes: int = 1000) -> list[tuple[int, int]]:
        stream = FrameStream(lake, labels="people", shuffle=True, seed=seed, buffer_bytes=buffer_bytes)
        stream.set_epoch(epoch)
        return keys(stream)

    orders = [order(), order(epoch=1), order(seed=1), order(buffer_bytes=1 << 20)]
    assert order() == orders[0]
    assert len({str(each) for each in orders}) == 4
    assert all(sorted(each) == EVERY for each in orders)
    neighbours = sum(abs(a[1] - b[1]) == 1 and a[0] == b[0] for a, b in zip(orders[0], orders[0][1:], strict=False))
    assert neighbours < 20, "frames that follow each other in a video are drawn apart, though the buffer is small"


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_stay_see_the_epoch_change(lake: Path, context: str):
    stream = FrameStream(lake, labels="people", shuffle=True)
    options: Row = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": context}
    loader = DataLoader(stream, batch_size=4, collate_fn=collate, **options)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append(keys(flat(loader)))
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[1]) == EVERY


def test_ranks_come_from_torch_distributed(lake: Path, tmp_path: Path):
    """Two processes, each with workers that are spawned and know nothing of the process group."""
    script = tmp_path / "rank.py"
    script.write_text(
        "import sys, torch\n"
        "from torch.utils.data import DataLoader\n"
        "from visionlake.datasets import FrameStream, collate\n"
        "if __name__ == '__main__':\n"
        "    lake, store, rank = sys.argv[1:]\n"
        "    stream = FrameStream(lake, labels='people', shuffle=True)  # before there is a group\n"
        "    torch.distributed.init_process_group('gloo', init_method=store, rank=int(rank), world_size=2)\n"
        "    loader = DataLoader(stream, num_workers=1, multiprocessing_context='spawn', collate_fn=collate)\n"
        "    print(*(t['image_id'] for _, targets in loader for t in targets))\n"
        "    torch.distributed.destroy_process_group()\n"
    )
    command = [sys.executable, str(script), str(lake), f"file://{tmp_path}/store"]
    started = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    parts = [[int(place) for place in process.communicate(timeout=120)[0].split()] for process in started]
    assert [len(part) for part in parts] == [30, 30]
    assert sorted(parts[0] + parts[1]) == [*range(60)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "both, or neither"),
        ({"rank": 2, "world_size": 2}, "from 0 to world_size - 1"),
        ({"seed": -1}, "seed = -1"),
        ({"labels": "poeple"}, "did you mean people"),
    ],
)
def test_streams_tell_what_does_not_fit(lake: Path, options: Row, words: str):
    with pytest.raises(UsageError, match=words):
        FrameStream(lake, **(PEOPLE | options))
    with pytest.raises(UsageError, match="epoch = -1"):
        FrameStream(lake, labels="people").set_epoch(-1)


def test_a_store_that_is_no_folder(lake: Path, monkeypatch: pytest.MonkeyPatch):
    """Files come through deltalake where they are on no disk; in a forked process that cannot work, and says so."""
    data = FrameDataset(lake, labels="people")
    monkeypatch.setattr(_dataset_tables, "local_path", lambda uri: None)
    assert keys(data) == EVERY
    assert sorted(keys(FrameStream(str(lake), labels="people", shuffle=True))) == EVERY
    loader = DataLoader(data, num_workers=1, multiprocessing_context="fork", collate_fn=collate)
    with pytest.raises(UsageError, match="spawn"):
        next(iter(loader))


def test_paths_of_any_spelling(lake: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(lake.parent)
    for spelling in (lake.name, str(lake) + "/", to_uri(lake), lake):
        assert len(FrameDataset(spelling, labels="people")) == 60
    assert open_table(lake, "frames").uri == to_uri(lake / "frames")


def floats(images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [image / 255 for image in images]


def test_a_torchvision_model_takes_a_step(tmp_path: Path):
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:30, 6:40] = True
    put(tmp_path, "frames", [frame(0, pts) for pts in range(3)])
    seen = thing("car", 6, 5, 40, 30, mask=encode_mask(mask))
    put(tmp_path, "annotations", [said(0, 0, seen), said(0, 1), said(0, 2, seen, seen)])
    data = FrameDataset(tmp_path, labels="people", masks=True)
    small: Row = {"min_size": 64, "max_size": 64, "rpn_post_nms_top_n_train": 20, "box_batch_size_per_image": 16}
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights_backbone=None, num_classes=len(data.classes) + 1, **small)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    images, targets = next(iter(DataLoader(data, batch_size=3, collate_fn=collate)))
    losses: Mapping[str, torch.Tensor] = model.train()(floats(images), targets)
    loss = torch.stack([*losses.values()]).sum()
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_neither_spark_nor_torch_is_imported_for_nothing():
    code = (
        "import sys, visionlake; assert 'torch' not in sys.modules\n"
        "import visionlake.datasets; assert 'torch' in sys.modules\n"
        "assert not {'pyspark', 'great_expectations', 'mlflow'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_tables_that_deltalake_compacts_are_read(lake: Path):
    DeltaTable(to_uri(lake / "frames")).optimize.compact()
    data = FrameDataset(lake, labels="people")
    assert data.versions["frames"] == 2
    assert keys(data) == EVERY
