"""Tiles, mirrored and scaled pictures: where boxes end up, what becomes of cut things, and whose id the labels bear."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.ops import batched_nms
from toy_networks import changed, detect, pictures

from visionlake.udfs._boxes import concatenate, overlaps, take
from visionlake.udfs._errors import MediaError, ModelError
from visionlake.udfs._tiles import tiles
from visionlake.udfs.backends import find_backend
from visionlake.udfs.detect_objects import detect_objects
from visionlake.udfs.detector_types import DetectOptions, Instances, ModelInfo, Prepared
from visionlake.udfs.fusion import gather, nms, weighted_boxes_fusion
from visionlake.udfs.scenes import render_scene
from visionlake.udfs.view_options import ViewOptions
from visionlake.udfs.views import ManyViews

BUILTIN = DetectOptions(backend="builtin", device="cpu")


def tiled(width_px: int, height_px: int, **options: Any) -> ViewOptions:
    return ViewOptions(tile_width_px=width_px, tile_height_px=height_px, **options)


class Colours:
    """Finds the pixels that are mostly red, green or blue, one box each; the narrower, the surer."""

    labels, first_label_id, batch_size = ("red", "green", "blue"), 0, 2

    def __init__(self) -> None:
        self.asked: list[list[tuple[int, ...]]] = []

    def prepare(self, picture: Image.Image) -> Prepared:
        width, height = picture.size
        return Prepared(
            pixels=np.asarray(picture), width_px=width, height_px=height, scale_x=1.0, scale_y=1.0, left=0.0, top=0.0
        )

    def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
        self.asked.append([one.pixels.shape for one in batch])
        return [concatenate([self.one(prepared, channel) for channel in range(3)]) for prepared in batch]

    def one(self, prepared: Prepared, channel: int) -> Instances:
        rows, columns = np.nonzero(prepared.pixels[..., channel] > 127)
        found = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []
        boxes = np.array(found, float).reshape(-1, 4)
        return Instances(
            boxes=boxes, scores=1 - (boxes[:, 2] - boxes[:, 0]) / 1000, label_ids=np.full(len(boxes), channel, np.int64)
        )


def painted(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGB", size)
    for colour, box in zip(("red", "lime", "blue"), boxes, strict=False):
        picture.paste(colour, box)
    return picture


def looked_at(picture: Image.Image, options: ViewOptions, **settings: Any) -> Instances:
    detector = ManyViews(Colours(), options, **{"score_threshold": None, "max_instances": None, **settings})
    (found,) = detector.detect([detector.prepare(picture)])
    return take(found, np.argsort(found.label_ids, kind="stable"))


def test_tiles_are_of_one_size_and_the_last_is_moved_back() -> None:
    options = tiled(40, 40, tile_overlap=0.25, beside_tiles="nothing")
    assert tiles(100, 50, options) == [
        (0, 0, 40, 40), (30, 0, 70, 40), (60, 0, 100, 40), (0, 10, 40, 50), (30, 10, 70, 50), (60, 10, 100, 50)
    ]  # fmt: skip
    assert tiles(101, 30, options) == [(0, 0, 40, 30), (30, 0, 70, 30), (60, 0, 100, 30), (61, 0, 101, 30)]
    assert tiles(40, 40, options) == tiles(40, 40, tiled(40, 40)) == [(0, 0, 40, 40)]
    assert tiles(41, 40, tiled(40, 40, tile_overlap=0.0)) == [(0, 0, 40, 40), (1, 0, 41, 40), (0, 0, 41, 40)]
    assert tiles(9, 7, ViewOptions()) == [(0, 0, 9, 7)]


@pytest.mark.parametrize(
    "options",
    [
        tiled(64, 48, tile_overlap=0.5),
        tiled(64, 48, tile_overlap=0.5, beside_tiles="nothing"),
        tiled(64, 48, tile_overlap=0.5, tile_merge="nms"),
        ViewOptions(flips="horizontal"),
        ViewOptions(scales=(1.0, 2.0, 0.5)),
        ViewOptions(scales=(2.0,)),
        tiled(64, 48, tile_overlap=0.5, flips="horizontal", scales=(0.5, 1.0, 2.0), view_merge="nms"),
    ],
)
def test_boxes_are_where_things_are(options: ViewOptions) -> None:
    """Things smaller than the overlap, at the picture's edges and inside, on even pixels: each is seen exactly."""
    boxes = [(0, 0, 20, 16), (30, 40, 50, 60), (140, 84, 160, 100)]
    found = looked_at(painted((160, 100), *boxes), options)
    assert found.label_ids.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.boxes, boxes, rtol=0, atol=1e-9)
    assert (found.boxes[:, 2:] <= [160, 100]).all()


def test_a_thing_that_a_border_cuts_is_found_whole() -> None:
    """Tiles begin at 0, 32, 64, 96: the first and the third cut it, the second sees it and is less sure."""
    thing = (50, 10, 74, 30)
    for merge in ("nmm", "nms"):
        options = tiled(64, 40, tile_overlap=0.5, beside_tiles="nothing", tile_merge=merge)
        found = looked_at(painted((160, 40), thing), options)
        assert (found.boxes.tolist(), found.scores.tolist()) == ([[*thing]], [1 - 24 / 1000])


def test_a_thing_longer_than_the_overlap_is_put_together_or_seen_in_the_picture() -> None:
    """Tiles from 0 to 64 and from 48 to 112 see 44 and 42 px of it, of which they share 16."""
    thing, picture = (20, 10, 90, 30), painted((112, 40), (20, 10, 90, 30))
    narrow = tiled(64, 40, tile_overlap=0.25, beside_tiles="nothing", tile_merge_overlap=0.3)
    assert looked_at(picture, narrow).boxes.tolist() == [[*thing]]
    assert looked_at(picture, changed_views(narrow, tile_merge="nms")).boxes.tolist() == [[48, 10, 90, 30]]
    apart = changed_views(narrow, tile_merge_overlap=0.5)
    assert sorted(looked_at(picture, apart).boxes[:, 0]) == [20, 48]
    assert looked_at(picture, changed_views(apart, beside_tiles="picture")).boxes.tolist() == [[*thing]]


def changed_views(options: ViewOptions, **values: Any) -> ViewOptions:
    return ViewOptions(**{**asdict(options), **values})


def test_a_small_thing_before_a_cut_one_stays() -> None:
    """It lies in the part, not the part in it; and a box near a border is the same as one that is not."""
    view, inner = tiled(100, 100, tile_overlap=0.5, beside_tiles="nothing"), Colours()

    def found(*boxes: Sequence[float]) -> Instances:
        ids = np.zeros(len(boxes), np.int64)
        return Instances(boxes=np.array(boxes, float).reshape(-1, 4), scores=np.full(len(boxes), 0.5), label_ids=ids)

    of_tiles = [found([40, 20, 100, 80], [60, 40, 70, 50]), found([0.5, 30, 11, 50], [10, 40, 20, 50])]
    inner.detect = lambda batch: of_tiles  # the small one at 60 twice, and something of the large one
    detector = ManyViews(inner, view, score_threshold=None, max_instances=None)
    (together,) = detector.detect([detector.prepare(Image.new("RGB", (150, 100)))])
    assert sorted(together.boxes.tolist()) == [[40, 20, 100, 80], [60, 40, 70, 50]]
    of_tiles[:] = [found([70, 40, 98.5, 60]), found([20, 40, 48, 60])]
    (together,) = detector.detect([detector.prepare(Image.new("RGB", (150, 100)))])
    assert together.boxes.tolist() == [[70, 40, 98, 60]]


def test_views_share_batches_of_the_detectors_own_size() -> None:
    inner = Colours()
    detector = ManyViews(inner, tiled(64, 40, tile_overlap=0.5), score_threshold=None, max_instances=None)
    detector.detect([detector.prepare(Image.new("RGB", size)) for size in [(160, 40)] * 2])
    assert sorted(map(tuple, inner.asked)) == [((40, 64, 3),) * 2] * 4 + [((40, 160, 3),) * 2]
    sizes = {"tiles": 1, "flips": 2, "scales": 1}
    many = [tiled(64, 40), ViewOptions(flips="horizontal"), ViewOptions(scales=(0.5, 1.0, 2.0, 3.0, 4.0))]
    inner.batch_size = 4
    made = [ManyViews(inner, options, score_threshold=None, max_instances=None).batch_size for options in many]
    assert made == [*sizes.values()]


@pytest.mark.parametrize(
    ("backend", "views"),
    [
        ("grid", tiled(48, 40, tile_overlap=0.25)),
        ("plain", ViewOptions(flips="horizontal", scales=(0.75, 1.0, 1.25))),
        ("grid", tiled(64, 64, flips="horizontal", view_merge="nms")),
        ("builtin", tiled(200, 180, flips="horizontal")),
    ],
)
def test_batch_and_single_agree(backend: str, views: ViewOptions, request: pytest.FixtureRequest) -> None:
    options = BUILTIN if backend == "builtin" else request.getfixturevalue(backend)
    images = pictures((90, 64), (90, 64), (50, 80), (90, 64), (7, 7))
    if backend == "builtin":
        images = [scene(index, size=(320, 180)) for index in range(2)]
    options = changed(options, views=views)
    batch, single = detect(options, *images), detect(options, *images, together=False)
    assert sum(len(one.scores) for one in batch) > 3
    for one, other, image in zip(batch, single, images, strict=True):
        assert one.label_ids.tolist() == other.label_ids.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-4)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)
        assert (np.diff(one.scores) <= 0).all() and (one.scores <= 1).all()
        assert (one.boxes >= 0).all() and (one.boxes <= [*image.size, *image.size]).all()


def scene(index: int, *, size: tuple[int, int] = (640, 360)) -> Image.Image:
    (frame,) = render_scene(seed=77, index=index, times_s=[1.0], split="held_out")
    return Image.fromarray(frame.pixels).resize(size)


def mirrored(found: Instances, width_px: int) -> Instances:
    boxes = found.boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width_px, 0, width_px, 0]
    return Instances(boxes=boxes, scores=found.scores, label_ids=found.label_ids)


@pytest.mark.parametrize(("backend", "threshold"), [("grid", 0.15), ("builtin", 0.7)])
def test_flips_are_the_fusion_of_both_and_see_a_mirrored_picture_alike(
    backend: str, threshold: float, request: pytest.FixtureRequest
) -> None:
    """What is below the threshold in one of the two counts too: without it, the toy network would find less."""
    options = BUILTIN if backend == "builtin" else request.getfixturevalue(backend)
    options = changed(options, score_threshold=threshold)
    flipped = changed(options, views=ViewOptions(flips="horizontal"))
    picture = scene(0) if backend == "builtin" else pictures((64, 64))[0]
    turned = ImageOps.mirror(picture)
    found, of_turned = (detect(flipped, each)[0] for each in (picture, turned))
    np.testing.assert_allclose(found.boxes, mirrored(of_turned, picture.width).boxes, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(found.scores, of_turned.scores, rtol=1e-4)

    def fused(least: float) -> Instances:
        one, other = (detect(changed(options, score_threshold=least), each)[0] for each in (picture, turned))
        both = weighted_boxes_fusion(gather([one, mirrored(other, picture.width)]), iou=0.65).instances
        return take(both, both.scores > threshold)

    np.testing.assert_allclose(found.boxes, fused(threshold / 2).boxes, rtol=1e-4, atol=1e-9)
    assert len(found.scores) > (len(fused(threshold).scores) if backend == "grid" else 1)
    (few,) = detect(changed(flipped, max_instances=2), picture)
    assert 0 < len(few.scores) <= 2 and (few.scores > threshold).all()


def test_as_many_instances_as_wanted_are_found_where_views_disagree_on_the_best() -> None:
    flipped = changed(BUILTIN, views=ViewOptions(flips="horizontal"))
    for index in range(3):
        everything, (few,) = detect(flipped, scene(index))[0], detect(changed(flipped, max_instances=1), scene(index))
        assert few.scores.tolist() == everything.scores[:1].tolist()


def test_small_things_in_a_large_scene_are_found_in_tiles() -> None:
    """A network that sees 480 px of 1280 at most; things of 12 to 60 px, at most half hidden."""
    asked = 0
    seen = {"picture": 0, "tiles": 0}
    for index in range(4):
        (frame,) = render_scene(seed=77, index=index, times_s=[1.0], split="held_out", width_px=1280, height_px=720)
        things = [one for one in frame.objects if one.visibility >= 0.5 and max(sides(one.box)) < 60]
        asked += len(things)
        for name, views in (("picture", ViewOptions()), ("tiles", tiled(480, 480))):
            (found,) = detect(changed(BUILTIN, views=views), Image.fromarray(frame.pixels))
            for one in things:
                alike = found.boxes[found.label_ids == one.label_id]
                seen[name] += bool((overlaps(np.array(one.box, float), alike) > 0.5).any())
    assert asked > 10
    assert seen["tiles"] >= 0.85 * asked and seen["picture"] <= 0.5 * asked


def sides(box: Sequence[float]) -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


def test_ids_stay_where_nothing_is_set() -> None:
    """The ids are those from before there were views."""
    info = ModelInfo(
        name="ants", version="1", labels=("ant",), first_label_id=0, digests={"weights": "0"},
        declared={"score_threshold": 0.3, "nms_iou": 0.5},
    )  # fmt: skip
    plain = DetectOptions(backend="x")
    assert info.model_id(plain) == "ants@1:c9a4e8a0f154ccfd"
    assert info.model_id(changed(plain, nms_iou=0.4)) == "ants@1:3a3299a3618f77b3"
    same = ViewOptions(tile_overlap=0.2, scales=(1.0,), flips="none")
    assert info.model_id(changed(plain, views=same)) == info.model_id(plain)
    others = [
        tiled(640, 480),
        tiled(480, 640),
        tiled(640, 480, tile_overlap=0.3),
        tiled(640, 480, beside_tiles="nothing"),
        tiled(640, 480, tile_merge="nms"),
        tiled(640, 480, tile_merge_overlap=0.6),
        ViewOptions(flips="horizontal"),
        ViewOptions(flips="horizontal", view_merge="nms"),
        ViewOptions(flips="horizontal", view_merge_iou=0.6),
        ViewOptions(scales=(1.0, 1.25)),
    ]
    ids = {info.model_id(changed(plain, views=views)) for views in others}
    assert len({*ids, info.model_id(plain)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"tile_width_px": 64}, "tile_width_px: no effect without both tile_width_px and tile_height_px"),
        ({"tile_overlap": 0.3, "tile_merge": "nms"}, "tile_overlap, tile_merge: no effect without both"),
        ({"beside_tiles": "nothing"}, "beside_tiles: no effect without both"),
        ({"view_merge": "nms", "scales": (0.5,)}, "view_merge: no effect without flips or several scales"),
        ({"tile_width_px": 64, "tile_height_px": 4}, "tile_height_px = 64, 4; allowed is at least 32"),
        ({"tile_overlap": 1.0}, "tile_overlap = 1.0; allowed is 0 to 0.9"),
        ({"scales": (1.0, 5.0)}, r"scales = \(1.0, 5.0\); allowed is 0.1 to 4.0, each once"),
        ({"scales": (1.0, 1.0)}, "each once"),
        ({"scales": ()}, "each once"),
        ({"view_merge_iou": float("nan")}, "view_merge_iou = nan; allowed is above 0, at most 1"),
    ],
)
def test_views_that_cannot_be_are_refused(views: dict[str, Any], message: str) -> None:
    options = changed(BUILTIN, views=ViewOptions(**views))
    with pytest.raises(ModelError, match=message):
        find_backend("builtin").describe(options).model_id(options)


def test_stored_pictures_are_looked_at_in_views() -> None:
    options = changed(BUILTIN, views=tiled(320, 320))
    images = [scene(0), scene(1, size=(320, 180)), scene(2)]
    rows = pd.DataFrame({"key": [0, 1, 2], "image": [png(image) for image in images]})
    model_id = find_backend("builtin").describe(options).model_id(options)
    columns = ["key", "model_id", "frame_width_px", "frame_height_px", "instances", "error"]
    (labelled,) = detect_objects(
        [rows], columns=columns, options=options, model_id=model_id, max_pixels=10**6, batch_limit_s=60
    )
    expected = detect(options, *images, together=False)
    for row in labelled.to_dict("records"):
        key = row["key"]
        assert (row["frame_width_px"], row["frame_height_px"]) == images[key].size and row["error"] is None
        boxes = [[*one["box"].values()] for one in row["instances"]]
        np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), expected[key].boxes, rtol=1e-4)
    assert sum(map(len, labelled["instances"])) > 3


def png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


@pytest.mark.parametrize("seed", range(5))
def test_suppression_of_sources_is_that_of_torchvision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 100, (300, 2))
    every = Instances(
        boxes=np.hstack([corners, corners + rng.uniform(5, 80, (300, 2))]),
        scores=rng.integers(0, 50, 300) / 50,  # many are equal
        label_ids=rng.integers(0, 3, 300),
    )
    boxes, scores, ids = (torch.from_numpy(each) for each in (every.boxes, every.scores, every.label_ids))
    kept = take(every, batched_nms(boxes, scores, ids, 0.5).numpy())
    assert nms(gather([every])).instances.boxes.tolist() == kept.boxes.tolist()
    assert 20 < len(kept.scores) < 280


def test_a_picture_that_is_too_large_when_scaled_is_an_error() -> None:
    detector = ManyViews(Colours(), ViewOptions(scales=(1.0, 4.0)), score_threshold=None, max_instances=None)
    assert detector.prepare(Image.new("RGB", (2300, 2300)))
    with pytest.raises(MediaError, match=r"image_too_large: scaled by 4\.0 the picture has 92160000 pixels"):
        detector.prepare(Image.new("RGB", (2400, 2400)))


def test_what_one_view_tells_apart_stays_apart() -> None:
    near = Instances(
        boxes=np.array([[10.0, 10, 50, 50], [20, 10, 60, 50]]), scores=np.array([0.9, 0.8]), label_ids=np.zeros(2, int)
    )
    assert overlaps(near.boxes[0], near.boxes[1]) > 0.5
    assert len(nms(gather([near])).instances.scores) == 1
    assert len(nms(gather([near]), matches="other sources").instances.scores) == 2
    assert nms(gather([near, near]), matches="other sources").instances.scores.tolist() == [0.9, 0.8]


def test_tiles_that_were_too_many_for_the_memory_are_not_tried_again() -> None:
    class Small(Colours):
        batch_size = 4

        def detect(self, batch: Sequence[Prepared]) -> list[Instances]:
            found = super().detect(batch)
            if len(batch) > 2:
                raise MemoryError
            return found

    inner = Small()
    views = ManyViews(inner, tiled(20, 20, tile_overlap=0.0), score_threshold=None, max_instances=None)
    for _ in range(2):
        views.detect([views.prepare(painted((80, 20), (0, 0, 10, 10)))])
    assert [len(batch) for batch in inner.asked if len(batch) > 2] == [4]
