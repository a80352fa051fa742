"""COCO's JSON as it is found: every good entry comes out exactly, every bad one is said, and no file fills memory."""

from __future__ import annotations

import codecs
import itertools
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from visionlake.udfs import uris
from visionlake.udfs.annotation_formats import coco, find_format
from visionlake.udfs.annotation_types import (
    AnnotationError,
    Box,
    Category,
    Keypoint,
    Picture,
    Problem,
    Runs,
    Said,
    Shape,
)

REAL = Path(__file__).resolve().parents[2].parent / "shared/data/coco-tiny/annotations/instances_val2017.json"
IMAGE = {"id": 7, "file_name": "a/cat.jpg", "width": 640, "height": 480}
ANNOTATION = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}
CATEGORY = {"id": 3, "name": "cat"}


def write(tmp_path: Path, content: str | bytes | dict[str, Any]) -> str:
    path = tmp_path / "in.json"
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return uris.to_uri(path)


def said(tmp_path: Path, content: str | bytes | dict[str, Any]) -> list[Said]:
    return list(coco.read(write(tmp_path, content)))


def document(**lists: Any) -> dict[str, Any]:
    return {"images": [IMAGE], "annotations": [ANNOTATION], "categories": [CATEGORY]} | lists


def shape_of(tmp_path: Path, **entries: Any) -> Shape:
    """The shape of an annotation with these entries, and without those that are None."""
    merged = ANNOTATION | entries
    kept = {name: value for name, value in merged.items() if value is not None}
    (found,) = (
        each for each in said(tmp_path, document(annotations=[kept])) if not isinstance(each, Picture | Category)
    )
    assert isinstance(found, Shape), found
    return found


def test_a_whole_file(tmp_path: Path) -> None:
    assert find_format("coco").FILES == ("*.json",)
    uri = write(
        tmp_path,
        {
            "info": {"year": 2017, "deep": [[{"x": [1]}], "]"]},
            "images": [
                {
                    **IMAGE,
                    "license": 3,
                    "date_captured": "2013-11-14",
                    "coco_url": "http://x/1",
                    "seen": [1, {"a": "\u00e4"}],
                },
                {"id": "b", "file_name": "s3://bucket/b.png", "sha256": "AB" * 32, "is_test": True, "none": None},
            ],
            "licenses": [{"id": 3, "name": "none"}],
            "version": 1.5,
            "categories": [
                {**CATEGORY, "supercategory": "animal", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}
            ],
            "annotations": [
                {
                    **ANNOTATION,
                    "segmentation": [[1, 2, 3.5, 4, 5, 6], [0, 0, 1, 0, 0, 1]],
                    "area": 12.5,
                    "iscrowd": 0,
                    "keypoints": [1, 2.5, 2, 0, 0, 0],
                    "num_keypoints": 1,
                    "score": 0.25,
                    "attributes": {"occluded": False, "track_id": 3, "colour": "red", "score": "older", "tags": []},
                }
            ],
        },
    )
    assert list(coco.read(uri)) == [
        Picture(
            key=f"{uri}#7",
            name="a/cat.jpg",
            width_px=640,
            height_px=480,
            attributes={
                "license": "3",
                "date_captured": "2013-11-14",
                "coco_url": "http://x/1",
                "seen": '[1,{"a":"\u00e4"}]',
            },
        ),
        Picture(key=f"{uri}#b", name="s3://bucket/b.png", sha256="ab" * 32, attributes={"is_test": "true"}),
        Category(key=f"{uri}#3", label="cat", label_id=3, keypoints=("nose", "tail")),
        Shape(
            picture=f"{uri}#7",
            category=f"{uri}#3",
            id="1",
            box=Box(1, 2, 4, 6),
            polygons=((1.0, 2.0, 3.5, 4.0, 5.0, 6.0), (0.0, 0.0, 1.0, 0.0, 0.0, 1.0)),
            keypoints=(Keypoint("0", 1.0, 2.5, 2), Keypoint("1", 0.0, 0.0, 0)),
            area_px=12.5,
            track_id="3",
            attributes={"occluded": "false", "colour": "red", "score": "0.25", "tags": "[]"},
        ),
    ]


def test_the_order_of_the_lists_does_not_matter(tmp_path: Path) -> None:
    lists = [(name, value) for name, value in document().items()]
    found = [said(tmp_path, dict(order)) for order in itertools.permutations(lists)]
    assert all(sorted(map(repr, each)) == sorted(map(repr, found[0])) for each in found)
    assert len(found[0]) == 3 and not any(isinstance(each, Problem) for each in found[0])


@pytest.mark.parametrize(
    ("bbox", "box"),
    [
        ([0, 0, 640, 480], (0.0, 0.0, 640.0, 480.0)),
        ([0.1, 1e-3, 0.2, 1e2], (0.1, 0.001, 0.1 + 0.2, 0.001 + 100.0)),
        ([385.53, 60.03, 214.97, 297.16], (385.53, 60.03, 385.53 + 214.97, 60.03 + 297.16)),
        ([-5, -7.5, 9999, 0], (-5.0, -7.5, 9994.0, -7.5)),
        ([], None),
    ],
)
def test_boxes_are_exact_and_never_clipped(tmp_path: Path, bbox: Any, box: tuple[float, ...] | None) -> None:
    assert shape_of(tmp_path, bbox=bbox).box == box


@pytest.mark.parametrize(
    ("segmentation", "polygons", "mask"),
    [
        ([], None, None),
        ([[1, 2, 3]], ((1.0, 2.0, 3.0),), None),  # a later step judges it
        ({"size": [2, 3], "counts": [1, 2, 3]}, None, Runs(2, 3, [1, 2, 3])),
        ({"counts": "05", "size": [2, 3]}, None, Runs(2, 3, "05")),
    ],
)
def test_segmentations(tmp_path: Path, segmentation: Any, polygons: Any, mask: Runs | None) -> None:
    found = shape_of(tmp_path, segmentation=segmentation, bbox=None)
    assert (found.box, found.polygons, found.mask) == (None, polygons, mask)


@pytest.mark.parametrize(("iscrowd", "is_crowd"), [(0, False), (1, True), (False, False), (True, True), (None, False)])
def test_crowds(tmp_path: Path, iscrowd: Any, is_crowd: bool) -> None:
    assert shape_of(tmp_path, iscrowd=iscrowd).is_crowd is is_crowd


def test_what_may_be_left_out(tmp_path: Path) -> None:
    found = shape_of(tmp_path, id=None, category_id=None, track_id="t", attributes={"track_id": 3}, keypoints=[])
    assert (found.id, found.category, found.track_id, found.keypoints) == (None, None, "t", None)
    assert found.attributes == {} and found.area_px is None


def test_attributes_that_are_no_object_are_kept(tmp_path: Path) -> None:
    assert shape_of(tmp_path, attributes=["round", 4]).attributes == {"attributes": '["round",4]'}


def test_a_label_id_that_no_column_would_take_is_left_out(tmp_path: Path) -> None:
    ids = (-1, 2**31 - 1, 2**31, "x")
    found = said(tmp_path, document(images=[], annotations=[], categories=[{"id": i, "name": "n"} for i in ids]))
    assert [each.label_id for each in found if isinstance(each, Category)] == [-1, 2**31 - 1, None, None]


def test_names_that_are_urls_stay(tmp_path: Path) -> None:
    names = ("https://host/../a.jpg", "s3://bucket/a.jpg", "..a/b...jpg", "a..b/c.jpg", "sub\\c.jpg", "C")
    found = said(tmp_path, document(images=[{"id": n, "file_name": n} for n in names]))
    assert tuple(each.name for each in found if isinstance(each, Picture)) == names


@pytest.mark.parametrize(
    ("entries", "reason", "shown"),
    [
        ({"id": 1.0}, "id_invalid", "id is 1.0"),
        ({"id": True}, "id_invalid", "id is true"),
        ({"id": None}, "id_invalid", "id is missing or null"),
        ({"id": ""}, "id_invalid", 'id is ""'),
        ({"id": [1]}, "id_invalid", "id is [1]"),
        ({"file_name": None}, "name_missing", "file_name is missing"),
        ({"file_name": 5}, "name_missing", "file_name is 5"),
        ({"file_name": " "}, "name_missing", 'file_name is " "'),
        ({"file_name": "/etc/passwd"}, "name_unsafe", "/etc/passwd"),
        ({"file_name": "\\\\host\\a.jpg"}, "name_unsafe", "host"),
        ({"file_name": "C:/a.jpg"}, "name_unsafe", "C:/a.jpg"),
        ({"file_name": "a/../../b.jpg"}, "name_unsafe", "a/../../b.jpg"),
        ({"file_name": "..\\b.jpg"}, "name_unsafe", "b.jpg"),
        ({"width": 0}, "size_invalid", "width is 0"),
        ({"width": -3}, "size_invalid", "width is -3"),
        ({"height": 480.0}, "size_invalid", "height is 480.0"),
        ({"height": "480"}, "size_invalid", 'height is "480"'),
        ({"height": True}, "size_invalid", "height is true"),
        ({"sha256": "ab"}, "sha256_invalid", 'sha256 is "ab"'),
        ({"visionlake": 3}, "frame_invalid", "visionlake is 3"),
        ({"visionlake": {"stream_index": 0}}, "frame_invalid", "allowed are media_id, stream_index and pts"),
        ({"visionlake": {"stream_index": -1, "pts": 0}}, "frame_invalid", "-1"),
        ({"visionlake": {"stream_index": 1 << 31, "pts": 0}}, "frame_invalid", "2147483648"),
        ({"visionlake": {"stream_index": 0, "pts": 0.5}}, "frame_invalid", "0.5"),
        ({"visionlake": {"stream_index": 0, "pts": 0, "media_id": "x"}}, "sha256_invalid", 'sha256 is "x"'),
    ],
)
def test_bad_images(tmp_path: Path, entries: dict[str, Any], reason: str, shown: str) -> None:
    found = said(tmp_path, document(images=[IMAGE | entries, IMAGE]))
    assert_one_problem(found, reason, shown, picture=None)


@pytest.mark.parametrize(
    ("entries", "reason", "shown"),
    [
        ({"id": 1.5}, "id_invalid", "id is 1.5"),
        ({"id": None}, "id_invalid", "id is missing or null"),
        ({"category_id": False}, "id_invalid", "category_id is false"),
        ({"category_id": None}, "id_invalid", "category_id is missing or null"),
        ({"track_id": 2.5}, "id_invalid", "track_id is 2.5"),
        ({"bbox": [1, 2, 3]}, "box_invalid", "[1,2,3]"),
        ({"bbox": {"x": 1}}, "box_invalid", '{"x":1}'),
        ({"bbox": [1, 2, "3", 4]}, "number_invalid", 'bbox has "3"'),
        ({"bbox": [1, 2, True, 4]}, "number_invalid", "bbox has true"),
        ({"bbox": [1, 2, None, 4]}, "number_invalid", "bbox has missing or null"),
        ({"area": "12"}, "number_invalid", 'area has "12"'),
        ({"area": True}, "number_invalid", "area has true"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "segmentation_invalid", "[1,2,3,4,5,6]"),
        ({"segmentation": "x"}, "segmentation_invalid", '"x"'),
        ({"segmentation": {}}, "segmentation_invalid", "{}"),
        ({"segmentation": {"size": [2], "counts": "05"}}, "segmentation_invalid", '"size":[2]'),
        ({"segmentation": {"size": [2, 3.0], "counts": "05"}}, "segmentation_invalid", "3.0"),
        ({"segmentation": {"size": [2, 3], "counts": [1.5]}}, "segmentation_invalid", "1.5"),
        ({"segmentation": {"size": [2, 3]}}, "segmentation_invalid", "counts"),
        ({"segmentation": [[1, "2"]]}, "number_invalid", 'segmentation has "2"'),
        ({"iscrowd": 2}, "iscrowd_invalid", "iscrowd is 2"),
        ({"iscrowd": "1"}, "iscrowd_invalid", 'iscrowd is "1"'),
        ({"keypoints": [1, 2]}, "keypoints_invalid", "[1,2]"),
        ({"keypoints": [1, 2, 3]}, "keypoints_invalid", "[1,2,3]"),
        ({"keypoints": {"x": 1}}, "keypoints_invalid", '{"x":1}'),
        ({"keypoints": [1, 2, "2"]}, "number_invalid", 'keypoints has "2"'),
    ],
)
def test_bad_annotations(tmp_path: Path, entries: dict[str, Any], reason: str, shown: str) -> None:
    found = said(tmp_path, document(annotations=[ANNOTATION | entries, ANNOTATION]))
    assert_one_problem(found, reason, shown, picture=f"{uris.to_uri(tmp_path / 'in.json')}#7")


@pytest.mark.parametrize("image_id", [None, 7.0, {}])
def test_a_bad_annotation_of_no_image(tmp_path: Path, image_id: Any) -> None:
    found = said(tmp_path, document(annotations=[ANNOTATION | {"image_id": image_id}, ANNOTATION]))
    assert_one_problem(found, "id_invalid", "image_id is", picture=None)


@pytest.mark.parametrize(
    ("entries", "reason", "shown"),
    [
        ({"id": 3.0}, "id_invalid", "id is 3.0"),
        ({"name": None}, "name_missing", "name is missing"),
        ({"name": 4}, "name_missing", "name is 4"),
        ({"keypoints": "nose"}, "keypoints_invalid", '"nose"'),
        ({"keypoints": [1]}, "keypoints_invalid", "[1]"),
    ],
)
def test_bad_categories(tmp_path: Path, entries: dict[str, Any], reason: str, shown: str) -> None:
    found = said(tmp_path, document(categories=[CATEGORY | entries, CATEGORY]))
    assert_one_problem(found, reason, shown, picture=None)


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
@pytest.mark.parametrize("item", [None, 5, "text", [1]])
def test_items_that_are_no_objects(tmp_path: Path, section: str, item: Any) -> None:
    assert_one_problem(
        said(tmp_path, document(**{section: [item, document()[section][0]]})),
        "not_an_object",
        "an object",
        picture=None,
    )


def assert_one_problem(found: list[Said], reason: str, shown: str, *, picture: str | None) -> None:
    """The rest comes out all the same."""
    (problem,) = (each for each in found if isinstance(each, Problem))
    assert (problem.reason, problem.picture) == (reason, picture) and shown in problem.message, problem
    assert Counter(type(each) for each in found) == {Picture: 1, Shape: 1, Category: 1, Problem: 1}


def test_a_payload_is_the_object_and_short(tmp_path: Path) -> None:
    bad = ANNOTATION | {"bbox": 1, "note": "é"}
    problem, long = (
        each
        for each in said(tmp_path, document(annotations=[bad, bad | {"note": "x" * 5000}]))
        if isinstance(each, Problem)
    )
    assert problem.payload == json.dumps(bad, separators=(",", ":"), ensure_ascii=False)
    assert long.payload and len(long.payload) == 2000


@pytest.mark.parametrize(
    ("content", "reason", "shown"),
    [
        (b"", "empty_file", "empty"),
        (codecs.BOM_UTF8, "empty_file", "empty"),
        (b" \n", "truncated", "2 bytes"),
        (json.dumps(document())[:-1], "truncated", "JSON goes on"),
        (json.dumps(document())[:-30], "truncated", "JSON goes on"),
        ('{"images": [], "annotations": fals', "truncated", "JSON goes on"),
        ("path,label\n", "not_json", "path,label"),
        (b"\x1f\x8b\x08\x00", "not_json", "invalid char"),
        (b'{"images": [{"id": "\xff"}]}', "not_json", "UTF8"),
        ("[1,]", "not_json", "unallowed token"),
        (json.dumps(document()) + "{}", "not_json", "trailing garbage"),
        ('{"images": [], "annotations": [{"area": 1e999}]}', "number_too_large", "floating point"),
        ('{"images": [{"id": 9223372036854775808}], "annotations": []}', "number_too_large", "larger ids as text"),
        ("[]", "not_coco", "Label Studio"),
        ("5", "not_coco", "no object"),
        ("{}", "not_coco", "images and annotations"),
        ({"annotations": []}, "not_coco", "no list images"),
        ({"images": [IMAGE], "categories": []}, "not_coco", "no list annotations"),
        (document(images={}), "not_coco", "images is not a list"),
        (document(annotations=None), "not_coco", "annotations is not a list"),
        (document(categories={"3": "cat"}), "not_coco", "categories is not a list"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: Any, reason: str, shown: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        said(tmp_path, content)
    assert caught.value.reason == reason and shown in caught.value.message, caught.value


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(coco.read(uris.to_uri(tmp_path / "gone.json")))


def test_windows_tools_begin_with_a_mark(tmp_path: Path) -> None:
    assert len(said(tmp_path, codecs.BOM_UTF8 + json.dumps(document()).encode())) == 3


def test_numbers_that_are_none_spoil_their_own_annotation_only(tmp_path: Path) -> None:
    bad = [
        {"bbox": [1, 2, float("nan"), 4]},
        {"area": float("-inf")},
        {"segmentation": [[1, 2, float("inf"), 4, 5, 6]]},
    ]
    annotations = [ANNOTATION, *(ANNOTATION | {"id": 2 + place} | each for place, each in enumerate(bad))]
    found = [each for each in said(tmp_path, document(annotations=annotations)) if isinstance(each, Shape | Problem)]
    assert isinstance(found[0], Shape)
    assert [each.reason for each in found[1:] if isinstance(each, Problem)] == ["number_invalid"] * 3
    assert "NaN" in str(found[1]) and "-Infinity" in str(found[2]) and "Infinity" in str(found[3])


@pytest.mark.parametrize("place", ['{"images": [{"a": [%s', '{"info": [%s'])
@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("[" * 10**6, "nested_too_deep"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested_too_deep"),
        ('"' + "x" * (9 << 20), "object_too_large"),
        (" " * (9 << 20), "object_too_large"),
    ],
)
def test_hostile_files_are_let_go(tmp_path: Path, place: str, inner: str, reason: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        said(tmp_path, place % inner)
    assert caught.value.reason == reason


def test_an_object_of_very_many_parts_is_let_go(tmp_path: Path) -> None:
    parts = '{"":1},' * (5 << 18)
    with pytest.raises(AnnotationError, match="object_too_large"):
        said(tmp_path, f'{{"images": [{{"a": [{parts}')
    assert len(said(tmp_path, f'{{"info": [{parts}1], {json.dumps(document())[1:]}')) == 3  # not held, so allowed


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    small, large = (peak_bytes(tmp_path / f"{count}.json", count) for count in (400, 2000))
    assert large < 1.2 * small and large < 8 << 20


def peak_bytes(path: Path, count: int) -> int:
    """The most memory that reading a file of so many annotations takes; one of 2000 has 2 MB."""
    polygon = [[place / 8 for place in range(100)]]
    with path.open("w") as out:
        out.write('{"info": [' + ",".join(["[1]"] * 50_000) + '], "annotations": [')
        out.write(",".join(json.dumps(ANNOTATION | {"id": i, "segmentation": polygon}) for i in range(count)))
        out.write('], "images": [' + ",".join(json.dumps(IMAGE | {"id": i}) for i in range(count)) + "]}")
    tracemalloc.start()
    try:
        found = Counter(type(each) for each in coco.read(uris.to_uri(path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == {Shape: count, Picture: count}
    return peak


def test_a_file_of_a_store(tmp_path: Path) -> None:
    filesystem, path = uris.open_store("mock://host/sets/in.json")
    filesystem.create_dir("sets")
    with filesystem.open_output_stream(path) as out:
        out.write(json.dumps(document()).encode())
    assert [type(each) for each in coco.read("mock://host/sets/in.json")] == [Picture, Shape, Category]


def test_real_annotations_agree_with_a_plain_read() -> None:
    if not REAL.is_file():
        pytest.skip("coco-tiny is not here")
    plain = json.loads(REAL.read_bytes())
    found = list(coco.read(uris.to_uri(REAL)))
    shapes = [each for each in found if isinstance(each, Shape)]
    assert Counter(type(each) for each in found) == {
        Picture: len(plain["images"]),
        Shape: len(plain["annotations"]),
        Category: len(plain["categories"]),
    }
    assert sum(each.is_crowd for each in shapes) == sum(each["iscrowd"] for each in plain["annotations"])
    assert [each.box for each in shapes] == [
        (x, y, x + width, y + height) for x, y, width, height in (each["bbox"] for each in plain["annotations"])
    ]
    assert [each.area_px for each in shapes] == [each["area"] for each in plain["annotations"]]


def test_pictures_of_lvis_are_named_by_their_address(tmp_path: Path) -> None:
    image = {"id": 7, "coco_url": "http://images.example.org/val2017/000000000139.jpg"}
    picture = said(tmp_path, document(images=[image]))[0]
    assert isinstance(picture, Picture) and picture.name == image["coco_url"]


def test_polygons_without_a_point_are_none(tmp_path: Path) -> None:
    assert shape_of(tmp_path, segmentation=[[]]).polygons is None
    assert shape_of(tmp_path, segmentation=[[], [1, 1, 2, 1, 2, 2]]).polygons == ((1, 1, 2, 1, 2, 2),)


def test_half_of_a_surrogate_pair_is_told(tmp_path: Path) -> None:
    content = json.dumps(document(categories=[CATEGORY | {"name": "a\udce9"}]))
    try:
        _, _, category = said(tmp_path, content)
    except AnnotationError as error:
        assert error.reason == "not_text"
    else:
        assert isinstance(category, Category) and category.label.startswith("a")
