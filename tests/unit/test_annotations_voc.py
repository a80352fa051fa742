"""Pascal VOC's XML as it is found: pixels counted from 1 become edges, good objects come out, bad ones are said."""

from __future__ import annotations

import codecs
import math
import xml.etree.ElementTree as plain
from collections import Counter
from pathlib import Path

import pytest

from visionlake.udfs import uris
from visionlake.udfs.annotation_formats import find_format, voc
from visionlake.udfs.annotation_types import AnnotationError, Box, Picture, Problem, Said, Shape

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "bccd"
HEAD = "<filename>a/cat.jpg</filename><size><width>500</width><height>375</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>500</xmax><ymax>375</ymax></bndbox>"
OBJECT = f"<object><name>cat</name>{BOX}</object>"


def write(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "in.xml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return uris.to_uri(path)


def said(tmp_path: Path, inner: str) -> list[Said]:
    return list(voc.read(write(tmp_path, f"<annotation>{inner}</annotation>")))


def shape_of(tmp_path: Path, inner: str) -> Shape:
    """The shape of an object with this inside."""
    _, found = said(tmp_path, f"{HEAD}<object>{inner}</object>")
    assert isinstance(found, Shape), found
    return found


def box_of(tmp_path: Path, *edges: str) -> Box | None:
    inner = "".join(
        f"<{name}>{text}</{name}>" for name, text in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True)
    )
    return shape_of(tmp_path, f"<name>cat</name><bndbox>{inner}</bndbox>").box


def test_a_whole_file(tmp_path: Path) -> None:
    assert find_format("voc").FILES == ("*.xml",)
    uri = write(
        tmp_path,
        """<?xml version="1.0"?>
        <annotation verified="yes">
            <folder>VOC2012</folder>
            <filename>
                2008_000008.jpg
            </filename>
            <path>/home/me/2008_000008.jpg</path>
            <source><database>The VOC2008 Database</database><annotation>PASCAL VOC2008</annotation><flickrid/></source>
            <size><width>500</width><height>442</height><depth>3</depth></size>
            <segmented>0</segmented>
            <object>
                <name>horse</name>
                <pose>Left</pose>
                <truncated>0</truncated>
                <occluded>1</occluded>
                <bndbox><xmax>420</xmax><xmin>53</xmin><ymax>420</ymax><ymin>87</ymin></bndbox>
                <difficult>0</difficult>
                <colour>  dark
                brown </colour>
                <note/>
            </object>
            <object>
                <name>person</name>
                <actions><jumping>1</jumping><other>0</other></actions>
                <bndbox><xmin>158</xmin><ymin>44</ymin><xmax>289</xmax><ymax>167</ymax></bndbox>
            </object>
        </annotation>""",
    )
    assert list(voc.read(uri)) == [
        Picture(
            key=uri,
            name="2008_000008.jpg",
            width_px=500,
            height_px=442,
            attributes={
                "verified": "yes",
                "folder": "VOC2012",
                "path": "/home/me/2008_000008.jpg",
                "source.database": "The VOC2008 Database",
                "source.annotation": "PASCAL VOC2008",
                "size.depth": "3",
                "segmented": "0",
            },
        ),
        Shape(
            picture=uri,
            label="horse",
            id="0",
            box=Box(52, 86, 420, 420),
            attributes={
                "pose": "Left",
                "truncated": "0",
                "occluded": "1",
                "difficult": "0",
                "colour": "dark\n                brown",
            },
        ),
        Shape(
            picture=uri,
            label="person",
            id="1",
            box=Box(157, 43, 289, 167),
            attributes={"actions.jumping": "1", "actions.other": "0"},
        ),
    ]


@pytest.mark.parametrize(
    ("edges", "box"),
    [
        (("1", "1", "500", "375"), (0, 0, 500, 375)),  # the whole picture
        (("7", "9", "7", "9"), (6, 8, 7, 9)),  # a pixel
        (("45.70", "1e1", "+46.25", " 99 "), (44.7, 9, 46.25, 99)),
        (("0", "-3", "501", "9999"), (-1, -4, 501, 9999)),
        (("9", "9", "1", "1"), (8, 8, 1, 1)),
        (("-inf", "1", "Infinity", "2"), (-math.inf, 0, math.inf, 2)),
    ],
)
def test_boxes_are_exact_and_never_clipped(tmp_path: Path, edges: tuple[str, ...], box: tuple[float, ...]) -> None:
    assert box_of(tmp_path, *edges) == box


def test_nan_is_left_to_a_later_step(tmp_path: Path) -> None:
    box = box_of(tmp_path, "nan", "1", "2", "3")
    assert box and math.isnan(box.x_min) and box[1:] == (0, 2, 3)


@pytest.mark.parametrize(
    ("polygon", "polygons"),
    [
        ("<x1>1</x1><y1>2.5</y1><x2>3</x2><y2>4</y2><x3>5</x3><y3>0</y3>", [[0, 1.5, 2, 3, 4, -1]]),
        ("<y2>4</y2><x1>1</x1><y1>2</y1><x2>3</x2>", [[0, 1, 2, 3]]),  # a later step counts the points
    ],
)
@pytest.mark.parametrize("box", [BOX, ""])
def test_polygons(tmp_path: Path, polygon: str, polygons: list[list[float]], box: str) -> None:
    found = shape_of(tmp_path, f"<name>cat</name>{box}<polygon>{polygon}</polygon>")
    assert found.polygons == polygons and found.box == ((0, 1, 500, 375) if box else None) and found.attributes == {}


def test_an_object_of_several_polygons(tmp_path: Path) -> None:
    polygons = [f"<polygon><x1>{x}</x1><y1>1</y1></polygon>" for x in (1, 5)]
    found = shape_of(tmp_path, f"<name>cat</name>{''.join(polygons)}<polygon/>")
    assert found.polygons == [[0, 0], [4, 0]] and found.attributes == {}


def test_what_else_stands_there_is_kept_however_deep_or_often(tmp_path: Path) -> None:
    write = '<name>cat</name><name>tom</name><a id="1">x<b><c> 2 </c><c>\u00e4</c></b></a><flag>x</flag><flag>y</flag>'
    found = shape_of(tmp_path, write + BOX.replace("<ymax>", '<ymax unit="px">'))
    assert found.label == "cat" and found.box == (0, 1, 500, 375)
    assert found.attributes == {
        "name": "tom", "a": "x", "a.id": "1", "a.b.c": '["2", "\u00e4"]', "flag": '["x", "y"]',
        "bndbox.ymax.unit": "px",
    }  # fmt: skip


def test_attributes_of_the_outermost_element_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.xml"
    path.write_text(f'<annotation verified="yes">{HEAD}</annotation>')
    (found,) = voc.read(uris.to_uri(path))
    assert isinstance(found, Picture) and found.attributes["verified"] == "yes"


def test_an_empty_polygon_is_none(tmp_path: Path) -> None:
    found = shape_of(tmp_path, f"<name>cat</name>{BOX}<polygon/>")
    assert (found.box, found.polygons) == ((0, 1, 500, 375), None)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("<size><width>500</width><height> 375 </height></size>", (500, 375)),
        ("<size><width>0</width><height>0</height><depth>0</depth></size>", (None, None)),
        ("<size><width/><height>375</height></size>", (None, 375)),
        ("<size/>", (None, None)),
        ("", (None, None)),
    ],
)
def test_sizes(tmp_path: Path, size: str, expected: tuple[int | None, int | None]) -> None:
    (found,) = said(tmp_path, f"<filename>a.jpg</filename>{size}")
    assert isinstance(found, Picture) and (found.width_px, found.height_px) == expected


@pytest.mark.parametrize("text", ["x", "-5", "500.0", "1e3", "٣", "9999999999"])
def test_a_size_that_is_none(tmp_path: Path, text: str) -> None:
    uri = uris.to_uri(tmp_path / "in.xml")
    problem, picture, shape = said(
        tmp_path, f"<filename>a.jpg</filename><size><width>{text}</width><height>375</height></size>{OBJECT}"
    )
    assert isinstance(problem, Problem) and (problem.reason, problem.picture) == ("number_invalid", uri)
    assert f"width is '{text}'; allowed are whole numbers" in problem.message
    assert picture == Picture(key=uri, name="a.jpg") and isinstance(shape, Shape)


@pytest.mark.parametrize("name", ["https://host/../a.jpg", "s3://bucket/a.jpg", "sub/a..b.jpg", "ä b.jpg", "C"])
def test_names_stay_as_they_are(tmp_path: Path, name: str) -> None:
    (found,) = said(tmp_path, f"<filename>{name}</filename>")
    assert isinstance(found, Picture) and found.name == name


@pytest.mark.parametrize(
    ("filename", "reason", "shown"),
    [
        ("", "name_missing", "filename is missing"),
        ("<filename/>", "name_missing", "filename is missing"),
        ("<filename> </filename>", "name_missing", "filename is missing"),
        ("<filename>/etc/passwd</filename>", "name_unsafe", "'/etc/passwd'"),
        ("<filename>C:\\a.jpg</filename>", "name_unsafe", "C:"),
        ("<filename>\\\\host\\a.jpg</filename>", "name_unsafe", "host"),
        ("<filename>a/../../b.jpg</filename>", "name_unsafe", "'a/../../b.jpg'"),
        ("<filename>..\\b.jpg</filename>", "name_unsafe", "b.jpg"),
    ],
)
def test_a_picture_without_a_usable_name(tmp_path: Path, filename: str, reason: str, shown: str) -> None:
    (problem,) = said(tmp_path, filename + OBJECT + OBJECT)
    assert isinstance(problem, Problem) and problem.picture == uris.to_uri(tmp_path / "in.xml")
    assert problem.reason == reason and shown in problem.message and "2 objects" in problem.message


@pytest.mark.parametrize(
    ("inner", "reason", "shown"),
    [
        (BOX, "label_missing", "name is missing"),
        (f"<name> </name>{BOX}", "label_missing", "name is missing"),
        ("<name>dog</name>", "box_missing", "no bndbox and no polygon"),
        ("<name>dog</name><polygon/>", "box_missing", "no bndbox and no polygon"),
        ("<name>dog</name><bndbox/>", "number_invalid", "xmin is missing"),
        (f"<name>dog</name>{BOX}{BOX}", "box_ambiguous", "2 bndbox; allowed is one"),
        (f"<name>dog</name>{BOX.replace('375', 'x')}", "number_invalid", "ymax is 'x'; allowed are numbers"),
        (f"<name>dog</name>{BOX.replace('375', '1_0')}", "number_invalid", "ymax is '1_0'"),
        (f"<name>dog</name>{BOX.replace('375', '٣')}", "number_invalid", "ymax is '٣'"),
        (f"<name>dog</name>{BOX.replace('<ymin>2</ymin>', '')}", "number_invalid", "ymin is missing"),
        ("<name>dog</name><polygon><x1>1</x1><y1>1</y1><x2>2</x2></polygon>", "number_invalid", "y2 is missing"),
        ("<name>dog</name><polygon><x1>1</x1><y1>b</y1></polygon>", "number_invalid", "y1 is 'b'"),
        (f"<name>dog</name>{BOX}<polygon><pt><x>1</x><y>2</y></pt></polygon>", "polygon_invalid", "'pt'"),
        ("<name>dog</name><polygon><x0>1</x0><y0>1</y0></polygon>", "polygon_invalid", "'x0'"),
    ],
)
def test_bad_objects(tmp_path: Path, inner: str, reason: str, shown: str) -> None:
    element = f"<object>{inner}</object>"
    picture, problem, shape = said(tmp_path, f"{HEAD}{element}\n  {OBJECT}")
    assert isinstance(picture, Picture) and isinstance(shape, Shape) and shape.id == "1"
    assert isinstance(problem, Problem) and (problem.reason, problem.picture) == (reason, picture.key)
    assert problem.message.startswith("object 0: ") and shown in problem.message
    assert problem.payload and plain.canonicalize(problem.payload) == plain.canonicalize(element)


def test_parts_are_said_and_their_object_stays(tmp_path: Path) -> None:
    parts = [f"<part><name>{name}</name>{BOX}</part>" for name in ("head", "hand")]
    _, shape, *problems = said(tmp_path, f"{HEAD}<object><name>person</name>{''.join(parts)}{BOX}</object>")
    assert isinstance(shape, Shape) and shape.box == (0, 1, 500, 375) and shape.attributes == {}
    assert [(each.reason, each.payload) for each in problems if isinstance(each, Problem)] == [
        ("unsupported_part", part) for part in parts
    ]


def test_a_payload_is_short(tmp_path: Path) -> None:
    _, problem = said(tmp_path, f"{HEAD}<object><note>{'x' * 5000}</note></object>")
    assert isinstance(problem, Problem) and problem.payload and len(problem.payload) == 2000


@pytest.mark.parametrize(
    ("content", "reason", "shown"),
    [
        (b"", "empty_file", "empty"),
        (codecs.BOM_UTF8 + b" \r\n\t", "empty_file", "empty"),
        ("<annotation>\n <object>", "not_xml", "line 2, column 10"),
        (f"<annotation>{HEAD}</annotation", "not_xml", "line 1"),
        (f"<annotation>{HEAD}</annotation><x/>", "not_xml", "junk after document element"),
        ("<annotation>\n<a></b></annotation>", "not_xml", "mismatched tag in line 2, column 6"),
        ("<annotation>&x;</annotation>", "not_xml", "undefined entity"),
        ("<annotation>\0</annotation>", "not_xml", "invalid token"),
        (b"<annotation>\xff</annotation>", "not_xml", "invalid token"),
        (b"\x1f\x8b\x08\x00", "not_xml", "invalid token"),
        ('{"images": []}', "not_xml", "line 1, column 1"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not_xml", "klingon"),
        ('<?xml version="1.0" encoding="gb2312"?><annotation/>', "not_xml", "save it as UTF-8"),
        ("<annotations/>", "not_voc", "'annotations'"),
        ('<annotation xmlns="http://x"/>', "not_voc", "{http://x}annotation"),
        ("<!DOCTYPE annotation><annotation/>", "xml_forbidden", "DTD"),
        ('<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><annotation/>', "xml_forbidden", "127.0.0.1"),
        (
            '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;</annotation>',
            "xml_forbidden",
            "DTD",
        ),
        (
            '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>',
            "xml_forbidden",
            "DTD",
        ),
        ("<annotation>" + "<a>" * 40, "nested_too_deep", "allowed 32"),
        ("<annotation>" + " " * (16 << 20), "too_large", "larger than 16777216 bytes"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: str | bytes, reason: str, shown: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        list(voc.read(write(tmp_path, content)))
    assert caught.value.reason == reason and shown in caught.value.message, caught.value


def test_a_file_may_be_as_large_as_is_said(tmp_path: Path) -> None:
    content = f"<annotation>{HEAD}</annotation>"
    assert len(list(voc.read(write(tmp_path, content + " " * (voc.MAX_BYTES - len(content)))))) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    name = "iso-8859-1" if encoding == "latin-1" else encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{name}"?><annotation><filename>ä.jpg</filename></annotation>'
    (found,) = voc.read(write(tmp_path, text.encode(encoding)))
    assert isinstance(found, Picture) and found.name == "ä.jpg"


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(voc.read(uris.to_uri(tmp_path / "gone.xml")))


def test_real_annotations_agree_with_a_plain_read() -> None:
    if not REAL.is_dir():
        pytest.skip("bccd is not here")
    files = sorted(REAL.rglob("*.xml"))
    found = [each for path in files for each in voc.read(uris.to_uri(path))]
    assert len(files) == 364
    assert Counter(type(each) for each in found) == {Picture: 364, Shape: 4888}
    boxes = [
        [float(box.findtext(edge, "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
        for path in files
        for box in plain.parse(path).iter("bndbox")
    ]
    assert [each.box for each in found if isinstance(each, Shape)] == [(a - 1, b - 1, c, d) for a, b, c, d in boxes]
