"""Label Studio's export as it is found: per cent become pixels, brushes masks, and every bad region is said."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from visionlake.udfs import uris
from visionlake.udfs.annotation_formats import find_format, label_studio
from visionlake.udfs.annotation_types import AnnotationError, Box, Picture, Problem, Runs, Said, Shape
from visionlake.udfs.rle import Rle, decode_mask

WIDTH, HEIGHT = 200, 50
BOX = {"x": 10, "y": 20, "width": 25, "height": 12.5, "rotation": 0}


def region(kind: str = "rectanglelabels", /, **entries: Any) -> dict[str, Any]:
    """A result with these entries, and without those that are None; `value` is added to."""
    plain = {
        "id": "r1",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**BOX, "rectanglelabels": ["cat"]},
    }
    return {name: value for name, value in (plain | entries).items() if value is not None}


def rectangle(**value: Any) -> dict[str, Any]:
    return region(value={**BOX, "rectanglelabels": ["cat"], **value})


def task(*results: Any, number: int = 7, data: Any = None, **annotation: Any) -> dict[str, Any]:
    own = {"id": 12, "completed_by": 3, "was_cancelled": False, "result": [*results], **annotation}
    return {"id": number, "data": data or {"image": "a/cat.jpg"}, "annotations": [own], "predictions": [{"result": 1}]}


def write(tmp_path: Path, content: Any) -> str:
    path = tmp_path / "export.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode())
    return uris.to_uri(path)


def said(tmp_path: Path, *tasks: Any) -> list[Said]:
    return list(label_studio.read(write(tmp_path, [*tasks])))


def shapes(tmp_path: Path, *results: Any) -> list[Shape]:
    picture, *found = said(tmp_path, task(*results))
    assert isinstance(picture, Picture)
    kept = [each for each in found if isinstance(each, Shape)]
    assert len(kept) == len(found), found
    return kept


def picture(tmp_path: Path, content: Any) -> Picture:
    found = said(tmp_path, content)[0]
    assert isinstance(found, Picture), found
    return found


def encode_brush(
    values: Sequence[int], *, value_bits: int = 8, length_bits: tuple[int, ...] = (3, 4, 8, 16), most: int = 1 << 16
) -> list[int]:
    """Label Studio's code of values: what repeats as runs, what stands alone as they are, none longer than `most`."""
    runs: list[tuple[bool, list[int]]] = []
    for _, group in groupby(values):
        same = list(group)
        if len(same) == 1 and runs and not runs[-1][0]:
            runs[-1][1].extend(same)
        else:
            runs.append((len(same) > 1, same))
    bits = f"{len(values):032b}{value_bits - 1:05b}" + "".join(f"{each - 1:04b}" for each in length_bits)
    for repeats, run in runs:
        for part in (run[place : place + most] for place in range(0, len(run), most)):
            kind = next(place for place, each in enumerate(length_bits) if len(part) <= 1 << each)
            bits += f"{repeats:b}{kind:02b}{len(part) - 1:0{length_bits[kind]}b}"
            bits += "".join(f"{value:0{value_bits}b}" for value in (part[:1] if repeats else part))
    return [*int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")]


def drawn(*, is_noisy: bool) -> npt.NDArray[np.uint8]:
    """RGBA pixels with strokes; noisy ones have all colours, and of an opacity of 0 as well."""
    random = np.random.default_rng(0)
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[3:20, 5:90] = pixels[30:, 150:] = pixels[10:45, 60:63] = (255, 0, 0, 255)
    if is_noisy:
        pixels[..., :3] = random.integers(0, 256, (HEIGHT, WIDTH, 3))
        pixels[25:29, :, 3] = random.integers(0, 3, (4, WIDTH))
    return pixels


def brush(rle: Any, **value: Any) -> dict[str, Any]:
    return region("brushlabels", value={"format": "rle", "rle": rle, "brushlabels": ["cat"], **value})


def test_a_task_with_a_rectangle(tmp_path: Path) -> None:
    assert find_format("label_studio").FILES == ("*.json",)
    uri = write(tmp_path, [task(rectangle())])
    key = f"{uri}#7/12"
    assert list(label_studio.read(uri)) == [
        Picture(key=key, name="a/cat.jpg", width_px=WIDTH, height_px=HEIGHT, annotator="3"),
        Shape(picture=key, id="7/12/r1", label="cat", box=Box(20.0, 10.0, 70.0, 16.25)),
    ]


def test_each_annotation_is_a_picture_of_its_own(tmp_path: Path) -> None:
    content = task(rectangle())
    (one,) = content["annotations"]
    content["annotations"] = [
        one,
        one | {"id": 13, "completed_by": {"id": 4, "email": "ann@x.org"}},
        one | {"id": 14, "was_cancelled": True},
        one | {"id": 15, "result": [], "completed_by": None},
    ]
    found = said(tmp_path, content, {"id": 8, "data": {"image": "b.jpg"}}, task(number=9))
    pictures = [each for each in found if isinstance(each, Picture)]
    assert [each.key.rpartition("#")[2] for each in pictures] == ["7/12", "7/13", "7/15", "9/12"]
    assert [each.annotator for each in pictures] == ["3", "ann@x.org", None, "3"]
    assert [(each.width_px, each.height_px, each.unit) for each in pictures[2:]] == [(None, None, "px")] * 2
    # Regions made from one prediction have its ids, whoever has made them.
    assert [each.id for each in found if isinstance(each, Shape)] == ["7/12/r1", "7/13/r1"]


def test_tasks_of_old_and_those_without_ids(tmp_path: Path) -> None:
    old = {"data": {"image": "a.jpg"}, "completions": [{"result": [region(id=None)]}]}
    first, shape, second, _ = said(tmp_path, old, old)
    assert isinstance(first, Picture) and isinstance(shape, Shape) and isinstance(second, Picture)
    assert (first.key.rpartition("#")[2], shape.id) == ("[0]/[0]", None)
    assert second.key.rpartition("#")[2] == "[1]/[0]"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"image": "photo.jpg", "thumb": "t.jpg"}, "photo.jpg"),
        ({"image": "/data/upload/12/1a2b3c4d-photo.jpg"}, "photo.jpg"),
        ({"image": "/data/upload/1a2b3c4d-my%20photo-2.jpg"}, "my photo-2.jpg"),
        ({"image": "/studio/data/upload/3/photo.jpg?x=1"}, "photo.jpg"),
        ({"image": "/data/local-files/?d=sub/photo.jpg"}, "sub/photo.jpg"),
        ({"image": "http://localhost:8080/data/local-files/?a=b&d=sub%2Fa%2Bb%26.jpg&c=d"}, "sub/a+b&.jpg"),
        ({"image": "https://host/a%20b.jpg?token=1"}, "https://host/a%20b.jpg?token=1"),
        ({"image": "s3://bucket/a b.jpg"}, "s3://bucket/a b.jpg"),
        ({"image": "without suffix"}, "without suffix"),
        ({"text": "a photo", "n": 5, "url": "https://host/a.JPG?x=y.txt"}, "https://host/a.JPG?x=y.txt"),
        ({"ocr": "/data/local-files/?d=sub/photo.png", "more": ["b.jpg"]}, "sub/photo.png"),
    ],
)
def test_the_name_of_a_picture(tmp_path: Path, data: dict[str, Any], name: str) -> None:
    assert picture(tmp_path, task(data=data)).name == name


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"image": ""}, "name_missing"),
        ({"image": None}, "name_missing"),
        ({"image": ["a.jpg", "b.jpg"]}, "name_missing"),
        ({"text": "a photo"}, "name_missing"),
        ({"left": "a.jpg", "right": "b.jpg"}, "name_missing"),
        ({"image": "/data/local-files/?d="}, "name_missing"),
        ({"image": "/etc/cat.jpg"}, "name_unsafe"),
        ({"image": r"C:\cat.jpg"}, "name_unsafe"),
        ({"image": r"a\..\cat.jpg"}, "name_unsafe"),
        ({"image": "/data/local-files/?d=..%2Fcat.jpg"}, "name_unsafe"),
        ({"image": "/data/local-files/?d=/etc/cat.jpg"}, "name_unsafe"),
        ({"image": "x" * 5000}, "name_unsafe"),
    ],
)
def test_a_picture_without_a_name_is_said(tmp_path: Path, data: dict[str, Any], reason: str) -> None:
    bad, *rest = said(tmp_path, task(rectangle(), data=data), task(rectangle(), number=8))
    assert isinstance(bad, Problem) and bad.reason == reason and "allowed" in bad.message
    assert bad.picture and bad.picture.endswith("#7/12") and bad.payload
    assert [type(each) for each in rest] == [Picture, Shape]


@pytest.mark.parametrize(("degrees", "corner"), [(90, (13.75, 60.0)), (-90, (26.25, -40.0)), (180, (-30.0, 3.75))])
def test_a_turned_rectangle_is_turned_about_its_corner_in_pixels(
    tmp_path: Path, degrees: int, corner: tuple[float, float]
) -> None:
    (shape,) = shapes(tmp_path, rectangle(rotation=degrees))
    assert shape.polygons is not None and shape.box is not None
    points = [*zip(shape.polygons[0][::2], shape.polygons[0][1::2], strict=True)]
    assert points[0] == (20.0, 10.0) and len(points) == 4
    assert points[2] == pytest.approx(corner)
    xs, ys = zip(*points, strict=True)
    assert shape.box == Box(min(xs), min(ys), max(xs), max(ys))
    assert shape.attributes == {"rotation_deg": str(degrees)}


def test_a_rectangle_turned_a_little(tmp_path: Path) -> None:
    # 3, 4, 5: 50 px to the right and 6.25 px down become (40, 30) and (-3.75, 5).
    (shape,) = shapes(tmp_path, rectangle(rotation=36.86989764584402))
    assert shape.polygons is not None
    assert shape.polygons[0] == pytest.approx([20, 10, 60, 40, 56.25, 45, 16.25, 15])


def test_polygons(tmp_path: Path) -> None:
    points = [[0, 0], [50.5, 0], [120, 110], [-1, 2e1]]
    value = {"points": points, "closed": True, "polygonlabels": ["cat"]}
    (shape,) = shapes(tmp_path, region("polygonlabels", value=value))
    assert shape.polygons == [[0.0, 0.0, 101.0, 0.0, 240.0, 55.0, -2.0, 10.0]] and shape.box is None


@pytest.mark.parametrize("is_noisy", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"value_bits": 16}, {"length_bits": (1, 2, 5, 11), "most": 2048}, {"length_bits": (3, 3, 3, 16), "most": 7}],
)
def test_a_brush_mask_is_every_pixel_that_was_drawn(tmp_path: Path, is_noisy: bool, options: Any) -> None:
    pixels = drawn(is_noisy=is_noisy)
    (shape,) = shapes(tmp_path, brush(encode_brush(pixels.ravel().tolist(), **options)))
    assert isinstance(shape.mask, Runs) and isinstance(shape.mask.counts, str)
    assert shape.mask[:2] == (HEIGHT, WIDTH)
    mask: Rle = {"size": [HEIGHT, WIDTH], "counts": shape.mask.counts}
    assert (decode_mask(mask) == (pixels[..., 3] > 0)).all()


def header(count: int) -> list[int]:
    """The code of a few values that says to be of `count`."""
    return [*count.to_bytes(4, "big"), *encode_brush([0] * 8)[4:]]


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        (encode_brush([0] * 400), "400 values; a picture of 200 x 50"),
        (header(4_000_000_000), "allowed are 400000000"),
        (encode_brush(drawn(is_noisy=True).ravel().tolist())[:-9], "in the middle of a run"),
        (header(WIDTH * HEIGHT * 4), "in the middle of a run"),
        ([], "ends after 0 bytes"),
        ([1, 2, 300], "256"),
        ([1, 2.5], "integer"),
        (["1"], "integer"),
        ("AAAA", "ends after 0 bytes"),
        (None, "ends after 0 bytes"),
    ],
)
def test_a_brush_mask_that_is_none_is_said(tmp_path: Path, rle: Any, words: str) -> None:
    _, bad, good = said(tmp_path, task(brush(rle), rectangle()))
    assert isinstance(bad, Problem) and bad.reason == "mask_invalid" and words in bad.message
    assert bad.payload and len(bad.payload) <= 2000
    assert isinstance(good, Shape)


def test_a_run_beyond_the_picture_is_refused() -> None:
    whole = encode_brush([1] * 12)
    with pytest.raises(ValueError, match="a run ends at value 12 of 8"):
        label_studio.decode_brush(bytes([0, 0, 0, 8, *whole[4:]]), width_px=2, height_px=1)


def test_a_hostile_size_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for side in (60_000, 10_000):
            with pytest.raises(ValueError):
                label_studio.decode_brush(bytes(header(400_000_001)), width_px=side, height_px=side)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_plain_region_has_the_labels_of_the_result_with_its_id(tmp_path: Path) -> None:
    labels = {"type": "labels", "value": {**BOX, "labels": ["dog"]}}
    other = {"id": "r2", "value": {"points": [[0, 0], [1, 0], [1, 1]], "labels": ["cow"]}}
    found = shapes(tmp_path, region() | labels, region("rectangle", value=BOX), region("polygon", **other))
    assert [(each.id, each.label) for each in found] == [("7/12/r1", "dog"), ("7/12/r2", "cow")]
    assert found[0].box and found[1].polygons


def test_a_region_with_several_labels_is_a_shape_for_each(tmp_path: Path) -> None:
    found = shapes(tmp_path, rectangle(rectanglelabels=["cat", "pet", "cat"]))
    assert [(each.id, each.label) for each in found] == [("7/12/r1", "cat"), ("7/12/r1/2", "pet")]
    assert found[0].box == found[1].box


def test_what_is_said_besides(tmp_path: Path) -> None:
    results = [
        {"id": "c1", "type": "choices", "from_name": "weather", "value": {"choices": ["rain", "fog"]}},
        region("choices", from_name="breed", value={**BOX, "choices": ["siamese"]}),
        region("textarea", from_name="note", value={**BOX, "text": ["x"]}),
        region("number", from_name=None, value={**BOX, "number": 1.5}),
        {"id": "t1", "type": "rating", "value": {"rating": 4}},
        {"id": "t2", "type": "taxonomy", "from_name": "kind", "value": {"taxonomy": [["pet", "cat"], ["\u732b"]]}},
        {"id": "t3", "type": "datetime", "from_name": "day", "value": {"datetime": "2026-01-31"}},
        {"id": "t4", "type": "of a later version", "value": {"a": 1, "b": [2]}},
        {"id": "t5", "type": "labels", "from_name": "tags", "value": {"labels": ["old", "dark"]}},
        {"type": "relation", "from_id": "r1", "to_id": "r1", "direction": "right", "labels": ["owns"]},
        {"type": "relation", "from_id": "r1", "to_id": "r2", "direction": "left"},
        {"type": "relation", "from_id": "r7", "to_id": "r1"},
        region(score=0.5, meta={"text": ["a", "b"], "n": 1, "ok": True, "deep": {"x": 1}, "none": None}),
    ]
    about, shape = said(tmp_path, task(*results))
    assert isinstance(about, Picture) and about.attributes == {
        "weather": "rain,fog", "rating": "4", "kind": '[["pet", "cat"], ["\u732b"]]', "day": "2026-01-31",
        "of a later version": '{"a": 1, "b": [2]}', "tags": "old,dark",
        "relations": '[{"from_id": "r7", "to_id": "r1"}]',
    }  # fmt: skip
    assert isinstance(shape, Shape)
    assert shape.attributes == {
        "meta.text": "a,b", "meta.n": "1", "meta.ok": "true", "meta.deep": '{"x": 1}', "score": "0.5",
        "breed": "siamese", "note": "x", "number": "1.5",
        "relations": '[{"from_id": "r1", "to_id": "r1", "direction": "right", "labels": ["owns"]}, '
        '{"from_id": "r1", "to_id": "r2", "direction": "left"}]',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "reason", "words"),
    [
        (rectangle(x="10"), "number_invalid", 'x is "10"'),
        (rectangle(height=None), "number_invalid", "height is missing or null"),
        (rectangle(width=True), "number_invalid", "true"),
        (rectangle(rotation="left"), "number_invalid", "rotation"),
        (region(value=None), "label_missing", "missing"),
        (rectangle(rectanglelabels=[]), "label_missing", "missing"),
        (rectangle(rectanglelabels=[5]), "label_missing", "[5]"),
        (rectangle(rectanglelabels=[" "]), "label_missing", "texts"),
        (region("rectangle", id="r9", value=BOX), "label_missing", "missing"),
        (region(image_rotation=90), "unsupported_rotation", "image_rotation is 90"),
        (region("polygonlabels", value={"points": [1, 2], "polygonlabels": ["cat"]}), "number_invalid", "[1, 2]"),
        (region("polygonlabels", value={"points": [[1]], "polygonlabels": ["cat"]}), "number_invalid", "[[1]]"),
        (region("polygonlabels", value={"points": [["a", 1]], "polygonlabels": ["cat"]}), "number_invalid", '"a"'),
        (region("polygonlabels", value={"polygonlabels": ["cat"]}), "number_invalid", "points is missing"),
        (
            region("polygonlabels", value={"points": [[1, 2]], "closed": False, "polygonlabels": ["cat"]}),
            "polygon_invalid",
            "open",
        ),
        (brush([], format="png"), "mask_invalid", '"png"'),
        (region("keypointlabels", value={"x": 1, "y": 2, "width": 1}), "unsupported_shape", "keypointlabels"),
        (region("ellipselabels", value={"x": 1, "radiusX": 2}), "unsupported_shape", "supported are rectanglelabels"),
        (region("videorectangle", value={"sequence": []}), "unsupported_shape", "videorectangle"),
        (region("labels", id="r9", value={**BOX, "labels": ["dog"]}), "unsupported_shape", '"labels"'),
        (region(type=["x"]), "unsupported_shape", '["x"]'),
    ],
)
def test_a_bad_region_is_said_and_the_rest_comes_out(
    tmp_path: Path, bad: dict[str, Any], reason: str, words: str
) -> None:
    about, first, second = said(tmp_path, task(bad, region(id="good")))
    assert isinstance(about, Picture) and isinstance(first, Problem)
    assert (first.reason, first.picture) == (reason, about.key) and words in first.message
    assert first.payload == json.dumps(bad)[:2000]
    assert isinstance(second, Shape) and second.id == "7/12/good"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (((200, 50), (200, 51)), "200 x 50, 200 x 51"),
        (((0, 50),), "0"),
        (((200, None),), "missing"),
        ((("200", "50"),), '"200"'),
        (((200.5, 50),), "200.5"),
        (((True, 50),), "true"),
    ],
)
def test_sizes_that_disagree_or_are_none_are_said(tmp_path: Path, sizes: Any, words: str) -> None:
    results = [region(original_width=width, original_height=height) for width, height in sizes]
    bad, *rest = said(tmp_path, task(*results), task(region(original_width=200.0), number=8))
    assert isinstance(bad, Problem) and bad.reason == "size_invalid" and words in bad.message
    assert [type(each) for each in rest] == [Picture, Shape]


def test_per_cent_of_an_unknown_size_are_no_pixels(tmp_path: Path) -> None:
    about, bad = said(tmp_path, task(region(original_width=None, original_height=None)))
    assert isinstance(about, Picture) and about.width_px is None
    assert isinstance(bad, Problem) and bad.reason == "size_invalid"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (5, "task_invalid"),
        ({"id": 1, "image": "a.jpg", "label": []}, "task_invalid"),  # the export JSON-MIN
        ({"id": 1, "data": "a.jpg", "annotations": []}, "task_invalid"),
        ({"id": 1, "data": {"image": "a.jpg"}, "annotations": {}}, None),
        ({"id": 1, "data": {"image": "a.jpg"}, "annotations": "x"}, "task_invalid"),
        ({"id": 1, "data": {"image": "a.jpg"}, "annotations": [5]}, "annotation_invalid"),
        ({"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 2}]}, "annotation_invalid"),
        ({"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"id": 2, "result": [1]}]}, "annotation_invalid"),
    ],
)
def test_a_task_that_is_none_is_said_and_the_rest_comes_out(tmp_path: Path, bad: Any, reason: str | None) -> None:
    *problems, about, shape = said(tmp_path, bad, task(rectangle()))
    assert [(each.reason, each.payload is not None) for each in problems if isinstance(each, Problem)] == (
        [(reason, True)] if reason else []
    )
    assert isinstance(about, Picture) and isinstance(shape, Shape)


def test_numbers_that_are_none_spoil_their_own_region_only(tmp_path: Path) -> None:
    bad = rectangle()
    bad["value"]["x"] = float("nan")
    about, problem, shape = said(tmp_path, task(bad, rectangle()))
    assert isinstance(about, Picture) and isinstance(shape, Shape)
    assert isinstance(problem, Problem) and "NaN" in problem.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf\n ", "empty_file"),
        (b" " * 100_000, "empty_file"),
        (b" " * 100_000 + b'{"images": []}', "not_label_studio"),
        (b'"text"', "not_label_studio"),
        (b"null", "not_label_studio"),
        (b"hello", "not_json"),
        (b"\x1f\x8b\x08\0", "not_json"),
        (b'[{"id": 1, "data": {"ima', "truncated"),
        (b'[{"id": 1},', "truncated"),
        (b'[{"id": 1}', "truncated"),
        (b'[{"id" 1}]', "not_json"),
        (b"[] and more", "not_json"),
        (b'[{"id": "\xff"}]', "not_text"),
        (b'[{"id": 1e999}]', "number_too_large"),
        (b"[" + b"[" * 200_000 + b"]" * 200_000 + b"]", "nested_too_deep"),
        (b'[{"id": 1,' + b" " * (65 << 20) + b"}]", "too_large"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes, reason: str) -> None:
    uri = write(tmp_path, content)
    with pytest.raises(AnnotationError) as caught:
        list(label_studio.read(uri))
    assert caught.value.reason == reason


def test_an_empty_list_and_a_mark_of_utf8_are_fine(tmp_path: Path) -> None:
    assert list(label_studio.read(write(tmp_path, b"\xef\xbb\xbf []\n"))) == []


def test_many_tasks_take_the_memory_of_one(tmp_path: Path) -> None:
    value = {"format": "rle", "rle": [0] * 20_000, "brushlabels": ["cat"]}
    uri = write(tmp_path, [task(region("brushlabels", value=value), number=n) for n in range(30)])
    assert Path(uris.local_path(uri) or "").stat().st_size > 1_800_000
    tracemalloc.start()
    try:
        count = sum(1 for _ in label_studio.read(uri))
        assert count == 60
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_an_export_in_a_store() -> None:
    filesystem, path = uris.open_store("mock://host/sets/e.json")
    filesystem.create_dir("sets")
    with filesystem.open_output_stream(path) as out:
        out.write(json.dumps([task(rectangle())]).encode())
    about, shape = label_studio.read("mock://host/sets/e.json")
    assert isinstance(about, Picture) and isinstance(shape, Shape) and shape.picture == about.key


def test_half_of_a_surrogate_pair_is_told(tmp_path: Path) -> None:
    content = json.dumps([task(region(), annotator="a\udce9")]).encode()
    with pytest.raises(AnnotationError, match="not_text: it has text that is none"):
        list(label_studio.read(write(tmp_path, content)))


@pytest.mark.parametrize("host", ["", "http://label.example.org", "https://10.0.0.1:8080/studio"])
def test_uploads_have_their_own_names_wherever_they_are_served_from(tmp_path: Path, host: str) -> None:
    picture = said(tmp_path, task(data={"image": f"{host}/data/upload/3/0a1b2c3d-cat%201.jpg"}))[0]
    assert isinstance(picture, Picture) and picture.name == "cat 1.jpg"
