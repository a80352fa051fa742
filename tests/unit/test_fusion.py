"""Fusion of boxes: by hand, by published examples, and what holds for any boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from visionlake.udfs._boxes import concatenate, overlaps
from visionlake.udfs.detector_types import Instances
from visionlake.udfs.fusion import (
    Fused,
    Pool,
    best_of_parents,
    gather,
    greedy_merging,
    nms,
    number_labels,
    soft_nms,
    weighted_boxes_fusion,
)

NOTHING = concatenate([])
METHODS = [nms, greedy_merging, soft_nms, weighted_boxes_fusion]


def found(*boxes: Sequence[float], scores: Sequence[float], label_ids: Sequence[int] | None = None) -> Instances:
    ids = np.zeros(len(boxes), np.int64) if label_ids is None else np.array(label_ids, np.int64)
    return Instances(boxes=np.array(boxes, float).reshape(-1, 4), scores=np.array(scores, float), label_ids=ids)


def by_chance(seed: int, *, objects: int = 12) -> list[Instances]:
    """Three sources that see the same objects roughly, some of them twice, and some things of their own."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 400, (objects, 2))
    truth = np.hstack([corners, corners + rng.uniform(20, 120, (objects, 2))])
    sources = []
    for _ in range(3):
        which = rng.integers(0, objects, rng.integers(0, 3 * objects))
        boxes = truth[which] + rng.normal(0, 3, (len(which), 4))
        sources.append(Instances(boxes=boxes, scores=rng.uniform(0, 1, len(which)), label_ids=which % 3))
    return sources


# The example in the README of ZFTurbo/Weighted-Boxes-Fusion, in hundredths.
PUBLISHED = [
    found(
        [0, 51, 81, 91], [10, 31, 71, 61], [1, 32, 83, 93], [2, 53, 11, 94], [3, 24, 12, 35],
        scores=[0.9, 0.8, 0.2, 0.4, 0.7], label_ids=[0, 1, 0, 1, 1],
    ),
    found(
        [4, 56, 84, 92], [12, 33, 72, 64], [38, 66, 79, 95], [8, 49, 21, 89],
        scores=[0.5, 0.8, 0.7, 0.3], label_ids=[1, 1, 1, 0],
    ),
]  # fmt: skip


def test_weighted_boxes_fusion_of_the_published_example() -> None:
    """What version 1.0.9 gives for it, with a threshold of 0.5 and equal weights."""
    fused = weighted_boxes_fusion(gather(PUBLISHED, score_threshold=0.0001), iou=0.5)
    of_two = [[11, 32, 71.5, 62.5], [0.181818, 47.545455, 81.363636, 91.363636]]
    np.testing.assert_allclose(fused.instances.boxes[:2], of_two, rtol=1e-5)
    np.testing.assert_allclose(fused.instances.scores, [0.8, 0.55, 0.35, 0.35, 0.25, 0.2, 0.15])
    assert fused.instances.label_ids.tolist() == [1, 0, 1, 1, 1, 1, 0]
    assert fused.parents[:2] == (((0, 1), (1, 1)), ((0, 0), (0, 2)))


def test_weights_of_the_published_example() -> None:
    """The same with weights 2 and 1. It lets two boxes of the one heavy source count for both sources: 0.7333."""
    fused = weighted_boxes_fusion(gather(PUBLISHED, weights=(2, 1)), iou=0.5)
    np.testing.assert_allclose(fused.instances.boxes[0], [10.666667, 31.666667, 71.333333, 62], rtol=1e-6)
    ours, theirs = fused.instances.scores, [0.8, 0.733333, 0.466667, 0.266667, 0.233333, 0.166667, 0.1]
    np.testing.assert_allclose(np.delete(ours, 1), np.delete(theirs, 1), rtol=1e-5)
    assert ours[1] == pytest.approx((2 * 0.9 + 2 * 0.2) / 4)


def test_fused_edges_and_scores_by_hand() -> None:
    one, other = found([0, 0, 10, 10], scores=[0.8]), found([0, 0, 10, 12], scores=[0.4])
    fused = weighted_boxes_fusion(gather([one, other, NOTHING]))
    np.testing.assert_allclose(fused.instances.boxes, [[0, 0, 10, (8 * 10 + 4 * 12) / 12]])
    assert fused.instances.scores.tolist() == pytest.approx([(0.8 + 0.4) / 3])  # one of three saw nothing
    assert fused.parents == (((0, 0), (1, 0)),)
    heavy = weighted_boxes_fusion(gather([one, other], weights=[1, 3]))
    np.testing.assert_allclose(heavy.instances.boxes[0, 3], (8 * 10 + 12 * 12) / 20)
    assert heavy.instances.scores.tolist() == pytest.approx([(0.8 + 1.2) / 4])
    assert heavy.parents == (((1, 0), (0, 0)),)


def test_a_box_joins_the_fused_box_that_it_overlaps_most() -> None:
    """By IoU 8 / 12 with the first and 9 / 11 with the second."""
    three = found([0, 0, 10, 10], [3, 0, 13, 10], [2, 0, 12, 10], scores=[0.9, 0.8, 0.7])
    fused = weighted_boxes_fusion(gather([three]), iou=0.6)
    assert fused.parents == (((0, 0),), ((0, 1), (0, 2)))


def test_soft_nms_by_hand() -> None:
    """IoU 1/3 of the first two; the third lies apart."""
    boxes = found([0, 0, 10, 10], [5, 0, 15, 10], [50, 0, 60, 10], scores=[0.9, 0.8, 0.7])
    gaussian = soft_nms(gather([boxes]), sigma=0.5)
    assert gaussian.instances.scores.tolist() == pytest.approx([0.9, 0.7, 0.8 * np.exp(-2 / 9)])
    assert gaussian.parents == (((0, 0),), ((0, 2),), ((0, 1),))
    linear = soft_nms(gather([boxes]), method="linear", overlap=0.3)
    assert linear.instances.scores.tolist() == pytest.approx([0.9, 0.7, 0.8 * 2 / 3])
    assert soft_nms(gather([boxes]), method="linear", overlap=0.35).instances.scores.tolist() == [0.9, 0.8, 0.7]
    assert len(soft_nms(gather([boxes]), method="linear", score_threshold=0.6).instances.scores) == 2
    with pytest.raises(ValueError, match="sigma 0: allowed is a number above 0"):
        soft_nms(gather([boxes]), sigma=0)


def test_soft_nms_of_a_published_example() -> None:
    """The example of `box_soft_non_max_suppression` in the documentation of supervision 0.31: two equal boxes."""
    fused = soft_nms(gather([found([0, 0, 4, 4], [0, 0, 4, 4], scores=[0.9, 0.8])]), sigma=0.5)
    assert fused.instances.scores.tolist() == pytest.approx([0.9, 0.10826823])


def test_merging_by_hand() -> None:
    """A part that lies in its whole has an IoU of 0.3 and an IoS of 1. A chain is not followed."""
    whole, part, beyond = [0, 0, 10, 10], [8, 2, 11, 10], [10.5, 2, 14, 10]
    pool = gather([found(whole, scores=[0.6]), found(part, beyond, scores=[0.5, 0.9])])
    fused = greedy_merging(pool, overlap=0.5)
    assert fused.instances.boxes.tolist() == [beyond, [0, 0, 11, 10]]
    assert (fused.instances.scores.tolist(), fused.parents) == ([0.9, 0.6], (((1, 1),), ((0, 0), (1, 0))))
    assert len(greedy_merging(pool, overlap=0.5, metric="iou").parents) == 3
    assert nms(pool, overlap=0.5, metric="ios").instances.boxes.tolist() == [beyond, whole]


def test_what_is_merged_has_the_best_of_the_scores() -> None:
    sure, trusted = found([0, 0, 9, 10], scores=[0.9]), found([0, 0, 10, 9], scores=[0.4])
    fused = greedy_merging(gather([sure, trusted], weights=(1, 10)))
    assert (fused.instances.scores.tolist(), fused.parents) == ([0.9], (((1, 0), (0, 0)),))
    assert nms(gather([sure, trusted], weights=(1, 10))).instances.scores.tolist() == [0.4]


def test_labels_are_apart_or_together() -> None:
    pool = partial(gather, [found([0, 0, 10, 10], [0, 0, 10, 9], scores=[0.6, 0.7], label_ids=[3, 1])])
    for method in METHODS:
        assert method(pool()).instances.label_ids.tolist() == [1, 3]
    for method in (nms, greedy_merging, weighted_boxes_fusion):
        assert method(pool(labels="together")).instances.label_ids.tolist() == [1]


def test_labels_of_two_models_are_numbered_by_name() -> None:
    names, (one, other) = number_labels([["dog", "cat"], ["bird", "dog", "dog"]])
    assert (names, one.tolist(), other.tolist()) == (("bird", "cat", "dog"), [2, 1], [0, 2, 2])
    assert number_labels([[], []])[0] == ()


def test_a_mask_is_that_of_the_parent_that_fits_and_is_sure() -> None:
    """The surest lies beside the box that came out, so that its outline does not fit; another is hardly sure."""
    sources = [found([0, 0, 10, 10], scores=[0.6]), found([2, 0, 12, 10], [1.5, 0, 11, 10], scores=[0.5, 0.3])]
    fused = weighted_boxes_fusion(gather(sources), iou=0.5)
    assert best_of_parents(fused, sources, [["a"], ["b", "c"]]) == ["a"]
    moved = replace(fused, instances=replace(fused.instances, boxes=np.array([[2.0, 0, 12, 10]])))
    assert best_of_parents(moved, sources, [["a"], ["b", "c"]]) == ["b"]


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_input(method: Callable[[Pool], Fused]) -> None:
    for sources in ([], [NOTHING], [NOTHING, NOTHING]):
        empty = method(gather(sources))
        assert (empty.instances.boxes.shape, empty.instances.label_ids.dtype, empty.parents) == ((0, 4), np.int64, ())
    one = found([1, 2, 3, 4], scores=[0.5])
    assert method(gather([NOTHING, one])).parents == (((1, 0),),)
    flat = found([5, 5, 5, 9], [5, 5, 5, 9], [9, 9, 2, 2], [9, 9, 2, 2], scores=[0.5] * 4)  # by itself each
    assert [each[0] for each in method(gather([flat])).parents] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    blank = method(gather([found([0, 0, 9, 9], [0, 0, 9, 9], scores=[0, 0])]))
    assert np.isfinite(blank.instances.boxes).all() and (blank.instances.scores == 0).all()


def test_equal_scores_are_in_the_order_of_sources_and_places() -> None:
    alike = found([0, 0, 10, 10], [0, 0, 10, 10], scores=[0.5, 0.5])
    for method in (nms, greedy_merging, weighted_boxes_fusion):
        fused = method(gather([alike, alike]))
        assert fused.parents == (((0, 0), (0, 1), (1, 0), (1, 1)),)
        assert (fused.instances.boxes.tolist(), fused.instances.scores.tolist()) == ([[0, 0, 10, 10]], [0.5])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (found([0, 0, np.nan, 1], scores=[0.5]), r"source 1, instance 0: box \[0.0, 0.0, nan, 1.0\] with score 0.5"),
        (found([0, 0, np.inf, 1], scores=[0.5]), "edges must be numbers"),
        (found([0, 0, 1, 1], [0, 0, 1, 1], scores=[0.5, np.nan]), "source 1, instance 1: .* score nan"),
        (found([0, 0, 1, 1], scores=[1.01]), "scores lie from 0 to 1"),
        (found([0, 0, 1, 1], scores=[0.5, 0.5], label_ids=[1]), r"\(1, 4\), scores \(2,\), .* wanted are \(N, 4\)"),
    ],
)
def test_what_is_no_box_is_refused(source: Instances, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gather([NOTHING, source])


@pytest.mark.parametrize("weights", [[1.0], [1, 0], [1, -1], [1, np.nan], [1, np.inf]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="allowed is a number above 0 for each of the 2 sources"):
        gather([NOTHING, NOTHING], weights=weights)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_sources_does_not_matter(method: Callable[[Pool], Fused], seed: int) -> None:
    sources, weights, turned = by_chance(seed), (1.0, 2.0, 0.5), [2, 0, 1]
    one = method(gather(sources, weights=weights))
    other = method(gather([sources[place] for place in turned], weights=[weights[place] for place in turned]))
    np.testing.assert_allclose(one.instances.boxes, other.instances.boxes)
    np.testing.assert_allclose(one.instances.scores, other.instances.scores)
    assert one.parents == tuple(tuple((turned[s], index) for s, index in each) for each in other.parents)


@pytest.mark.parametrize("method", [nms, greedy_merging, weighted_boxes_fusion])
@pytest.mark.parametrize("seed", range(5))
def test_parents_are_every_instance_once(method: Callable[[Pool], Fused], seed: int) -> None:
    sources = by_chance(seed)
    fused = method(gather(sources, score_threshold=0.2))
    wanted = [(s, i) for s, source in enumerate(sources) for i in np.flatnonzero(source.scores >= 0.2).tolist()]
    assert sorted(parent for parents in fused.parents for parent in parents) == wanted
    assert max(map(len, fused.parents)) > 2
    for label_id, parents in zip(fused.instances.label_ids, fused.parents, strict=True):
        assert {int(sources[s].label_ids[i]) for s, i in parents} == {int(label_id)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_scores_fall_from_at_most_1_and_boxes_stay_where_parents_are(
    method: Callable[[Pool], Fused], seed: int
) -> None:
    sources = [replace(source, scores=np.sqrt(np.sqrt(source.scores))) for source in by_chance(seed, objects=3)]
    fused = method(gather([*sources, *sources], weights=[0.1, 0.1, 5, 3, 0.7, 0.1]))
    assert (np.diff(fused.instances.scores) <= 0).all() and (fused.instances.scores <= 1).all()
    for box, score, parents in zip(fused.instances.boxes, fused.instances.scores, fused.parents, strict=True):
        of_parents = np.array([sources[s % 3].boxes[i] for s, i in parents])
        assert (box >= of_parents.min(axis=0)).all() and (box <= of_parents.max(axis=0)).all()
        assert score <= max(sources[s % 3].scores[i] for s, i in parents) + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_a_source_fused_with_itself_stays_as_it_is(seed: int) -> None:
    apart = nms(gather(by_chance(seed)), overlap=0.4).instances
    for sources in ([apart], [apart, apart], [apart] * 3):
        fused = weighted_boxes_fusion(gather(sources))
        np.testing.assert_allclose(fused.instances.boxes, apart.boxes)
        np.testing.assert_allclose(fused.instances.scores, apart.scores)


@pytest.mark.parametrize("seed", range(5))
def test_soft_nms_with_a_vanishing_sigma_is_nms(seed: int) -> None:
    pool = gather(by_chance(seed), score_threshold=0.01)
    soft, hard = soft_nms(pool, sigma=1e-15), nms(pool, overlap=0.0)
    assert [parents[0] for parents in soft.parents] == [parents[0] for parents in hard.parents]
    assert 3 < len(hard.parents) < len(pool.parents)


def test_overlaps_of_one_and_many() -> None:
    one, many = np.array([0.0, 0, 10, 10]), np.array([[0.0, 0, 10, 10], [0, 0, 5, 10], [9, 9, 19, 19], [20, 0, 30, 5]])
    assert overlaps(one, many).tolist() == pytest.approx([1, 0.5, 1 / 199, 0])
    assert overlaps(one, many, metric="ios").tolist() == pytest.approx([1, 1, 1 / 100, 0])
    assert overlaps(many[:, None], many).shape == (4, 4)
