"""MOT Challenge's sequences as they are found: counted from 0, every good line exactly, every bad one said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from visionlake.udfs import uris
from visionlake.udfs.annotation_formats import find_format, mot
from visionlake.udfs.annotation_types import AnnotationError, Box, Picture, Problem, Said, Shape

INI = {
    "name": "MOT16-02",
    "imDir": "img1",
    "frameRate": "30",
    "seqLength": "3",
    "imWidth": "1920",
    "imHeight": "1080",
    "imExt": ".jpg",
}
GOOD = "2,7,10,20,30.5,40,1,1,0.5"


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return uris.to_uri(path)


def ini(**entries: str | None) -> str:
    """The text of a seqinfo.ini with these entries, and without those that are None."""
    kept = {name: value for name, value in (INI | entries).items() if value is not None}
    return "\n".join(["[Sequence]", *(f"{name}={value}" for name, value in kept.items()), ""])


def sequence(tmp_path: Path, content: str | bytes) -> list[Said]:
    """What a gt.txt says before its one box, of a sequence with this seqinfo.ini, which by itself says nothing."""
    boxes = write(tmp_path / "seq/gt/gt.txt", GOOD)
    assert list(mot.read(write(tmp_path / "seq/seqinfo.ini", content))) == []
    *frames, box = mot.read(boxes)
    assert isinstance(box, Shape)
    return frames


def boxes(tmp_path: Path, content: str | bytes) -> list[Said]:
    """What a gt.txt says after the three frames of its seqinfo.ini."""
    write(tmp_path / "seq/seqinfo.ini", ini())
    said = list(mot.read(write(tmp_path / "seq/gt/gt.txt", content)))
    assert [isinstance(each, Picture) for each in said[:4]] == [True, True, True, False]
    return said[3:]


def shape(tmp_path: Path, line: str) -> Shape:
    (found,) = boxes(tmp_path, line)
    assert isinstance(found, Shape), found
    return found


def test_stills_of_a_sequence_and_their_boxes_meet(tmp_path: Path) -> None:
    assert find_format("mot").FILES == ("gt.txt", "seqinfo.ini", "labels.txt")
    pictures = sequence(tmp_path, ini())
    folder = uris.to_uri(tmp_path / "seq")
    assert pictures == [
        Picture(key=f"{folder}#{n}", name=f"MOT16-02/img1/{n:06d}.jpg", width_px=1920, height_px=1080)
        for n in (1, 2, 3)
    ]
    assert boxes(tmp_path, f"\ufeff{GOOD}\r\n\n") == [
        Shape(
            picture=f"{folder}#2",
            label="pedestrian",
            box=Box(9.0, 19.0, 39.5, 59.0),
            track_id="7",
            attributes={"visibility": "0.5"},
        )
    ]


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ({"imExt": ".mp4"}, "MOT16-02.mp4"),
        ({"imExt": ".WEBM", "imDir": None}, "MOT16-02.WEBM"),
        ({"imDir": None}, "MOT16-02"),
        ({"imExt": ""}, "MOT16-02"),
        ({"imDir": None, "imExt": None, "name": "100%(x)s"}, "100%(x)s"),
    ],
)
def test_frames_of_a_video_count_from_0(tmp_path: Path, entries: dict[str, str | None], name: str) -> None:
    found = sequence(tmp_path, ini(**entries))
    assert [(each.name, each.frame_index) for each in found if isinstance(each, Picture)] == [
        (name, 0),
        (name, 1),
        (name, 2),
    ]


def test_a_sequence_without_a_size(tmp_path: Path) -> None:
    first, *_ = sequence(tmp_path, ini(imWidth=None, imHeight=None))
    assert isinstance(first, Picture) and first.width_px is first.height_px is None


def test_without_seqinfo_the_frames_are_those_mentioned(tmp_path: Path) -> None:
    uri = write(tmp_path / "a ü/gt/gt.txt", "3,1,2,3,10,10,1,1,1\n9,1,2,3,10,10,1,1,1\n3,2,2,3,10,10\n4,x,1,1,1,1")
    said = list(mot.read(uri))
    folder = uris.to_uri(tmp_path / "a ü")
    pictures = [each for each in said if isinstance(each, Picture)]
    assert pictures == [Picture(key=f"{folder}#{n}", name="a ü", frame_index=n - 1) for n in (3, 9, 4)]
    assert [each.picture for each in said if isinstance(each, Shape)] == [f"{folder}#{n}" for n in (3, 9, 3)]
    assert [each.picture for each in said if isinstance(each, Problem)] == [f"{folder}#4"]


def test_a_sequence_that_nobody_has_annotated_is_no_sequence_of_empty_frames(tmp_path: Path) -> None:
    (found,) = mot.read(write(tmp_path / "seq/seqinfo.ini", ini()))
    assert isinstance(found, Problem) and found.reason == "annotations_missing" and found.payload == ini()


@pytest.mark.parametrize(
    ("line", "label"),
    [
        *((f"1,1,1,1,1,1,1,{n},1", name) for n, name in enumerate(mot.CLASSES, start=1)),
        ("1,1,1,1,1,1,1,-1,-1", "pedestrian"),
        ("1,1,1,1,1,1,1", "pedestrian"),
        ("1,1,1,1,1,1,1,3", "car"),
        ("1,1,1,1,1,1,1,-1,-1,-1", "pedestrian"),
        ("1,1,1,1,1,1,1,3,-7.25,0", "pedestrian"),  # MOT15: a place in the world
    ],
)
def test_classes(tmp_path: Path, line: str, label: str) -> None:
    found = shape(tmp_path, line)
    assert found.label == label and found.category is None and not found.is_crowd


@pytest.mark.parametrize(
    ("line", "attributes"),
    [
        ("1,1,1,1,1,1", {}),
        ("1,1,1,1,1,1,1", {}),
        ("1,1,1,1,1,1,0.0,7,0.25", {"consider": "0", "visibility": "0.25"}),
        ("1,1,1,1,1,1,0.9,-1,-1", {"consider": "0.9"}),
        ("1,1,1,1,1,1,1,-5.5,2,0", {}),
    ],
)
def test_what_is_said_besides(tmp_path: Path, line: str, attributes: dict[str, str]) -> None:
    assert shape(tmp_path, line).attributes == attributes


def test_numbers_are_kept_as_they_are(tmp_path: Path) -> None:
    found = shape(tmp_path, " 1 , +08 , -0.5 , nan , 1e3 , inf ")
    assert found.track_id == "8" and str(found.box) == "Box(x_min=-1.5, y_min=nan, x_max=998.5, y_max=nan)"
    assert shape(tmp_path, "1,-1,1,1,1,1").track_id is None


@pytest.mark.parametrize(
    ("line", "reason", "words"),
    [
        ("2,7,1,1,1", "line_invalid", "5 numbers; allowed are 6 to 10"),
        ("2,7,1,1,1,1,1,1,1,1,1", "line_invalid", "11 numbers"),
        ("2 7 1 1 1 1 1 1 1", "number_invalid", "the frame"),
        ("0,7,1,1,1,1,1,1,1", "number_invalid", "from 1 to 10000000"),
        ("-1,7,1,1,1,1,1,1,1", "number_invalid", "'-1'"),
        ("1.0,7,1,1,1,1,1,1,1", "number_invalid", "'1.0'"),
        (",7,1,1,1,1,1,1,1", "number_invalid", "missing"),
        ("10000001,7,1,1,1,1,1,1,1", "number_invalid", "10000001"),
        ("9" * 5000, "number_invalid", "999"),
        ("2,7.5,1,1,1,1,1,1,1", "number_invalid", "the id is '7.5'"),
        ("2,7,x,1,1,1,1,1,1", "number_invalid", "left is 'x'"),
        ("2,7,1,1,1,,1,1,1", "number_invalid", "height is missing"),
        ("2,7,1,1_0,1,1,1,1,1", "number_invalid", "top is '1_0'"),
        ("2,7,1,1,1,1,x,1,1", "number_invalid", "consider"),
        ("2,7,1,1,1,1,1,1.5,1", "number_invalid", "class"),
        ("2,7,1,1,1,1,1,,1", "number_invalid", "class is missing"),
        ("2,7,1,1,1,1,1,1,", "number_invalid", "visibility is missing"),
        ("2,7,1,1,1,1,1,14,1", "category_unknown", "13 crowd"),
        ("2,7,1,1,1,1,1,0,1", "category_unknown", "1 pedestrian"),
    ],
)
def test_a_bad_line_is_said_and_the_rest_comes_out(tmp_path: Path, line: str, reason: str, words: str) -> None:
    first, bad, last = boxes(tmp_path, f"{GOOD}\n{line}\n{GOOD}")
    assert isinstance(first, Shape) and first == last
    assert isinstance(bad, Problem) and bad.reason == reason
    assert bad.picture == (first.picture if line.startswith("2,") else None)
    assert bad.payload == line[:2000] and bad.message.startswith("line 2: ") and words in bad.message


@pytest.mark.parametrize(
    ("entries", "reason", "words"),
    [
        ({"name": None}, "name_missing", "name is missing"),
        ({"name": " "}, "name_missing", "name is missing"),
        ({"name": "../up"}, "name_unsafe", "'../up/img1/.jpg'"),
        ({"name": "/abs"}, "name_unsafe", "/abs"),
        ({"name": r"C:\x", "imExt": ".mp4"}, "name_unsafe", "C:"),
        ({"imDir": r"a\..\.."}, "name_unsafe", ".."),
        ({"imExt": "/../x.jpg"}, "name_unsafe", ".."),
        ({"seqLength": None}, "number_invalid", "seqLength is missing"),
        ({"seqLength": "0"}, "number_invalid", "'0'"),
        ({"seqLength": "3.0"}, "number_invalid", "'3.0'"),
    ],
)
def test_a_sequence_that_cannot_be_named_is_said(
    tmp_path: Path, entries: dict[str, str | None], reason: str, words: str
) -> None:
    (bad,) = sequence(tmp_path, ini(**entries))
    assert isinstance(bad, Problem) and (bad.reason, bad.payload) == (reason, ini(**entries))
    assert words in bad.message and "allowed" in bad.message


@pytest.mark.parametrize("entries", [{"imWidth": "wide"}, {"imHeight": "-5"}, {"imHeight": None}])
def test_a_bad_size_is_said_and_the_frames_come_out_without(tmp_path: Path, entries: dict[str, str | None]) -> None:
    bad, *frames = sequence(tmp_path, ini(**entries))
    assert isinstance(bad, Problem) and bad.reason == "number_invalid" and next(iter(entries)) in bad.message
    assert [each.width_px for each in frames if isinstance(each, Picture)] == [None] * 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty_file"),
        ("\n \n", "empty_file"),
        ("name=x", "not_ini"),
        ("[Other]\nname=x", "not_ini"),
        ("[Sequence]\nname=a\nname=b", "not_ini"),
        ("[Sequence]\nno entry", "not_ini"),
        (b"[Sequence]\nname=\xff", "not_text"),
        (ini(seqLength="10000001"), "too_large"),
        ("#" * (1 << 20) + "\n", "too_large"),
    ],
)
def test_a_sequence_that_cannot_be_read(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        sequence(tmp_path, content)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty_file"),
        ("\r\n  \n", "empty_file"),
        (b"1,1,1,1,1,\xff", "not_text"),
        (f"{GOOD}\n".encode("utf-16"), "not_text"),
        (f"{GOOD}\n" + "1," * (1 << 19) + "1", "too_large"),
    ],
)
def test_boxes_that_cannot_be_read(tmp_path: Path, content: str | bytes, reason: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        boxes(tmp_path, content)
    assert caught.value.reason == reason


def test_a_sequence_in_a_store(tmp_path: Path) -> None:
    for name, content in (("seqinfo.ini", ini()), ("gt/gt.txt", GOOD)):
        filesystem, path = uris.open_store(f"mock://host/seq/{name}")
        filesystem.create_dir(path.rpartition("/")[0])
        with filesystem.open_output_stream(path) as out:
            out.write(content.encode())
    assert list(mot.read("mock://host/seq/seqinfo.ini")) == []
    _, second, _, box = mot.read("mock://host/seq/gt/gt.txt")
    assert isinstance(second, Picture) and isinstance(box, Shape) and box.picture == second.key


def test_a_folder_that_names_no_video(tmp_path: Path) -> None:
    odd = write(tmp_path / os.fsdecode(b"\xff") / "gt/gt.txt", GOOD)
    picture, _ = mot.read(odd)
    assert isinstance(picture, Picture) and picture.name == "\ufffd"
    filesystem, path = uris.open_store("mock://host/gt/gt.txt")
    filesystem.create_dir("gt")
    with filesystem.open_output_stream(path) as out:
        out.write(GOOD.encode())
    with pytest.raises(AnnotationError, match="name_missing"):
        list(mot.read("mock://host/gt/gt.txt"))


def test_a_file_that_is_gone_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(mot.read(uris.to_uri(tmp_path / "seq/gt/gt.txt")))


def test_classes_are_those_of_a_list_beside_it(tmp_path: Path) -> None:
    root = tmp_path / "set/train"
    assert list(mot.read(write(root / "seq/gt/labels.txt", "cup\n\nbowl \n"))) == []
    write(root / "labels.txt", "tench\ngoldfish\n")
    write(root / "seq/seqinfo.ini", ini(name="seq"))
    lines = ["1,1,1,1,5,5,1,1,1", "1,2,1,1,5,5,1,2,1", "1,3,1,1,5,5,1,3,1", "1,4,1,1,5,5,1,4,1"]
    *_, cup, unnamed, bowl, beyond = mot.read(write(root / "seq/gt/gt.txt", "\n".join(lines)))
    assert isinstance(cup, Shape) and isinstance(bowl, Shape)
    assert (cup.label, bowl.label) == ("cup", "bowl")
    for each in (unnamed, beyond):
        assert isinstance(each, Problem)
        assert each.reason == "category_unknown" and "allowed are 1 cup, 3 bowl, and -1" in each.message
    write(root / "seq/gt/labels.txt", "\n")
    *_, first, second, third, fourth = mot.read(uris.to_uri(root / "seq/gt/gt.txt"))
    assert [each.label for each in (first, second, third, fourth) if isinstance(each, Shape)] == list(mot.CLASSES[:4])
