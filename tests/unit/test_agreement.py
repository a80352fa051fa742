"""Which boxes of two models go together, computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from visionlake.udfs.agreement import Agreement, Pair, compare, compare_frames, pair_boxes


def boxes(*edges: tuple[float, float, float, float]) -> Any:
    return np.array(edges, float).reshape(-1, 4)


def instance(label: str, *edges: float) -> dict[str, Any]:
    return {"label": label, "box": dict(zip(("x_min", "y_min", "x_max", "y_max"), edges, strict=True))}


def test_the_best_pair_comes_first_and_each_box_is_in_one() -> None:
    a = boxes((0, 0, 10, 10), (2, 0, 12, 10))
    b = boxes((1, 0, 11, 10), (2, 0, 12, 10))
    # a0-b0 9/11, a1-b0 9/11, a1-b1 1, a0-b1 8/12: a1 takes b1, and b0 is left for a0.
    assert pair_boxes(a, b, iou=0.5) == [Pair(1, 1, 1.0), Pair(0, 0, 9 / 11)]
    assert pair_boxes(a[:1], b, iou=0.82) == []
    assert pair_boxes(a, boxes(), iou=0.5) == [] == pair_boxes(boxes(), boxes(), iou=0.5)


def test_of_equal_overlaps_the_earlier_boxes_go_together() -> None:
    same = boxes((0, 0, 4, 4), (0, 0, 4, 4))
    assert pair_boxes(same, same, iou=0.5) == [Pair(0, 0, 1.0), Pair(1, 1, 1.0)]
    assert pair_boxes(boxes((0, 0, 10, 10)), boxes((1, 0, 11, 10), (0, 1, 10, 11)), iou=0.5)[0][:2] == (0, 0)


def test_a_greedy_pair_is_not_broken_up() -> None:
    a, b = boxes((0, 0, 10, 10), (3, 0, 13, 10)), boxes((2, 0, 12, 10), (-3, 0, 7, 10))
    # a1-b0 9/11 is best; then a0-b1 7/13 is left. Had a0 taken b0 (8/12), a1 had none.
    assert [pair[:2] for pair in pair_boxes(a, b, iou=0.5)] == [(1, 0), (0, 1)]
    assert [pair[:2] for pair in pair_boxes(a, b, iou=0.6)] == [(1, 0)]


def test_labels_are_compared_apart_and_counted() -> None:
    a = [instance("car", 0, 0, 10, 10), instance("car", 50, 0, 60, 10), instance("dog", 0, 0, 10, 10)]
    b = [instance("car", 0, 0, 10, 10), instance("car", 51, 0, 61, 10), instance("cat", 0, 0, 10, 10)]
    found = compare(a, b, iou=0.5, moved=0.9)
    assert found == {
        "car": Agreement(boxes_a=2, boxes_b=2, matched=1, moved=1),
        "cat": Agreement(boxes_b=1),
        "dog": Agreement(boxes_a=1),
    }
    total = sum(found.values(), Agreement())
    assert (total.missed, total.extra, total.agreement) == (1, 1, 4 / 6)
    assert compare(a, b, iou=0.5, moved=0.8)["car"].matched == 2
    assert compare([], [], iou=0.5, moved=0.9) == {} and Agreement().agreement is None


def test_frames_give_a_row_for_each_label() -> None:
    batch = pd.DataFrame({"pts": [3, 4, 5], "a": [[instance("car", 0, 0, 1, 1)], [], None], "b": [[], [], []]})
    (rows,) = compare_frames([batch], keys=["pts"], iou=0.5, moved=0.9)
    assert rows.to_dict("records") == [{"pts": 3, "label": "car", "boxes_a": 1, "boxes_b": 0, "matched": 0, "moved": 0}]
