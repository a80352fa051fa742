"""What files say, from their text to rows: categories resolved, damage told, and pictures put together from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from visionlake.expectations._table import arrow_schema
from visionlake.jobs.import_annotations import PLACED
from visionlake.udfs.ontology import Ontology
from visionlake.udfs.place_annotations import PlaceOptions, place_annotations
from visionlake.udfs.read_annotations import read_annotations
from visionlake.udfs.rle import decode_mask, encode_mask
from visionlake.udfs.uris import to_uri


def said(format_name: str, *paths: Path) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pydict({"uri": [to_uri(path) for path in paths]})
    rows = [row for found in read_annotations([batch], format_name=format_name) for row in found.to_pylist()]
    return [row | {"body": json.loads(row["body"])} for row in rows]


def placed(items: list[dict[str, Any]], **facts: Any) -> list[dict[str, Any]]:
    """Rows for one picture of 40 x 20 pixels, of which all items are said."""
    options = PlaceOptions(source="s", ontology=facts.pop("ontology", None), turn=facts.pop("turn", "auto"))
    still = {"width_px": 40, "height_px": 20, "exif_orientation": None}
    group = {
        "items": [{name: row[name] for name in ("uri", "place", "kind")} | {"body": json.dumps(row["body"])}
                  for row in items],
        "media_id": "m", "kind": "image", "still": still, "video_streams": [], "frame_index": None, "reason": None,
        "message": None, **facts,
    }  # fmt: skip
    batch = pa.RecordBatch.from_pylist([group])
    found = place_annotations([batch], schema=arrow_schema(PLACED), options=options)
    return [row for rows in found for row in rows.to_pylist()]


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A set of three pictures, the third without labels."""
    for folder in ("images/train", "labels/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    for number in range(3):
        (tmp_path / f"images/train/{number}.png").touch()
    (tmp_path / "labels/train/0.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    (tmp_path / "labels/train/1.txt").write_bytes(b"1 0.5 \xff 0.25 0.5\n")
    return tmp_path


def test_files_of_one_picture_meet_and_those_without_labels_show_nothing(yolo: Path) -> None:
    rows = said("yolo", *sorted(path for path in yolo.rglob("*") if path.is_file()))
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["picture"].rpartition("/")[2], []).append(row)
    assert sorted(groups) == ["0", "1", "2"]
    (dog,) = placed(groups["0"])[0]["annotations"]["instances"]
    assert (dog["label"], dog["label_id"]) == ("dog", 1)
    assert dog["box"] == {"x_min": 15.0, "y_min": 5.0, "x_max": 25.0, "y_max": 15.0}
    (damaged,) = placed(groups["1"])  # that it shows nothing is not known
    assert damaged["annotations"] is None and damaged["error"]["reason"] == "not_text"
    (empty,) = placed(groups["2"])
    assert empty["annotations"]["instances"] == []


def coco(path: Path, **content: Any) -> Path:
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": [], **content}))
    return path


def test_categories_count_wherever_they_stand_in_a_file(tmp_path: Path) -> None:
    box = {"image_id": 1, "bbox": [1, 2, 3, 4]}
    shapes = [
        {"id": 1, "category_id": 5, **box},
        {"id": 2, "category_id": 6, **box},
        {"id": 1, "category_id": 5, **box},
    ]
    path = coco(tmp_path / "a.json", annotations=shapes, categories=[{"id": 5, "name": "cat", "keypoints": ["nose"]}])
    picture, cat, *bad = said("coco", path)
    assert (picture["kind"], picture["name"], cat["body"]["label"], cat["body"]["label_id"]) == (
        "picture", "a.png", "cat", 5,
    )  # fmt: skip
    assert [row["body"]["reason"] for row in bad] == ["category_unknown", "duplicate_id"]
    assert {row["picture"] for row in (picture, cat, *bad)} == {f"{to_uri(path)}#1"}


def test_of_a_file_that_breaks_off_nothing_goes_on(tmp_path: Path) -> None:
    path = coco(tmp_path / "a.json")
    path.write_text(path.read_text()[:-3])
    (row,) = said(
        "coco",
        path,
    )
    assert (row["kind"], row["body"]["reason"], row["body"]["is_whole"]) == ("problem", "truncated", True)
    (gone,) = said("coco", tmp_path / "gone.json")
    assert gone["body"]["reason"] == "read_failed"


def shown(**more: Any) -> list[dict[str, Any]]:
    picture = {"uri": "u", "place": 0, "kind": "picture", "body": {"key": "k", "name": "a.png", **more}}
    shape = {"uri": "u", "place": 1, "kind": "shape", "body": {"picture": "k", "label": "cat", "box": [1, 2, 5, 8]}}
    return [picture, shape]


@pytest.mark.parametrize(
    ("orientation", "size", "turn", "box"),
    [
        (6, (40, 20), "auto", (12.0, 1.0, 18.0, 5.0)),  # as it is stored
        (6, (20, 40), "auto", (1.0, 2.0, 5.0, 8.0)),  # as it is shown
        (6, None, "auto", (1.0, 2.0, 5.0, 8.0)),
        (6, None, "stored", (12.0, 1.0, 18.0, 5.0)),
        (3, (40, 20), "auto", (35.0, 12.0, 39.0, 18.0)),
        (3, (40, 20), "upright", (1.0, 2.0, 5.0, 8.0)),
        (6, (40, 20), "upright", None),
        (1, (41, 20), "auto", None),
    ],
)
def test_the_size_or_the_setting_says_how_a_picture_lay(
    orientation: int, size: tuple[int, int] | None, turn: Any, box: tuple[float, ...] | None
) -> None:
    still = {"width_px": 40, "height_px": 20, "exif_orientation": orientation}
    more = {"width_px": size[0], "height_px": size[1]} if size else {}
    (row,) = placed(shown(**more), still=still, turn=turn)
    if box is None:
        assert row["error"]["reason"] == "size_mismatch" and "1 annotations" in row["error"]["message"]
    else:
        assert tuple(row["annotations"]["instances"][0]["box"].values()) == box


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_frame_that_is_named_by_its_time_is_upright_and_may_be_stored_smaller(orientation: int) -> None:
    sides = (20, 40) if orientation == 6 else (40, 20)
    still = {"width_px": 40, "height_px": 20, "exif_orientation": orientation}
    items = shown(width_px=sides[0] // 2, height_px=sides[1] // 2, pts=0)
    small = np.zeros((sides[1] // 2, sides[0] // 2), bool)
    small[2:8, 1:5] = True
    items[1]["body"] |= {"mask": [*small.shape, encode_mask(small)["counts"]], "area_px": 24.0}
    (row,) = placed(items, still=still, stream_index=0, pts=0)
    found = row["annotations"]
    assert (found["full_width_px"], found["full_height_px"]) == sides
    (cat,) = found["instances"]
    assert tuple(cat["box"].values()) == (2.0, 4.0, 10.0, 16.0)
    assert (cat["mask"]["size"], cat["area"]) == ([sides[1], sides[0]], 96.0)
    assert np.array_equal(decode_mask(cat["mask"]), small.repeat(2, axis=0).repeat(2, axis=1))
    (row,) = placed(shown(width_px=10, height_px=10, pts=0), still=still, stream_index=0, pts=0)
    assert row["error"]["reason"] == "size_mismatch", "another shape is no smaller picture"


def test_labels_are_those_of_the_project(tmp_path: Path) -> None:
    assert (
        placed(shown(), ontology=Ontology(classes=("pet",), aliases=(("cat", "pet"),)))[0]["annotations"]["instances"][
            0
        ]["label"]
        == "pet"
    )
    assert placed(shown(), ontology=Ontology(classes=("pet",), drop=("cat",)))[0]["annotations"]["instances"] == []
    rows = placed(shown(), ontology=Ontology(classes=("pet",)))
    assert [row["error"] and row["error"]["reason"] for row in rows] == [None, "label_unknown"]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"reason": "unmatched", "message": "none"}, "unmatched"),
        ({"frame_index": 3}, "not_a_video"),
        ({"stream_index": 0, "pts": 7}, "frame_missing"),
        ({"stream_index": 1, "pts": 0}, "frame_missing"),
        ({"kind": "video"}, "frame_number_missing"),
        ({"kind": "video", "frame_index": 3, "uri": None, "elsewhere": None}, "source_missing"),
        ({"still": {"width_px": None, "height_px": None, "exif_orientation": None}}, "size_unknown"),
    ],
)
def test_a_picture_that_cannot_be_placed_is_one_bad_row(facts: dict[str, Any], reason: str) -> None:
    (row,) = placed(shown(), **facts)
    assert row["error"]["reason"] == reason and row["output_key"] == "u#0" and row["source"] == "s"


def test_a_broken_list_of_classes_leaves_pictures_unknown_and_is_read_once_a_run(yolo: Path) -> None:
    names = yolo / "data.yaml"
    names.write_text("names: [cat, dog\n")
    labels = yolo / "labels/train/0.txt"
    (damaged,) = placed([*said("yolo", labels), *said("yolo", yolo / "images/train/0.png")])
    assert damaged["annotations"] is None
    assert damaged["error"]["reason"] == "not_yaml"
    assert str(names) in damaged["error"]["message"]
    # A worker lives on, and the file is mended.
    names.write_text("names: [cat, ant]\n")
    assert [row["body"]["label"] for row in said("yolo", labels)] == ["ant"]


def test_classes_of_which_two_have_one_id_are_not_guessed(tmp_path: Path) -> None:
    names = [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "bee"}, {"id": 2, "name": "bee"}]
    shapes = [{"id": n, "category_id": n, "image_id": 1, "bbox": [1, 2, 3, 4]} for n in (1, 2)]
    path = coco(tmp_path / "a.json", categories=names, annotations=shapes)
    _, twin, bee = said("coco", path)
    assert (twin["kind"], twin["body"]["reason"]) == ("problem", "category_ambiguous")
    assert "'cat' and 'dog'" in twin["body"]["message"]
    assert bee["body"]["label"] == "bee"


def test_unknown_classes_are_told_with_a_few_of_those_there_are(tmp_path: Path) -> None:
    names = [{"id": n, "name": f"c{n:02}"} for n in range(13)]
    shape = {"id": 1, "category_id": 99, "image_id": 1, "bbox": [1, 2, 3, 4]}
    problem = said("coco", coco(tmp_path / "a.json", categories=names, annotations=[shape]))[1]
    assert problem["body"]["message"].endswith("it lists c00, c01, c02, c03, c04, c05, c06, c07, c08, c09 and 3 more")


def test_text_that_no_table_can_hold_spoils_nothing(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text('names: ["a\\uD800b", ok]\n')
    (tmp_path / "0.txt").write_text("0 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n")
    first, second = said("yolo", tmp_path / "0.txt")
    assert (first["body"]["label"], second["body"]["label"]) == ("a?b", "ok")


def test_errors_name_file_picture_and_annotation(tmp_path: Path) -> None:
    content = {
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 8, "category_id": 1, "image_id": 1, "bbox": [1, 2, 0, 4]},
            {"id": 9, "category_id": 1, "image_id": 1, "bbox": [1]},
        ],
    }
    rows = placed(said("coco", coco(tmp_path / "in.json", **content)))
    messages = sorted(row["error"]["message"] for row in rows if row["error"])
    assert messages[0].startswith("in.json: a.png: annotation 8: the box is 0 x 4 px")
    assert messages[1].startswith("in.json: annotation 9: bbox is [1]")


def test_a_frame_of_a_video_is_no_still_of_its_name(tmp_path: Path) -> None:
    (row,) = placed(said("coco", coco(tmp_path / "in.json")), frame_index=0)
    assert row["error"]["reason"] == "not_a_video"
