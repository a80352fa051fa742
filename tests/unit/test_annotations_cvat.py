"""CVAT's XML of images and of videos: shapes come out exactly, frames as the task tells them, what is bad is said."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from visionlake.udfs import rle, uris
from visionlake.udfs.annotation_formats import cvat, find_format
from visionlake.udfs.annotation_types import AnnotationError, Box, Picture, Problem, Said, Shape

EDGES = 'xtl="1.50" ytl="2.00" xbr="30.25" ybr="40.00"'
BOX = f'<box label="car" {EDGES}/>'
TRACKED = f'<box frame="4" outside="0" {EDGES}/>'
TASK = "<start_frame>4</start_frame><stop_frame>10</stop_frame><frame_filter>step=3</frame_filter>"
SIZE = "<original_size><width>64</width><height>48</height></original_size>"
SOURCE = "<name>a task</name><source>drive.mp4</source>"


def write(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "in.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return uris.to_uri(path)


def said(tmp_path: Path, inner: str) -> list[Said]:
    return list(cvat.read(write(tmp_path, f"<annotations><version>1.1</version>{inner}</annotations>")))


def image(inner: str, attributes: str = 'id="0" name="a.jpg" width="64" height="48"') -> str:
    return f"<image {attributes}>{inner}</image>"


def meta(task: str = SOURCE + TASK + SIZE) -> str:
    return f"<meta><task><id>5</id>{task}</task><dumped>2024-01-01</dumped></meta>"


def track(inner: str = TRACKED, attributes: str = 'id="7" label="car"') -> str:
    return f"<track {attributes}>{inner}</track>"


def shape_of(tmp_path: Path, element: str) -> Shape:
    """The shape of an element on an image."""
    shape, _ = said(tmp_path, image(element))
    assert isinstance(shape, Shape), shape
    return shape


def of(kind: type[Any], found: list[Said]) -> list[Any]:
    return [each for each in found if isinstance(each, kind)]


def frames(found: list[Said]) -> list[int | None]:
    return [each.frame_index for each in of(Picture, found)]


def test_a_whole_file_of_images(tmp_path: Path) -> None:
    assert find_format("cvat").FILES == ("*.xml",)
    uri = write(
        tmp_path,
        f"""<?xml version="1.0" encoding="utf-8"?>
        <annotations>
          <version>1.1</version>
          <meta><task><id>4</id><name>segmentation</name><size>2</size><mode>annotation</mode></task></meta>
          <image id="0" name="sub/a b.jpg" subset="train" width="64" height="48">
            <box label="plate" source="manual" occluded="0" {EDGES} z_order="4" group_id="2">
              <attribute name="letters">B</attribute>
              <attribute name="empty"></attribute>
              <attribute name="occluded">hidden behind this: what CVAT knows</attribute>
            </box>
            <polygon label="car" points="1.00,2.50;3,4;-5,600.25" occluded="1"></polygon>
            <tag label="good" source="manual"><attribute name="weather">rain</attribute></tag>
            <tag label="night"/>
          </image>
          <image id="12" name="https://host/b.png"/>
        </annotations>""",
    )
    assert list(cvat.read(uri)) == [
        Shape(
            picture=f"{uri}#0",
            label="plate",
            box=Box(1.5, 2, 30.25, 40),
            attributes={
                "letters": "B",
                "empty": "",
                "occluded": "0",
                "z_order": "4",
                "source": "manual",
                "group_id": "2",
            },
        ),
        Shape(
            picture=f"{uri}#0",
            label="car",
            polygons=[[1, 2.5, 3, 4, -5, 600.25]],
            attributes={"occluded": "1"},
        ),
        Picture(
            key=f"{uri}#0",
            name="sub/a b.jpg",
            width_px=64,
            height_px=48,
            attributes={"subset": "train", "tag:good": "true", "tag:good.weather": "rain", "tag:night": "true"},
        ),
        Picture(key=f"{uri}#12", name="https://host/b.png"),
    ]


def test_a_whole_file_of_a_video(tmp_path: Path) -> None:
    inner = f"""
      {meta()}
      <track id="0" label="car" source="auto" group_id="3">
        <box frame="4" keyframe="1" outside="0" occluded="1" {EDGES} z_order="0">
          <attribute name="colour">red</attribute>
        </box>
        <polygon frame="10" keyframe="0" outside="0" occluded="0" points="0,0;1,0;1,1"/>
        <box frame="13" keyframe="1" outside="1" occluded="0" {EDGES}/>
      </track>
      <track id="1" label="bus">
        <mask frame="4" outside="0" rle="0, 1" left="1" top="0" width="1" height="1"/>
      </track>"""
    found = said(tmp_path, inner)
    uri = uris.to_uri(tmp_path / "in.xml")
    assert found[:5] == [
        *(
            Picture(key=f"{uri}#{frame}", name="drive.mp4", width_px=64, height_px=48, frame_index=frame)
            for frame in (4, 7, 10)
        ),
        Shape(
            picture=f"{uri}#4",
            label="car",
            box=Box(1.5, 2, 30.25, 40),
            track_id="0",
            attributes={
                "colour": "red",
                "occluded": "1",
                "z_order": "0",
                "source": "auto",
                "group_id": "3",
                "keyframe": "1",
            },
        ),
        Shape(
            picture=f"{uri}#10",
            label="car",
            polygons=[[0, 0, 1, 0, 1, 1]],
            track_id="0",
            attributes={"occluded": "0", "source": "auto", "group_id": "3", "keyframe": "0"},
        ),
    ]
    (last,) = found[5:]
    assert isinstance(last, Shape) and (last.picture, last.label, last.track_id) == (f"{uri}#4", "bus", "1")
    assert drawn(last, 48, 64).nonzero() == (0, 1)


def drawn(shape: Shape, height: int, width: int) -> npt.NDArray[np.bool_]:
    assert shape.mask and isinstance(shape.mask.counts, str)
    assert (shape.mask.height_px, shape.mask.width_px) == (height, width)
    return rle.decode_mask({"size": [height, width], "counts": shape.mask.counts})


@pytest.mark.parametrize(
    ("edges", "box"),
    [
        (("0", "0", "64", "48"), (0, 0, 64, 48)),
        (("-1.25", "1e1", "9999.99", "0"), (-1.25, 10, 9999.99, 0)),
        (("-inf", "0", "Infinity", "1"), (-math.inf, 0, math.inf, 1)),
    ],
)
def test_boxes_are_exact_and_never_clipped(tmp_path: Path, edges: tuple[str, ...], box: tuple[float, ...]) -> None:
    named = " ".join(f'{name}="{edge}"' for name, edge in zip(("xtl", "ytl", "xbr", "ybr"), edges, strict=True))
    assert shape_of(tmp_path, f'<box label="car" {named}/>').box == box


@pytest.mark.parametrize(
    ("rotation", "corners"),
    [
        # A box of 20 x 10 about (20, 35): what was its top left corner goes clockwise.
        ("90.00", [25, 25, 25, 45, 15, 45, 15, 25]),
        ("-270", [25, 25, 25, 45, 15, 45, 15, 25]),
        ("180", [30, 40, 10, 40, 10, 30, 30, 30]),
        ("30", [13.839746, 25.669873, 31.160254, 35.669873, 26.160254, 44.330127, 8.839746, 34.330127]),
    ],
)
def test_boxes_that_are_turned(tmp_path: Path, rotation: str, corners: list[float]) -> None:
    found = shape_of(tmp_path, f'<box label="car" xtl="10" ytl="30" xbr="30" ybr="40" rotation="{rotation}"/>')
    assert found.polygons and found.polygons[0] == pytest.approx(corners, abs=1e-6)
    assert found.box == pytest.approx((min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])))
    assert found.attributes == {"rotation_deg": rotation}


@pytest.mark.parametrize("rotation", ["0", "0.00", "360", "-720.0"])
def test_boxes_that_are_turned_by_nothing(tmp_path: Path, rotation: str) -> None:
    found = shape_of(tmp_path, f'<box label="car" {EDGES} rotation="{rotation}"/>')
    assert (found.box, found.polygons, found.attributes) == ((1.5, 2, 30.25, 40), None, {})


@pytest.mark.parametrize("rotation", ["inf", "-inf", "nan"])
def test_turns_without_end_are_left_to_a_later_step(tmp_path: Path, rotation: str) -> None:
    found = shape_of(tmp_path, f'<box label="car" {EDGES} rotation="{rotation}"/>')
    assert found.box and all(math.isnan(edge) for edge in found.box)


@pytest.mark.parametrize(
    ("window", "left", "top"),
    [
        (["..##", "#..#", "####"], 5, 7),
        (["#...", ".#..", "...#"], 0, 0),
        (["####", "####", "####"], 60, 45),
        (["....", "....", "...."], 1, 1),
    ],
)
def test_masks(tmp_path: Path, window: list[str], left: int, top: int) -> None:
    is_on = np.array([[pixel == "#" for pixel in row] for row in window])
    flat, runs, is_run_on = is_on.ravel().tolist(), [0], False
    for pixel in flat:
        if pixel != is_run_on:
            runs, is_run_on = [*runs, 0], pixel
        runs[-1] += 1
    text = ", ".join(map(str, runs))
    found = shape_of(
        tmp_path, f'<mask label="car" rle="{text}" left="{left}" top="{top}" width="4" height="3" occluded="0"/>'
    )
    expected = np.zeros((48, 64), bool)
    expected[top : top + 3, left : left + 4] = is_on
    assert (drawn(found, 48, 64) == expected).all()
    assert (found.box, found.polygons, found.attributes) == (None, None, {"occluded": "0"})


MASK = '<mask label="car" rle="{}" left="{}" top="{}" width="{}" height="{}"/>'


@pytest.mark.parametrize(
    ("element", "reason", "shown"),
    [
        (f"<box {EDGES}/>", "label_missing", "label is missing"),
        (f'<box label=" " {EDGES}/>', "label_missing", "label is ' '"),
        ('<box label="car" xtl="1" ytl="2" xbr="3"/>', "number_invalid", "ybr is missing"),
        ('<box label="car" xtl="1" ytl="2" xbr="3" ybr="4,5"/>', "number_invalid", "ybr is '4,5'"),
        (f'<box label="car" {EDGES} rotation="left"/>', "number_invalid", "rotation is 'left'"),
        (f'<box label="car" {EDGES} rotation=""/>', "number_invalid", "rotation is missing"),
        ('<polygon label="car"/>', "number_invalid", "points has missing"),
        ('<polygon label="car" points="1,2;3;4,5"/>', "number_invalid", "points has '3'"),
        ('<polygon label="car" points="1,2;3,4,5"/>', "number_invalid", "points has '3,4,5'"),
        ('<polygon label="car" points="1,2;3,b"/>', "number_invalid", "points is 'b'"),
        ('<polygon label="car" points="1,2;3,1_0"/>', "number_invalid", "points is '1_0'"),
        (MASK.format("1, 5", 0, 0, 3, 3), "mask_invalid", "runs have 6 pixels; its window of 3 x 3"),
        (MASK.format("1, 9", 0, 0, 3, 3), "mask_invalid", "runs have 10 pixels"),
        (MASK.format("10, -1", 0, 0, 3, 3), "mask_invalid", "rle is '10, -1'"),
        (MASK.format("4.5, 4.5", 0, 0, 3, 3), "mask_invalid", "allowed are whole numbers"),
        (MASK.format("4 5", 0, 0, 3, 3), "mask_invalid", "rle is '4 5'"),
        (MASK.format("9,", 0, 0, 3, 3), "mask_invalid", "rle is '9,'"),
        (MASK.format("", 0, 0, 3, 3), "mask_invalid", "rle is missing"),
        (MASK.format("9" * 5000, 0, 0, 3, 3), "mask_invalid", "rle is '999"),
        (MASK.format("0, 9", 62, 0, 3, 3), "mask_invalid", "3 x 3 at (62, 0) does not lie in the picture of 64 x 48"),
        (MASK.format("0, 9", 0, 46, 3, 3), "mask_invalid", "does not lie in the picture"),
        (MASK.format("0, 9", -1, 0, 3, 3), "number_invalid", "left is '-1'"),
        (MASK.format("0, 9", 0, 0.5, 3, 3), "number_invalid", "top is '0.5'"),
        (MASK.format("0", 0, 0, 0, 3), "number_invalid", "width is '0'"),
        ('<mask label="car" rle="0, 9" left="0" top="0" width="3"/>', "number_invalid", "height is missing"),
        ('<points label="car" points="1,2"/>', "unsupported_shape", "'points'; supported are box, polygon, mask"),
        ('<polyline label="car" points="1,2;3,4"/>', "unsupported_shape", "'polyline'"),
        ('<ellipse label="car" cx="1" cy="2" rx="3" ry="4"/>', "unsupported_shape", "'ellipse'"),
        ('<cuboid label="car" xtl1="1"/>', "unsupported_shape", "'cuboid'"),
        ('<skeleton label="car"><points label="nose" points="1,2"/></skeleton>', "unsupported_shape", "'skeleton'"),
        ("<tag/>", "label_missing", "label is missing"),
    ],
)
def test_bad_shapes(tmp_path: Path, element: str, reason: str, shown: str) -> None:
    problem, shape, picture = said(tmp_path, image(f"\n{element}\n{BOX}\n"))
    assert isinstance(shape, Shape) and isinstance(picture, Picture)
    assert isinstance(problem, Problem) and (problem.reason, problem.picture) == (reason, picture.key)
    assert shown in problem.message and problem.message.startswith("image '0', "), problem.message
    assert problem.payload == element.replace("/>", " />")[:2000]


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ('width="10001" height="10000"', "too_large"),
        ('width="64"', "size_missing"),
        ('width="0" height="48"', "size_missing"),
    ],
)
def test_masks_want_a_picture_of_some_size(tmp_path: Path, size: str, reason: str) -> None:
    problem, _ = said(tmp_path, image(MASK.format("0, 9", 0, 0, 3, 3), f'id="0" name="a.jpg" {size}'))
    assert isinstance(problem, Problem) and problem.reason == reason


@pytest.mark.parametrize(
    ("attributes", "reason", "shown", "has_key"),
    [
        ('name="a.jpg"', "id_invalid", "id is missing", False),
        ('id="" name="a.jpg"', "id_invalid", "id is missing", False),
        ('id="0"', "name_missing", "name is missing", True),
        ('id="0" name=" "', "name_missing", "name is ' '", True),
        ('id="0" name="/etc/passwd"', "name_unsafe", "/etc/passwd", True),
        ('id="0" name="C:/a.jpg"', "name_unsafe", "C:/a.jpg", True),
        ('id="0" name="a/../b.jpg"', "name_unsafe", "a/../b.jpg", True),
        ('id="0" name="..\\b.jpg"', "name_unsafe", "b.jpg", True),
    ],
)
def test_bad_images(tmp_path: Path, attributes: str, reason: str, shown: str, has_key: bool) -> None:
    good = image(BOX, 'id="1" name="b.jpg"')
    problem, shape, picture = said(tmp_path, image(BOX + BOX, attributes) + good)
    key = f"{uris.to_uri(tmp_path / 'in.xml')}#0" if has_key else None
    assert isinstance(problem, Problem) and (problem.reason, problem.picture) == (reason, key)
    assert shown in problem.message and "2 shapes" in problem.message and problem.payload == f"<image {attributes} />"
    assert isinstance(shape, Shape) and isinstance(picture, Picture) and shape.picture == picture.key


@pytest.mark.parametrize("width", ["x", "-1", "64.0"])
def test_a_size_that_is_none(tmp_path: Path, width: str) -> None:
    problem, shape, picture = said(tmp_path, image(BOX, f'id="0" name="a.jpg" width="{width}" height="48"'))
    assert isinstance(problem, Problem) and problem.reason == "number_invalid"
    assert f"width is '{width}'; allowed are whole numbers" in problem.message
    assert isinstance(shape, Shape) and isinstance(picture, Picture) and picture.width_px is None


def test_images_of_a_project_count_anew_in_each_subset(tmp_path: Path) -> None:
    images = [
        image(BOX, f'id="0" name="{task}.jpg" subset="{subset}" task_id="{task}"')
        for task, subset in ((8, "train"), (9, "test"))
    ]
    tasks = "<meta><project><tasks><task><id>8</id></task><task><id>9</id></task></tasks></project></meta>"
    found = said(tmp_path, tasks + "".join(images))
    uri = uris.to_uri(tmp_path / "in.xml")
    assert [each.picture for each in of(Shape, found)] == [f"{uri}#8/0", f"{uri}#9/0"]
    assert [(each.key, each.name) for each in of(Picture, found)] == [(f"{uri}#8/0", "8.jpg"), (f"{uri}#9/0", "9.jpg")]
    assert of(Picture, found)[0].attributes == {"subset": "train", "task_id": "8"}


def test_labels_that_meta_does_not_list(tmp_path: Path) -> None:
    labels = meta(SOURCE + TASK + "<labels><label><name>bus</name></label></labels>")
    assert of(Shape, said(tmp_path, labels + track()))[0].label == "car"


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (SOURCE + TASK, [4, 7, 10]),
        (SOURCE + TASK.replace("10", "12"), [4, 7, 10]),
        (SOURCE + TASK.replace("step=3", ""), [4, 5, 6, 7, 8, 9, 10]),
        (SOURCE + TASK.replace("<frame_filter>step=3</frame_filter>", ""), [4, 5, 6, 7, 8, 9, 10]),
        (SOURCE + TASK.replace("10", "4"), [4]),
        (SOURCE + TASK.replace("10", ""), [4, 9]),
        (SOURCE + "<size>20</size>", [4, 9]),
    ],
)
@pytest.mark.parametrize("kind", ["task", "job"])
def test_frames_of_a_task(tmp_path: Path, task: str, expected: list[int], kind: str) -> None:
    shapes = TRACKED + TRACKED.replace('"4"', '"9"') + TRACKED + TRACKED.replace('"4" outside="0"', '"2" outside="1"')
    found = said(tmp_path, meta(task).replace("task>", f"{kind}>") + track(shapes) + track(TRACKED))
    assert frames(found) == expected
    keys = {each.key for each in of(Picture, found)}
    assert all(each.picture in keys for each in of(Shape, found)) and len(of(Shape, found)) >= 3


@pytest.mark.parametrize(
    ("content", "name", "size"),
    [
        (meta(), "drive.mp4", (64, 48)),
        (meta(f"<name>a task</name>{TASK}"), "a task", (None, None)),
        (meta(f"{SOURCE}{TASK}{SIZE.replace('64', '0')}"), "drive.mp4", (None, 48)),
        # Beside the task, as jobs and older versions have it.
        (f"<meta><job>{TASK}</job>{SIZE}<source>b.mp4</source></meta>", "b.mp4", (64, 48)),
    ],
)
@pytest.mark.parametrize("tracks", ["", track()])
def test_what_the_task_tells_of_its_video(
    tmp_path: Path, content: str, name: str, size: tuple[int | None, int | None], tracks: str
) -> None:
    pictures = of(Picture, said(tmp_path, content + tracks))
    assert [each.frame_index for each in pictures] == [4, 7, 10]
    assert {(each.name, each.width_px, each.height_px) for each in pictures} == {(name, *size)}


@pytest.mark.parametrize(
    ("attributes", "reason", "shown"),
    [
        ('frame="5"', "frame_out_of_range", "frame is 5; allowed are those of the task, 4 to 10 by 3"),
        ('frame="13"', "frame_out_of_range", "frame is 13"),
        ('frame="0"', "frame_out_of_range", "frame is 0"),
        ('frame="-4"', "number_invalid", "frame is '-4'"),
        ('frame="4.0"', "number_invalid", "frame is '4.0'"),
        ("", "number_invalid", "frame is missing"),
    ],
)
def test_bad_frames(tmp_path: Path, attributes: str, reason: str, shown: str) -> None:
    bad = f"<box {attributes} {EDGES} />"
    found = said(tmp_path, meta() + track(bad + TRACKED))
    (problem,) = of(Problem, found)
    assert (problem.reason, problem.picture) == (reason, None)
    assert shown in problem.message and problem.message.startswith("track '7', frame ")
    assert problem.payload.split() == bad.split()
    assert frames(found) == [4, 7, 10] and len(of(Shape, found)) == 1


def test_bad_shapes_of_a_track(tmp_path: Path) -> None:
    bad = '<points frame="4" outside="0" points="1,2" />' + TRACKED.replace("1.50", "x")
    unlabelled = track(attributes='id="8"')
    found = said(tmp_path, meta() + track(bad + TRACKED) + unlabelled)
    key = f"{uris.to_uri(tmp_path / 'in.xml')}#4"
    assert [(each.reason, each.picture) for each in of(Problem, found)] == [
        ("unsupported_shape", key),
        ("number_invalid", key),
        ("label_missing", key),
    ]
    assert len(of(Shape, found)) == 1


def test_an_object_that_is_outside_is_not_there(tmp_path: Path) -> None:
    gone = '<skeleton frame="4" outside="1"/>' + TRACKED.replace('outside="0"', 'outside="1"')
    assert Counter(type(each) for each in said(tmp_path, meta() + track(gone))) == {Picture: 3}


def test_frames_beyond_all_that_are_allowed(tmp_path: Path) -> None:
    found = said(tmp_path, meta(SOURCE) + track(TRACKED.replace('"4"', '"10000000"') + TRACKED))
    assert [each.reason for each in of(Problem, found)] == ["frame_out_of_range"] and frames(found) == [4]


@pytest.mark.parametrize(
    ("content", "reason", "shown"),
    [
        ("", "empty_file", "empty"),
        ("<annotations>\n<image", "not_xml", "line 2, column 1"),
        ("<annotations><version>1.1</version>\n<image></track></annotations>", "not_xml", "mismatched tag in line 2"),
        (f"<annotations>{meta()}{track()}", "not_xml", "no element found"),
        (f"<annotations>{image(BOX)}</annotations>x", "not_xml", "junk after document element"),
        ("<!DOCTYPE annotations><annotations/>", "xml_forbidden", "DTD"),
        ('<!DOCTYPE a [<!ENTITY a "ha">]><annotations>&a;</annotations>', "xml_forbidden", "DTD"),
        ("<annotation/>", "not_cvat", "'annotation'"),
        ("<annotations/>", "not_cvat", "no images"),
        (f"<annotations>{track()}</annotations>", "not_cvat", "no <meta>"),
        (f"<annotations>{track()}{meta()}</annotations>", "not_cvat", "no <meta>"),
        (f"<annotations><meta/>{track()}</annotations>", "not_cvat", "<task> or <job>"),
        (
            f'<annotations>{meta()}<track id="7" label="car" task_id="3"/></annotations>',
            "unsupported",
            "export each task by itself",
        ),
        (f"<annotations><meta><project/></meta>{track()}</annotations>", "unsupported", "export each task"),
        ("<annotations><meta><project/></meta></annotations>", "unsupported", "export each task"),
        (f"<annotations>{meta(TASK)}{track()}</annotations>", "name_missing", "not one of its jobs"),
        (f"<annotations>{meta(TASK + '<source>/a.mp4</source>')}{track()}</annotations>", "name_unsafe", "'/a.mp4'"),
        (f"<annotations>{meta(SOURCE + TASK.replace('10', 'x'))}</annotations>", "number_invalid", "stop_frame is 'x'"),
        (f"<annotations>{meta(SOURCE + TASK.replace('10', '3'))}</annotations>", "number_invalid", "from 4 to"),
        (
            f"<annotations>{meta(SOURCE + TASK.replace('step=3', 'step=0'))}</annotations>",
            "number_invalid",
            "frame_filter is 'step=0'; allowed is such as step=5",
        ),
        (f"<annotations>{meta(SOURCE + TASK.replace('step=3', 'key'))}</annotations>", "number_invalid", "'key'"),
        (f"<annotations>{meta(SOURCE + SIZE.replace('64', 'w'))}</annotations>", "number_invalid", "width is 'w'"),
        (
            f"<annotations>{meta(SOURCE + TASK.replace('10', '30000004'))}</annotations>",
            "too_large",
            "10000001 frames; allowed are up to 10000000",
        ),
        ("<annotations><image>" + "<a>" * 40, "nested_too_deep", "allowed 32"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str, reason: str, shown: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        list(cvat.read(write(tmp_path, content)))
    assert caught.value.reason == reason and shown in caught.value.message, caught.value


@pytest.mark.parametrize(
    "begin",
    [
        '<annotations><image id="0" name="a.jpg"><box label="',
        "<annotations><meta><task><name>",
        "<annotations><unknown>",
        "<annotations>",
    ],
)
def test_hostile_files_are_let_go(tmp_path: Path, begin: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        list(cvat.read(write(tmp_path, begin + " " * (17 << 20))))
    assert (caught.value.reason, caught.value.message[:36]) == ("too_large", "an element is larger than 16777216 b")


def test_tags_without_end_are_let_go(tmp_path: Path) -> None:
    tags = "".join(f'<tag label="{"x" * 9990}{place:10}"/>{BOX}' for place in range(110))
    assert len(said(tmp_path, image(tags[: tags.index("<tag", len(tags) // 2)]))) == 56
    with pytest.raises(AnnotationError, match="too_large: the tags of an image"):
        said(tmp_path, image(tags))


@pytest.mark.parametrize("kind", ["image", "track"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    small, large = (peak_bytes(tmp_path / f"{count}.xml", kind, count) for count in (600, 1800))
    assert large < 1.2 * small and large < 8 << 20


def peak_bytes(path: Path, kind: str, count: int) -> int:
    """The most memory that reading a file of so many shapes takes; 1800 are 4 MB."""
    note = f'<attribute name="note">{"x" * 1000}</attribute>'
    one = f'<box frame="4" outside="0" label="car" {EDGES}>\n{note}\n</box>\n'
    with path.open("w") as out:
        out.write(f"<annotations>{meta()}{f'<unknown>{note}</unknown>' * count}")
        for _ in range(2):
            out.write(f'<{kind} id="0" name="a.jpg">' + one * (count // 2) + f"</{kind}>")
        out.write("</annotations>")
    tracemalloc.start()
    try:
        found = Counter(type(each) for each in cvat.read(uris.to_uri(path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == {Shape: count, Picture: 2 if kind == "image" else 3}
    return peak


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(cvat.read(uris.to_uri(tmp_path / "gone.xml")))


def test_a_file_of_a_store(tmp_path: Path) -> None:
    filesystem, path = uris.open_store("mock://host/sets/in.xml")
    filesystem.create_dir("sets")
    with filesystem.open_output_stream(path) as out:
        out.write(f"<annotations>{image(BOX)}</annotations>".encode())
    assert [type(each) for each in cvat.read("mock://host/sets/in.xml")] == [Shape, Picture]
