"""YOLO's layout as it is found: pictures and labels meet, every good line comes out exactly, every bad one is said."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from visionlake.udfs import uris
from visionlake.udfs.annotation_formats import find_format, yolo
from visionlake.udfs.annotation_types import AnnotationError, Box, Category, Picture, Problem, Said, Shape

GOOD = "2 0.5 0.25 0.5 0.125"


def write(path: Path, content: str | bytes = b"") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return uris.to_uri(path)


def labels(tmp_path: Path, content: str | bytes) -> list[Said]:
    return list(yolo.read(write(tmp_path / "labels/1.txt", content)))


def picture(uri: str) -> Picture:
    (found,) = yolo.read(uri)
    assert isinstance(found, Picture)
    return found


@pytest.mark.parametrize(
    "name", ["data.yaml", "1.txt", "a.JPG", "a.jpeg", "a.png", "a.webp", "a.bmp", "a.tif", "a.tiff"]
)
def test_its_files_are_found_by_name(name: str) -> None:
    assert any(fnmatchcase(name.lower(), pattern) for pattern in find_format("yolo").FILES)


def test_boxes_and_polygons_are_shares_exactly_as_written(tmp_path: Path) -> None:
    first, second, third = labels(tmp_path, f"\ufeff{GOOD}\r\n\n  \n0 0.1 0.2 1.5 -0.25 1e-3 1\n007 nan .5 inf 1\n")
    assert isinstance(first, Shape) and isinstance(second, Shape) and isinstance(third, Shape)
    key = first.picture
    assert first == Shape(picture=key, category="2", box=Box(0.25, 0.1875, 0.75, 0.3125))
    assert second == Shape(picture=key, category="0", polygons=[[0.1, 0.2, 1.5, -0.25, 0.001, 1.0]])
    # What is no finite number is left to the step that judges coordinates.
    assert third.category == "7" and str(third.box) == "Box(x_min=nan, y_min=0.0, x_max=nan, y_max=1.0)"


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/1.jpg", "labels/train/1.txt"),
        ("train/images/1.JPG", "train/labels/1.txt"),
        ("both/1.png", "both/1.txt"),
        ("images/a/images/b.c/1.x.jpg", "images/a/labels/b.c/1.x.txt"),
        ("images2/my images/1.jpg", "images2/my images/1.txt"),
        ("images/ü #1?%20.jpg", "labels/ü #1?%20.txt"),
    ],
)
def test_a_picture_and_its_labels_meet(tmp_path: Path, image: str, label: str) -> None:
    found = picture(uris.to_uri(tmp_path / image))  # which is not there: a picture's file is not opened
    assert found.name == f"{tmp_path}/{image}".lstrip("/")
    assert (found.unit, found.width_px, found.frame_index, found.attributes) == ("share", None, None, {})
    (shape,) = yolo.read(write(tmp_path / label, GOOD))
    assert isinstance(shape, Shape) and shape.picture == found.key


def test_same_paths_in_two_stores_are_two_pictures() -> None:
    keys = {picture(f"s3://{bucket}/images/1.jpg").key for bucket in ("a", "b", "images")}
    assert len(keys) == 3


def test_a_name_that_is_not_utf8_can_be_stored(tmp_path: Path) -> None:
    found = picture(uris.to_uri(tmp_path / os.fsdecode(b"\xff.jpg")))
    assert found.name.endswith("/\ufffd.jpg") and found.key.endswith("/%FF")


def test_labels_in_a_store(tmp_path: Path) -> None:
    filesystem, path = uris.open_store("mock://host/labels/1.txt")
    filesystem.create_dir("labels")
    with filesystem.open_output_stream(path) as out:
        out.write(GOOD.encode())
    (shape,) = yolo.read("mock://host/labels/1.txt")
    assert isinstance(shape, Shape) and shape.picture == picture("mock://host/images/1.png").key


def test_an_empty_file_of_labels_says_nothing_and_is_no_error(tmp_path: Path) -> None:
    assert labels(tmp_path, "") == labels(tmp_path, "\n \n") == []


@pytest.mark.parametrize("name", ["classes.txt", "train.txt", "Val.txt", "test.txt"])
def test_lists_beside_the_labels_are_left_out(tmp_path: Path, name: str) -> None:
    assert list(yolo.read(write(tmp_path / name, "images/1.jpg\n"))) == []


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        ("2 0.5 0.5 0.5", "line_invalid", "4 words; allowed are 5"),
        ("2 0.5 0.5 0.5 0.5 0.9", "line_invalid", "6 words"),
        ("2 0 0 1 1 1 0 0.5", "line_invalid", "8 words"),
        ("2", "line_invalid", "1 words"),
        ("2.0 0.5 0.5 0.5 0.5", "number_invalid", "'2.0'; allowed are whole numbers"),
        ("-1 0.5 0.5 0.5 0.5", "number_invalid", "'-1'"),
        ("nan 0.5 0.5 0.5 0.5", "number_invalid", "'nan'"),
        ("99999999999 0.5 0.5 0.5 0.5", "number_invalid", "to 999999999"),
        ("٣ 0.5 0.5 0.5 0.5", "number_invalid", "the class"),
        ("2 0.5 x 0.5 0.5", "number_invalid", "'x' is no number"),
        ("2 0.5 0,5 0.5 0.5", "number_invalid", "'0,5'"),
        ("2 1_0 0.5 0.5 0.5", "number_invalid", "'1_0'"),
        ("2 0 0 1 1 1 \0", "number_invalid", r"'\x00'"),
    ],
)
def test_a_bad_line_is_said_and_the_rest_comes_out(tmp_path: Path, line: str, reason: str, words: str) -> None:
    first, bad, last = labels(tmp_path, f"{GOOD}\n {line} \n{GOOD}\n")
    assert isinstance(first, Shape) and first == last
    assert isinstance(bad, Problem)
    assert (bad.reason, bad.picture, bad.payload) == (reason, first.picture, line)
    assert bad.message.startswith("line 2: ") and words in bad.message


def test_a_long_bad_line_is_cut(tmp_path: Path) -> None:
    (bad,) = labels(tmp_path, "0 " + "1 " * 5001)
    assert isinstance(bad, Problem) and bad.payload is not None and len(bad.payload) == 2000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"0 0.5 0.5 0.5 \xff", "not_text"),
        (GOOD.encode("utf-16"), "not_text"),
        (b"0 " * (1 << 20), "too_large"),
        (b"\n" * ((64 << 20) + 1), "too_large"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        labels(tmp_path, content)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: [cat, 'a dog']", {"0": "cat", "1": "a dog"}),
        ("nc: 2\nnames:\n- no\n- 007\nkpt_shape: [17, 3]", {"0": "no", "1": "007"}),
        ("names:\n  3: Straße\n  0: 1.50\n  7: null", {"3": "Straße", "0": "1.50", "7": "null"}),
        ("names: !!python/object:os.system [cat]", {"0": "cat"}),
    ],
)
def test_names_of_classes_are_texts_as_written(tmp_path: Path, names: str, expected: dict[str, str]) -> None:
    for name in ("data.yaml", "dataset.yaml"):
        found = list(yolo.read(write(tmp_path / name, f"path: ../x\ntrain: images/train\n{names}\n")))
        assert found == [Category(key=key, label=label, label_id=int(key)) for key, label in expected.items()]


@pytest.mark.parametrize(
    ("entry", "reason", "words"),
    [
        ("x: dog", "number_invalid", "'x'"),
        ("-1: dog", "number_invalid", "'-1'"),
        ("1.0: dog", "number_invalid", "'1.0'"),
        ("12345678901: dog", "number_invalid", "999999999"),
        ("1: ''", "label_missing", "class 1 is missing"),
        ("1: [a, b]", "label_missing", "['a', 'b']"),
    ],
)
def test_a_bad_name_is_said_and_the_rest_comes_out(tmp_path: Path, entry: str, reason: str, words: str) -> None:
    bad, good = yolo.read(write(tmp_path / "data.yaml", f"names:\n  {entry}\n  2: cat\n"))
    assert good == Category(key="2", label="cat", label_id=2)
    assert isinstance(bad, Problem) and bad.picture is None and bad.payload
    assert bad.reason == reason and words in bad.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty_file"),
        (" \n", "empty_file"),
        ("train: images", "names_missing"),
        ("names:", "names_missing"),
        ("names: []", "names_missing"),
        ("names: cat", "names_missing"),
        ("- names", "names_missing"),
        ("names: [cat", "not_yaml"),
        ("names: {[a]: cat}", "not_yaml"),
        ("names: [cat]\0", "not_yaml"),
        ("names: [a]\n---\nnames: [b]", "not_yaml"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b]", "alias_refused"),
        ("names: &names [cat]", "alias_refused"),
        ("names: " + "[" * 500_000, "nested_too_deep"),
        ("names: [cat] #" + "x" * (1 << 20), "too_large"),
        (b"names: [\xff]", "not_text"),
    ],
)
def test_names_that_cannot_be_read(tmp_path: Path, content: str | bytes, reason: str) -> None:
    uri = write(tmp_path / "data.yaml", content)
    with pytest.raises(AnnotationError) as caught:
        list(yolo.read(uri))
    assert caught.value.reason == reason


def test_a_file_of_labels_that_cannot_be_read_names_its_picture(tmp_path: Path) -> None:
    write(tmp_path / "2.txt", b"\xff")
    for name, reason in (("1", "read_failed"), ("2", "not_text")):
        with pytest.raises(AnnotationError) as caught:
            list(yolo.read(uris.to_uri(tmp_path / f"{name}.txt")))
        assert (caught.value.reason, caught.value.picture) == (reason, uris.to_uri(tmp_path / name))


def test_categories_are_those_of_the_nearest_file_that_names_some(tmp_path: Path) -> None:
    write(tmp_path / "data.yaml", "names: [cat]\n")
    write(tmp_path / "a/data.yaml", "names: [dog, bee]\n")
    labels = [tmp_path / path for path in ("labels/train/1.txt", "a/labels/1.txt", "a/labels/1.png")]
    assert [[each.label for each in yolo.categories_near(uris.to_uri(path), seen={})] for path in labels] == [
        ["cat"], ["dog", "bee"], [],
    ]  # fmt: skip


def test_poses_are_refused_not_taken_for_polygons(tmp_path: Path) -> None:
    write(tmp_path / "data.yaml", "names: [cat]\nkpt_shape: [3, 2]\n")
    with pytest.raises(AnnotationError, match=r"pose: its classes are in .*data\.yaml: it has kpt_shape") as error:
        yolo.categories_near(write(tmp_path / "labels/1.txt", GOOD), seen={})
    assert error.value.picture is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: {0: cat, 0: dog}\n", "the key '0' is there twice"),
        ("names: [cat]\nnames: [dog]\n", "the key 'names' is there twice"),
        ('names: ["\\U7fffffff"]\n', "not_yaml"),
        ("names: {[0]: cat}\n", "not_yaml"),
    ],
)
def test_yaml_that_could_mean_several_things_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(AnnotationError, match=words):
        list(yolo.read(write(tmp_path / "data.yaml", text)))


def test_keys_that_say_nothing_of_classes_may_be_there_twice(tmp_path: Path) -> None:
    write(tmp_path / "data.yaml", "train: a\ntrain: b\nkpt_shape:\nnames: [cat]\n")
    (cat,) = yolo.categories_near(write(tmp_path / "labels/1.txt", GOOD), seen={})
    assert cat.label == "cat"


def test_words_about_a_set_are_no_labels(tmp_path: Path) -> None:
    for name in ("README.dataset.txt", "README.roboflow.txt", "readme.txt"):
        assert list(yolo.read(write(tmp_path / name, "# cells"))) == []
