"""Real annotations go through the lake and come out as they went in, as the formats' own readers see them."""

from __future__ import annotations

import io
import json
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import datasets
import pytest
import webdataset
from pycocotools.coco import COCO
from pyspark.sql import SparkSession
from torchvision.datasets import CocoDetection

from visionlake.jobs._config import load_pipeline
from visionlake.jobs._lake import Lake
from visionlake.jobs._pipeline import run
from visionlake.udfs.sample_media import make_sample

WEBDATASET: Any = webdataset  # which has no types
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
COCO_FILE = DATA / "coco-tiny" / "annotations" / "instances_val2017.json"
VOC = DATA / "bccd" / "BCCD"
HEAD = """
lake = "lake"
[mlflow]
enabled = false
[extract_frames]
"""
REAL = """
[ingest_media]
inputs = ["{data}/coco-tiny/val2017", "{data}/bccd/BCCD/JPEGImages"]
[import_annotations.people]
format = "coco"
inputs = ["{data}/coco-tiny/annotations"]
[import_annotations.cells]
format = "voc"
inputs = ["{data}/bccd/BCCD/Annotations"]
"""
EXPORT = """
[export_dataset.{labels}_{format}]
format = "{format}"
to = "out/{labels}_{format}"
labels = ["{labels}"]
"""
EXPORTS = [("people", "coco"), ("people", "webdataset"), ("people", "huggingface"), ("cells", "voc"), ("cells", "yolo")]


def rounded(numbers: Any) -> tuple[float, ...]:
    return tuple(round(float(number), 6) for number in numbers)


def coco_objects(file: Path) -> Counter[Any]:
    """What pycocotools reads: class, box, area, crowd and mask of each object, with the picture's first name."""
    with redirect_stdout(io.StringIO()):
        truth: Any = COCO(str(file))
    names = {each["id"]: each["name"] for each in truth.dataset["categories"]}
    pictures = {
        each["id"]: each.get("visionlake", {}).get("image_name") or each["file_name"] for each in truth.imgs.values()
    }
    return Counter(
        (pictures[each["image_id"]], names[each["category_id"]], each["category_id"], rounded(each["bbox"]),
         round(each["area"], 6), each["iscrowd"], as_text(truth.annToRLE(each)["counts"]))
        for each in truth.anns.values()
    )  # fmt: skip


def as_text(counts: str | bytes) -> str:
    return counts.decode() if isinstance(counts, bytes) else counts


def voc_objects(folder: Path) -> Counter[Any]:
    """What ElementTree reads: class, edges and marks of each object, with the picture's first name."""
    found = Counter()
    for file in folder.glob("*.xml"):
        root = ElementTree.parse(file).getroot()
        name = root.findtext("visionlake/image_name") or root.findtext("filename") or ""
        for each in root.iter("object"):
            box = rounded(each.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
            marks = tuple(each.findtext(mark) for mark in ("pose", "truncated", "difficult"))
            found[(Path(name).stem, each.findtext("name"), box, marks)] += 1
    return found


@pytest.mark.long
@pytest.mark.skipif(not (COCO_FILE.is_file() and VOC.is_dir()), reason="the data sets are not here")
def test_what_was_imported_comes_out_the_same(tmp_path: Path, spark: SparkSession) -> None:
    path = tmp_path / "p.toml"
    exports = "".join(EXPORT.format(labels=labels, format=name) for labels, name in EXPORTS)
    # The one of YOLO is the last: boxes, where polygons are the default.
    path.write_text(HEAD + REAL.format(data=DATA) + exports + 'task = "detection"\n')
    result = run(load_pipeline(path), spark=spark)
    assert [each.status for each in result.stages] == ["done"] * 9
    lake = Lake(tmp_path / "lake", spark=spark)
    sets = {row["export"]: Path(unquote(urlsplit(row["uri"]).path)) for row in lake.table("exports").collect()}
    media = {row["media_id"]: unquote(row["uri"]).rpartition("/")[2] for row in lake.table("sources").collect()}

    file = sets["people_coco"] / "annotations" / "instances_train.json"
    expected = coco_objects(COCO_FILE)
    assert coco_objects(file) == expected
    assert expected.total() > 800
    with redirect_stdout(io.StringIO()):
        pictures = CocoDetection(str(sets["people_coco"] / "images" / "train"), str(file))
    assert len(pictures) == 80
    assert sum(len(target) for _, target in pictures) == expected.total()
    original = {p.name: p.read_bytes() for p in (DATA / "coco-tiny" / "val2017").iterdir()}
    copies = {media[p.name.split("_")[0]]: p.read_bytes() for p in (sets["people_coco"] / "images/train").iterdir()}
    assert copies == original, "pictures are the files that they came from"

    boxes = Counter(each[:4] for each in expected.elements())
    tars = sorted(map(str, (sets["people_webdataset"] / "train").glob("*.tar")))
    shards = WEBDATASET.WebDataset(tars, shardshuffle=False, empty_check=False).decode("pil")
    told = [sample["json"] for sample in shards]
    assert boxes == Counter(
        (media[each["media_id"]], o["label"], o["category_id"], corner_form(o["box"]))
        for each in told
        for o in each["objects"]
    )
    rows: Any = datasets.load_dataset(str(sets["people_huggingface"]), split="train", cache_dir=str(tmp_path / "hf"))
    names = rows.features["objects"]["category"].feature.names
    named = Counter(each[:2] + each[3:4] for each in expected.elements())
    assert named == Counter(
        (media[row["media_id"]], names[category], rounded(box))
        for row in rows.remove_columns("image")
        for category, box in zip(row["objects"]["category"], row["objects"]["bbox"], strict=True)
    )

    cells = voc_objects(VOC / "Annotations")
    assert cells.total() == 4888
    assert voc_objects(sets["cells_voc"] / "Annotations") == cells
    labels = sets["cells_yolo"]
    classes = [line.split(": ")[1] for line in (labels / "data.yaml").read_text().split("names:\n")[1].splitlines()]
    found = Counter()
    sizes = {row["media_id"]: (row["width_px"], row["height_px"]) for row in lake.table("frames").collect()}
    for file in (labels / "labels" / "train").glob("*.txt"):
        media_id = file.stem.split("_")[0]
        for line in file.read_text().splitlines():
            place, x, y, width, height = (float(word) for word in line.split())
            across, down = sizes[media_id]
            edges = (x - width / 2) * across + 1, (y - height / 2) * down + 1
            box = rounded((*edges, (x + width / 2) * across, (y + height / 2) * down))
            found[(Path(media[media_id]).stem, json.loads(classes[int(place)]), box)] += 1
    assert found == Counter(each[:3] for each in cells.elements())


def corner_form(box: Any) -> tuple[float, ...]:
    return rounded((box[0], box[1], box[2] - box[0], box[3] - box[1]))


@pytest.mark.long
def test_frames_of_videos_find_their_times_again(tmp_path: Path, spark: SparkSession) -> None:
    """Exported frames of videos, some of a variable rate, turned or damaged, are imported to the same keys."""
    make_sample(tmp_path / "sample", videos=5, seconds=2.0)
    first = HEAD + (
        'fps = 3\n[ingest_media]\ninputs = ["sample/media"]\nmin_age_s = 0\n'
        '[import_annotations.truth]\nformat = "coco"\ninputs = ["sample/annotations.json"]\n'
    )
    path = tmp_path / "p.toml"
    formats = ("coco", "voc", "yolo")
    path.write_text(first + "".join(EXPORT.format(labels="truth", format=name) for name in formats))
    result = run(load_pipeline(path), spark=spark)
    assert result.exit_code == 0, result
    lake = Lake(tmp_path / "lake", spark=spark)
    out = {row["format"]: unquote(urlsplit(row["uri"]).path) for row in lake.table("exports").collect()}
    again = {"coco": f"{out['coco']}/annotations", "voc": f"{out['voc']}/Annotations", "yolo": out["yolo"]}
    back = (f'[import_annotations.{name}]\nformat = "{name}"\ninputs = ["{again[name]}"]\n' for name in formats)
    path.write_text(first + "".join(back))
    result = run(load_pipeline(path), spark=spark)
    assert result.exit_code == 0, result

    def told(source: str) -> dict[Any, Any]:
        rows = lake.table("annotations").where(f"source = '{source}'").collect()
        return {
            (row["media_id"], row["stream_index"], row["pts"]): sorted(
                (o["label"], rounded(o["box"]), o["iscrowd"], o["mask"] and o["mask"]["counts"], o["track_id"])
                for o in row["instances"]
            )
            for row in rows
        }

    extracted = {(row["media_id"], row["stream_index"], row["pts"]) for row in lake.table("frames").collect()}
    bad = lake.table("quarantine").where("stage = 'import_annotations'").select("reason", "message").collect()
    assert bad == []
    truth = {key: objects for key, objects in told("truth").items() if key in extracted}
    assert told("coco") == truth
    assert len(truth) > 20
    for name in ("voc", "yolo"):  # by the names of their pictures
        found = told(name)
        assert found.keys() == truth.keys()
        for key, objects in truth.items():
            kept = [each for each in objects if name == "voc" or not each[2]]
            assert Counter(each[0] for each in found[key]) == Counter(each[0] for each in kept)
            if name == "voc":
                boxes = [sorted(each[:2] for each in side) for side in (found[key], kept)]
                assert boxes[0] == [(label, pytest.approx(box, abs=1e-4)) for label, box in boxes[1]]
