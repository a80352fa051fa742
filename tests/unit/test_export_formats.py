"""Exported files, read back by the libraries that people read them with, and by the importers."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask

from visionlake.udfs.annotation_formats import find_format as find_importer
from visionlake.udfs.annotation_types import Category as ReadCategory
from visionlake.udfs.annotation_types import Picture, Shape
from visionlake.udfs.export_formats import find_format, format_names
from visionlake.udfs.export_target import FolderTarget, remove, tidy
from visionlake.udfs.export_types import Category, ExportObject, ExportPlan, Sample, Shard
from visionlake.udfs.mask_polygons import outline
from visionlake.udfs.resize_rle import resize_rle
from visionlake.udfs.rle import decode_mask, encode_mask
from visionlake.udfs.uris import to_uri

WIDTH, HEIGHT = 64, 48
COCO_MASK: Any = mask  # its stubs know less than it takes
CATEGORIES = (Category(id=3, name="cat"), Category(id=7, name="<dog> & 'Hund', \"x\"", keypoints=("nose", "tail")))


def picture(value: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (value, 90, 60)).save(target, "JPEG")
    return target.getvalue()


def disc(x: float, y: float, radius: float) -> Any:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return encode_mask((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2)


def thing(place: int = 0, box: Any = (4.0, 5.0, 20.0, 30.0), **more: Any) -> ExportObject:
    return ExportObject(category_id=CATEGORIES[place].id, label=CATEGORIES[place].name, box=box, **more)


def sample(number: int, *objects: ExportObject, **more: Any) -> Sample:
    values = {
        "media_id": f"{number:064x}", "stream_index": 0, "pts": 512 * number, "pts_s": number / 3,
        "frame_index": number, "split": "train", "width_px": WIDTH, "height_px": HEIGHT, "image_format": "jpeg",
        "image": picture(number), "image_name": f"{number}.mp4", "labelled_by": "people",
    }  # fmt: skip
    return Sample(**{**values, **more}, objects=objects)


SAMPLES = (
    sample(1, thing(), thing(1, (10.25, 0.5, 63.123456789, 47.9), score=0.75, area=1234.5)),
    sample(2),
    sample(
        3,
        thing(0, (20.0, 10.0, 40.0, 30.0), mask=disc(30, 20, 10), attributes={"difficult": "1", "pose": "Left"}),
        thing(1, (0.0, 0.0, 30.0, 20.0), mask=disc(10, 10, 9), iscrowd=True),
        thing(
            1, (5.0, 5.0, 25.0, 40.0), mask=disc(15, 20, 9), area=77.25, annotation_id="a7", track_id="9",
            polygons=[[5.0, 5.0, 15.5, 5.0, 10.0, 15.0], [10.0, 30.0, 25.0, 30.0, 20.0, 40.0]],
            keypoints=[("tail", 6.0, 7.0, 2)],
        ),
    ),
)  # fmt: skip


def export(folder: Path, name: str, samples: Any = SAMPLES, *, task: Any = None) -> FolderTarget:
    work = find_format(name)
    splits = tuple(dict.fromkeys(each.split for each in samples))
    plan = ExportPlan(name="set", task=task or work.TASKS[-1], categories=CATEGORIES, splits=splits)
    target = FolderTarget(to_uri(folder))
    for split in splits:
        mine = [each for each in samples if each.split == split]
        if work.UNIT == "frames":
            shards = [mine[place : place + 2] for place in range(0, len(mine), 2)]
        else:
            shards = [[each for each in mine if each.media_id == m] for m in dict.fromkeys(e.media_id for e in mine)]
        for number, shard in enumerate(shards):
            work.write_shard(Shard(split=split, number=number), iter(shard), plan, target)
        work.write_split(split, iter(mine), plan, target)
    for path, data in work.set_files(plan).items():
        target.write(path, data)
    return target


def imported(name: str, path: Path) -> tuple[dict[str, Picture], list[Shape]]:
    said = list(find_importer(name).read(to_uri(path)))
    assert {type(each) for each in said} <= {Picture, Shape, ReadCategory}
    return {each.key: each for each in said if isinstance(each, Picture)}, [s for s in said if isinstance(s, Shape)]


@pytest.mark.parametrize("name", [each for each in format_names() if each != "mot"])
def test_the_same_samples_are_the_same_bytes(tmp_path: Path, name: str) -> None:
    one, other = export(tmp_path / "one", name), export(tmp_path / "other", name)
    assert one.written == other.written
    assert len({each.path for each in one.written}) == len(one.written)
    for each in one.written:
        data = (tmp_path / "one" / each.path).read_bytes()
        assert data == (tmp_path / "other" / each.path).read_bytes()
        assert len(data) == each.size_bytes
    assert not [*tmp_path.rglob("*.partial")]


def test_coco_is_what_pycocotools_reads(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    export(tmp_path, "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        read: Any = COCO(str(tmp_path / "annotations" / "instances_train.json"))
    images = read.loadImgs(read.getImgIds())
    assert [each["visionlake"]["pts"] for each in images] == [each.pts for each in SAMPLES]
    for image, each in zip(images, SAMPLES, strict=True):
        assert (tmp_path / "images" / "train" / image["file_name"]).read_bytes() == each.image
        found = read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        assert len(found) == len(each.objects)
        for annotation, mine in zip(found, each.objects, strict=True):
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == pytest.approx(mine.box, abs=1e-9)
            assert (annotation["category_id"], annotation["iscrowd"]) == (mine.category_id, mine.iscrowd)
            assert annotation.get("score") == mine.score
    crowd, polygons = read.loadAnns(read.getAnnIds(imgIds=3))[1:]
    assert read.annToRLE(crowd)["counts"] == SAMPLES[2].objects[1].mask["counts"]  # pyright: ignore[reportOptionalSubscript] -- it has one
    assert polygons["segmentation"] == SAMPLES[2].objects[2].polygons
    assert (polygons["keypoints"], polygons["num_keypoints"], polygons["area"]) == ([0, 0, 0, 6, 7, 2], 1, 77.25)
    assert (polygons["track_id"], polygons["visionlake"]) == ("9", {"annotation_id": "a7"})


def test_coco_comes_back_through_the_importer(tmp_path: Path) -> None:
    export(tmp_path, "coco")
    pictures, shapes = imported("coco", tmp_path / "annotations" / "instances_train.json")
    assert [(p.sha256, p.stream_index, p.pts) for p in pictures.values()] == [
        (each.media_id, each.stream_index, each.pts) for each in SAMPLES
    ]
    objects = [each for one in SAMPLES for each in one.objects]
    assert [shape.box for shape in shapes] == [pytest.approx(each.box, abs=1e-9) for each in objects]
    assert shapes[2].attributes == {"difficult": "1", "pose": "Left"}


def test_coco_is_what_torchvision_reads(tmp_path: Path) -> None:
    from torchvision.datasets import CocoDetection

    export(tmp_path, "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        read = CocoDetection(str(tmp_path / "images/train"), str(tmp_path / "annotations/instances_train.json"))
    assert [len(target) for _, target in read] == [2, 0, 3]
    assert read[0][0].size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_yolo_comes_back_through_the_importer(tmp_path: Path, task: str) -> None:
    import yaml

    export(tmp_path, "yolo", task=task)
    settings = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert settings["names"] == {place: each.name for place, each in enumerate(CATEGORIES)}
    assert (settings["train"], settings["val"]) == ("images/train", "images/train")
    for each in SAMPLES:
        assert (tmp_path / settings["train"] / each.picture_name).read_bytes() == each.image
        lines = (tmp_path / "labels/train" / f"{each.stem}.txt").read_text().splitlines()
        mine = [one for one in each.objects if not one.iscrowd]
        assert len(lines) == len(mine)
        for line, one in zip(lines, mine, strict=True):
            place, *shares = line.split()
            numbers = np.array(shares, float).reshape(-1, 2) * (WIDTH, HEIGHT)
            assert CATEGORIES[int(place)].id == one.category_id
            if task == "detection":
                (x, y), (width, height) = numbers
                edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                assert edges == pytest.approx(one.box, abs=1e-6)
            elif one.polygons:
                given = {tuple(point) for ring in one.polygons for point in np.reshape(ring, (-1, 2)).tolist()}
                assert {tuple(point) for point in numbers.round(9).tolist()} == given
            elif one.mask:
                drawn = COCO_MASK.merge(COCO_MASK.frPyObjects([numbers.ravel().tolist()], HEIGHT, WIDTH))
                assert float(COCO_MASK.iou([drawn], [dict(one.mask)], [0])[0][0]) > 0.9


def test_voc_comes_back_through_the_importer_and_torchvision(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    from torchvision.datasets import VOCDetection

    export(tmp_path, "voc")
    for each in SAMPLES:
        pictures, shapes = imported("voc", tmp_path / "Annotations" / f"{each.stem}.xml")
        (found,) = pictures.values()
        assert (found.name, found.width_px, found.height_px) == (each.picture_name, WIDTH, HEIGHT)
        assert [(shape.label, shape.box) for shape in shapes] == [
            (one.label, pytest.approx(one.box, abs=1e-9)) for one in each.objects
        ]
        for shape, one in zip(shapes, each.objects, strict=True):
            assert one.attributes.items() <= shape.attributes.items()
    root = ElementTree.parse(tmp_path / "Annotations" / f"{SAMPLES[0].stem}.xml").getroot()
    assert [child.text for child in root.find("object/bndbox") or ()] == ["5", "6", "20", "30"]
    assert VOCDetection.parse_voc_xml(root)["annotation"]["object"][1]["name"] == CATEGORIES[1].name
    assert (tmp_path / "ImageSets/Main/train.txt").read_text().split() == [each.stem for each in SAMPLES]


def test_webdataset_reads_its_shards(tmp_path: Path) -> None:
    import webdataset

    export(tmp_path, "webdataset")
    shards = sorted(map(str, (tmp_path / "train").glob("*.tar")))
    assert len(shards) == 2
    library: Any = webdataset  # which has no types
    read = list(library.WebDataset(shards, shardshuffle=False).decode())
    assert [each["__key__"].rpartition("/")[2] for each in read] == [each.stem for each in SAMPLES]
    for found, each in zip(read, SAMPLES, strict=True):
        assert (found["json"]["media_id"], found["json"]["pts"]) == (each.media_id, each.pts)
        assert [tuple(one["box"]) for one in found["json"]["objects"]] == [one.box for one in each.objects]
    assert read[2]["json"]["objects"][0]["mask"] == SAMPLES[2].objects[0].mask


@pytest.mark.parametrize("name", ["huggingface", "imagefolder"])
def test_datasets_reads_its_folder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    export(tmp_path / "set", name, (*SAMPLES, sample(4, thing(), split="test")))
    where: dict[str, Any] = {"path": str(tmp_path / "set")} if name == "huggingface" else {
        "path": "imagefolder", "data_dir": str(tmp_path / "set")}  # fmt: skip
    read: Any = datasets.load_dataset(**where, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in read.items()} == {"train": 3, "test": 1}
    by_id = {row["media_id"]: row for row in read["train"]}
    for each in SAMPLES:
        row = by_id[each.media_id]
        assert row["image"].size == (WIDTH, HEIGHT)
        edges = [(x, y, x + w, y + h) for x, y, w, h in row["objects"]["bbox"]]
        assert edges == [pytest.approx(one.box, abs=1e-9) for one in each.objects]
    if name == "huggingface":
        assert read["train"].features["objects"]["category"].feature.names == [each.name for each in CATEGORIES]


def test_mot_comes_back_through_the_importer(tmp_path: Path) -> None:
    first = "0" * 64
    samples = [
        sample(0, thing(track_id="b"), thing(1, (1.5, 2.5, 30.25, 40.0), track_id="a"), media_id=first),
        sample(0, thing(1, (2.5, 2.5, 31.25, 40.0), track_id="a"), media_id=first, pts=700),
        sample(5, thing(track_id="b")),
    ]
    export(tmp_path, "mot", samples)
    folder = tmp_path / "train" / f"{first}_0"
    pictures, shapes = imported("mot", folder / "gt" / "gt.txt")
    assert len(pictures) == 2
    assert [(shape.track_id, shape.box) for shape in shapes] == [
        ("1", pytest.approx((4, 5, 20, 30))), ("2", pytest.approx((1.5, 2.5, 30.25, 40))),
        ("2", pytest.approx((2.5, 2.5, 31.25, 40))),
    ]  # fmt: skip
    rows = (folder / "frames.csv").read_text().splitlines()
    assert [row.split(",")[:4] for row in rows[1:]] == [["1", first, "0", "0"], ["2", first, "0", "700"]]
    assert (tmp_path / "train" / "seqmap.txt").read_text().split()[1:] == [f"{first}_0", f"{5:064x}_0"]
    with pytest.raises(ValueError, match="has no track_id"):
        export(tmp_path / "again", "mot", [sample(1, thing())])


def test_outlines_enclose_their_masks() -> None:
    blob = decode_mask(disc(20, 20, 12)) | decode_mask(disc(45, 30, 7)) | decode_mask(disc(30, 22, 5))
    rings = outline(encode_mask(blob))
    assert len(rings) == 2
    drawn: Any = COCO_MASK.merge(COCO_MASK.frPyObjects(rings, HEIGHT, WIDTH))
    assert float(COCO_MASK.iou([drawn], [dict(encode_mask(blob))], [0])[0][0]) > 0.95
    one = np.zeros((HEIGHT, WIDTH), bool)
    one[0, 0] = True
    (ring,) = outline(encode_mask(one))
    assert np.reshape(ring, (-1, 2)).mean(axis=0) == pytest.approx((0.5, 0.5), abs=0.2)


def test_masks_at_another_size() -> None:
    mask = disc(30, 20, 10)
    assert resize_rle(mask, size=(HEIGHT, WIDTH)) == mask
    twice = decode_mask(resize_rle(mask, size=(2 * HEIGHT, 2 * WIDTH)))
    assert (twice == np.kron(decode_mask(mask), np.ones((2, 2), bool))).all()


def test_files_stay_in_their_folder_and_are_whole_or_absent(tmp_path: Path) -> None:
    target = FolderTarget(to_uri(tmp_path / "set"))
    for path in ("../x", "/x", "a/../../x"):
        with pytest.raises(ValueError, match="does not lie in"):
            target.write(path, b"")
    with contextlib.suppress(RuntimeError), target.open("a.bin") as file:
        file.write(b"half")
        raise RuntimeError
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert target.written == []
    target.write("b.bin", b"whole")
    assert [(each.path, each.size_bytes) for each in target.written] == [("b.bin", 5)]
    assert (tmp_path / "set" / "b.bin").read_bytes() == b"whole"


def test_yolo_keeps_to_the_picture_and_to_words_of_its_own(tmp_path: Path) -> None:
    import yaml

    outside = (thing(0, (-0.8, -1.0, 10.0, 48.7)), thing(0, (63.5, 1.0, 64.9, 9.0)), thing(0, (64.2, 1.0, 65.0, 9.0)))
    ring = thing(0, (-1.0, 0.0, 20.0, 20.0), polygons=[[-1.0, 0.0, 20.0, 0.0, 20.0, 20.0]])
    samples = [sample(n, *outside, ring, split=split) for n, split in enumerate(("names", "hold-out", "train"))]
    for task, count in (("detection", 2), ("segmentation", 2)):
        export(tmp_path / task, "yolo", samples, task=task)
        settings = yaml.safe_load((tmp_path / task / "data.yaml").read_text())
        assert settings["names"] == {place: each.name for place, each in enumerate(CATEGORIES)}
        assert settings["hold-out"] == "images/hold-out" and settings["val"] == "images/names"
        lines = (tmp_path / task / "labels/train" / f"{samples[2].stem}.txt").read_text().splitlines()
        assert len(lines) == count + 1, "the third lies beyond the picture"
        numbers = [[float(word) for word in line.split()[1:]] for line in lines]
        if task == "detection":
            assert numbers[0] == pytest.approx([5 / WIDTH, 0.5, 10 / WIDTH, 1.0])
        assert all(0 <= number <= 1 for line in numbers for number in line)


def test_yaml_holds_any_name(tmp_path: Path) -> None:
    import yaml

    names = ["no", "1", "cat \U0001f600", "a: b", "#x", "é\x85\u2028", 'say "x" \\ y', "tab\tnul\x00del\x7f", "a" * 300]
    categories = tuple(Category(id=place, name=name) for place, name in enumerate(names))
    plan = ExportPlan(name="set", task="detection", categories=categories, splits=("train",))
    settings = yaml.safe_load(find_format("yolo").set_files(plan)["data.yaml"].decode())
    assert settings["names"] == dict(enumerate(names))


@pytest.mark.parametrize("name", ["huggingface", "imagefolder"])
def test_datasets_reads_any_splits(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the library `datasets` is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    splits = ("train", "train-2", "hold-out", "all", "val")
    # The first of a split shows nothing: a reader that guesses from it would guess wrongly.
    samples = [sample(10 * n + k, *([thing()] * k), split=split) for n, split in enumerate(splits) for k in (0, 2)]
    export(tmp_path / "my_test_sets" / "set", name, samples)
    found = datasets.load_dataset(str(tmp_path / "my_test_sets" / "set"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == dict.fromkeys(
        ("train", "train_2", "hold_out", "all_", "val"), 2
    )
    assert [row["objects"]["bbox"] for row in found["all_"]] == [[], [[4.0, 5.0, 16.0, 25.0]] * 2]


def test_voc_marks_crowds_for_evaluations_to_leave_out(tmp_path: Path) -> None:
    export(tmp_path, "voc", [sample(1, thing(iscrowd=True, attributes={"difficult": "0"}), thing())])
    shapes = imported("voc", next((tmp_path / "Annotations").iterdir()))[1]
    assert [each.attributes.get("difficult") for each in shapes] == ["1", None]


@pytest.mark.parametrize(
    ("said", "written"),
    [("0.25", "0.25"), ("1", "1"), (".5", "0.5"), ("5e-05", "5e-05"), ("none, nearly", "1"), ("-1", "1"), ("nan", "1")],
)
def test_mot_writes_visibility_where_it_is_a_share(tmp_path: Path, said: str, written: str) -> None:
    export(tmp_path, "mot", [sample(1, thing(track_id="a", attributes={"visibility": said}))])
    (line,) = next(tmp_path.glob("train/*/gt/gt.txt")).read_text().splitlines()
    assert line.split(",")[8:] == [written]


def test_what_killed_processes_left_is_taken_away(tmp_path: Path) -> None:
    target = FolderTarget(to_uri(tmp_path))
    target.write("a/b.txt", b"1")
    (tmp_path / "a/c.txt.0badcafe.partial").write_bytes(b"half")
    tidy(to_uri(tmp_path))
    assert [path.name for path in tmp_path.rglob("*.*")] == ["b.txt"]
    remove(to_uri(tmp_path / "a/b.txt"))
    remove(to_uri(tmp_path / "a/b.txt"))
    assert [*(tmp_path / "a").iterdir()] == []
