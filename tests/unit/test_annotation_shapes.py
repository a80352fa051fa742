"""Shapes of annotations as instances of the upright frame: turned, drawn and scaled, or refused with a reason."""

from __future__ import annotations

import math
from typing import Any

import media_pictures
import numpy as np
import pytest
from pycocotools import mask as coco

from visionlake.udfs.annotation_shapes import Canvas, ShapeError, instance
from visionlake.udfs.rle import decode_mask, encode_mask
from visionlake.udfs.upright import UPRIGHT, from_exif, from_turn

CANVAS = Canvas(width_px=40, height_px=20, turn=UPRIGHT)
TRIANGLE = [2.0, 2.0, 30.0, 2.0, 2.0, 15.0]


def shape(**values: Any) -> dict[str, Any]:
    return {"picture": "p", "label": "cat", **values}


def drawn() -> np.ndarray:
    """An upright mask, 40 x 20, that no turn leaves as it is."""
    mask = np.zeros((20, 40), bool)
    mask[3:12, 5:9] = mask[3:6, 5:30] = True
    return mask


def edges(mask: np.ndarray) -> dict[str, float]:
    rows, columns = np.nonzero(mask)
    return {
        "x_min": float(columns.min()),
        "y_min": float(rows.min()),
        "x_max": float(columns.max() + 1),
        "y_max": float(rows.max() + 1),
    }


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_boxes_and_polygons_are_turned_as_their_picture_is(orientation: int) -> None:
    stored = media_pictures.TURNED[orientation](drawn())
    height, width = stored.shape
    rle = encode_mask(stored)
    box = edges(stored)
    corners = [box["x_min"], box["y_min"], box["x_max"], box["y_min"], box["x_max"], box["y_max"]]
    canvas = Canvas(width_px=width, height_px=height, turn=from_exif(orientation))
    found = instance(shape(mask=[height, width, rle["counts"]], box=[*box.values()], polygons=[corners]), canvas)
    assert canvas.upright_size == (40, 20)
    assert (decode_mask(found["mask"]) == drawn()).all()
    assert found["area_px"] == drawn().sum()
    assert found["box"] == edges(drawn())
    xs, ys = found["polygons"][0][::2], found["polygons"][0][1::2]
    assert (min(xs), min(ys), max(xs), max(ys)) == tuple(edges(drawn()).values())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turn_of_a_video_is_that_of_the_picture_with_its_angle(orientation: int) -> None:
    turn = from_exif(orientation)
    assert from_turn(turn.rotation_deg, is_mirrored=turn.is_mirrored) == turn


def test_polygons_are_drawn_as_coco_draws_them_and_give_a_box_where_there_is_none() -> None:
    found = instance(shape(polygons=[TRIANGLE, [30.0, 10.0, 38.0, 10.0, 38.0, 18.0]]), CANVAS)
    masks: Any = coco
    expected = masks.merge(masks.frPyObjects([TRIANGLE, [30.0, 10.0, 38.0, 10.0, 38.0, 18.0]], 20, 40))
    assert found["mask"] == {"size": [20, 40], "counts": expected["counts"].decode()}
    assert found["box"] == {"x_min": 2.0, "y_min": 2.0, "x_max": 38.0, "y_max": 18.0}
    assert found["polygons"][0] == TRIANGLE


def test_runs_as_numbers_and_as_text_are_the_same_mask() -> None:
    rle = encode_mask(drawn())
    column = drawn().T.ravel()
    changes = np.flatnonzero(np.diff(column.astype(int))) + 1
    counts = np.diff(np.array([0, *changes, len(column)])).tolist()
    as_numbers, as_text = (instance(shape(mask=[20, 40, each]), CANVAS) for each in (counts, rle["counts"]))
    assert as_numbers == as_text
    assert as_numbers["box"] == edges(drawn())


def test_shares_become_pixels_and_nothing_is_rounded_or_clipped() -> None:
    canvas = Canvas(width_px=40, height_px=20, turn=UPRIGHT, scale=(40.0, 20.0))
    assert instance(shape(box=[0.1, 0.25, 0.3, 0.75]), canvas)["box"] == {
        "x_min": 4.0,
        "y_min": 5.0,
        "x_max": 12.0,
        "y_max": 15.0,
    }
    edge = instance(shape(box=[-0.75, 0.0, 40.9, 20.0]), CANVAS)["box"]
    assert (edge["x_min"], edge["x_max"]) == (-0.75, 40.9)


def test_what_a_file_says_besides_is_kept() -> None:
    found = instance(
        shape(
            box=[1.0, 2.0, 3.0, 4.0], id="7", label_id=3, is_crowd=True, area_px=2.5, track_id="9",
            attributes={"colour": "red"}, keypoints=[["nose", 1.0, 2.0, 2], ["eye", 0.0, 0.0, 0]],
        ),
        Canvas(width_px=40, height_px=20, turn=from_exif(3)),
    )  # fmt: skip
    assert (found["annotation_id"], found["label_id"], found["iscrowd"], found["area"]) == ("7", 3, True, 2.5)
    assert (found["track_id"], found["attributes"]) == ("9", [("colour", "red")])
    nose, eye = found["keypoints"]
    assert nose == {"name": "nose", "x": 39.0, "y": 18.0, "visibility": 2}
    assert eye == {"name": "eye", "x": 0.0, "y": 0.0, "visibility": 0}  # not labelled: nowhere, turned or not


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({}, "shape_missing"),
        ({"box": [1.0, 1.0, 1.0, 5.0]}, "box_empty"),
        ({"box": [5.0, 1.0, 1.0, 5.0]}, "box_empty"),
        ({"box": [math.nan, 1.0, 4.0, 5.0]}, "not_finite"),
        ({"box": [1.0, 1.0, math.inf, 5.0]}, "not_finite"),
        ({"box": [1.0, 1.0, 41.5, 5.0]}, "box_outside"),
        ({"box": [-1.5, 1.0, 4.0, 5.0]}, "box_outside"),
        ({"polygons": [[1.0, 1.0, 5.0, 5.0]]}, "polygon_invalid"),
        ({"polygons": [[1.0, 1.0, 5.0, 5.0, 3.0]]}, "polygon_invalid"),
        ({"polygons": [[1.0, 1.0, 5.0, 1.0, 9.0, 1.0]]}, "polygon_invalid"),
        ({"polygons": [[1.0, 1.0, 50.0, 5.0, 9.0, 1.0]]}, "polygon_outside"),
        ({"polygons": [[1.0, 1.0, math.nan, 5.0, 9.0, 1.0]]}, "not_finite"),
        ({"mask": [40, 20, [800]]}, "mask_misfit"),
        ({"mask": [20, 40, [10, 5]]}, "mask_invalid"),
        ({"mask": [20, 40, [-5, 805]]}, "mask_invalid"),
        ({"mask": [20, 40, [1.5, 798.5]]}, "mask_invalid"),
        ({"mask": [20, 40, "no such counts"]}, "mask_invalid"),
        ({"mask": [20, 40, "ü"]}, "mask_invalid"),
        ({"mask": [20, 40, [800]]}, "mask_empty"),
        ({"box": [1.0, 1.0, 4.0, 5.0], "area_px": math.inf}, "not_finite"),
    ],
)
def test_a_bad_shape_is_refused_with_its_reason(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(ShapeError) as caught:
        instance(shape(**bad), CANVAS)
    assert caught.value.reason == reason


def test_a_mask_too_large_to_decode_is_refused() -> None:
    canvas = Canvas(width_px=100_000, height_px=100_000, turn=UPRIGHT)
    with pytest.raises(ShapeError, match="allowed are"):
        instance(shape(mask=[100_000, 100_000, "0"]), canvas)


@pytest.mark.parametrize("runs", [[2**63 - 1, 2**63 - 1, 802], [2**64 - 1, 801], [-1, 801]])
def test_runs_whose_sum_overflows_to_the_right_one_are_refused(runs: list[int]) -> None:
    with pytest.raises(ShapeError) as error:
        instance(shape(mask=[20, 40, runs]), CANVAS)
    assert error.value.reason == "mask_invalid"


def test_outlines_that_would_fill_memory_are_refused() -> None:
    canvas = Canvas(width_px=16_000, height_px=16_000, turn=UPRIGHT)
    zigzag = [float(number) for step in range(100) for x in (0, 16_000) for number in (x, step)]
    with pytest.raises(ShapeError, match=r"edges are [0-9]+ px long; allowed are up to 2097152") as error:
        instance(shape(polygons=[zigzag]), canvas)
    assert error.value.reason == "polygon_too_long"
