from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from visionlake.udfs._scene_backgrounds import KINDS
from visionlake.udfs._scene_palettes import HUES
from visionlake.udfs.rle import decode_mask
from visionlake.udfs.scenes import LABELS, Scene, SceneObject, Split, render_scene

ALL_TRACKS = range(1, 40)
SMALL: dict[str, Any] = {"width_px": 192, "height_px": 128}


def dilated(mask: np.ndarray, by: int) -> np.ndarray:
    padded = np.pad(mask, by)
    shape = mask.shape
    shifts = product(range(2 * by + 1), repeat=2)
    return np.logical_or.reduce([padded[y : y + shape[0], x : x + shape[1]] for y, x in shifts])


def test_a_frame_depends_on_its_arguments_alone() -> None:
    first, again = Scene(7, 2, **SMALL), Scene(7, 2, **SMALL)
    again.frame(0.1)
    one, other = first.frame(0.8), again.frame(0.8)
    assert np.array_equal(one.pixels, other.pixels)
    assert one.objects == other.objects
    assert not np.array_equal(one.pixels, Scene(7, 3, **SMALL).frame(0.8).pixels)
    assert not np.array_equal(one.pixels, Scene(8, 2, **SMALL).frame(0.8).pixels)


@pytest.mark.parametrize(("split", "seed"), [("train", 1), ("held_out", 2)])
def test_a_mask_is_where_its_object_is_seen(split: Split, seed: int) -> None:
    scene = Scene(seed, split=split, plain=True)
    frame = scene.frame(0.6)
    assert frame.objects
    for each in frame.objects:
        mask = decode_mask(each.mask)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert each.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        bare = scene.frame(0.6, without=[each.track_id])
        changed = np.abs(frame.pixels.astype(int) - bare.pixels).max(axis=2) > 3
        assert not (changed & ~dilated(mask, 2)).any()
        assert changed[mask].mean() > 0.9  # here and there it has the colour of what is behind it
        assert each.track_id not in {other.track_id for other in bare.objects}


def test_visibility_is_the_seen_share_of_the_whole_object() -> None:
    shares = []
    for index in range(4):
        scene = Scene(5, index, plain=True)
        frame = scene.frame(0.4)
        for each in frame.objects:
            (alone,) = scene.frame(0.4, without=set(ALL_TRACKS) - {each.track_id}).objects
            assert alone.full_box == each.full_box
            x0, y0, x1, y1 = each.full_box
            if min(x0, y0) >= 0 and x1 <= 640 and y1 <= 360:
                assert alone.visibility == 1 and alone.box == each.full_box
                share = decode_mask(each.mask).sum() / decode_mask(alone.mask).sum()
                assert each.visibility == pytest.approx(share)
                shares.append(each.visibility)
            else:
                assert alone.visibility < 1
    assert min(shares) < 0.7 and max(shares) == 1


def test_sizes_classes_and_tracks() -> None:
    sides, labels = [], []
    for index in range(5):
        frames = list(render_scene(3, index, times_s=[0.0, 2.0], plain=True))
        tracks: dict[int, str] = {}
        for each in [one for frame in frames for one in frame.objects]:
            assert tracks.setdefault(each.track_id, each.label) == each.label
            assert LABELS[each.label_id] == each.label
            labels.append(each.label)
            sides.append(longest(each))
    assert set(labels) == set(LABELS) and len(LABELS) >= 4
    assert 11 <= min(sides) < 18 and 120 < max(sides) <= 201


def longest(each: SceneObject) -> float:
    x0, y0, x1, y1 = each.full_box
    return max(x1 - x0, y1 - y0)


def test_camera_motion_carries_the_background_along() -> None:
    for index in range(20):
        scene = Scene(11, index, plain=True, width_px=320, height_px=180)
        motion = scene.frame(1.0, previous_s=0.7, without=ALL_TRACKS).camera
        if motion.zoom != 1 and abs(motion.dx) + abs(motion.dy) > 3:
            break
    else:
        pytest.fail("no scene with a camera that pans and zooms")
    before, after = (scene.frame(t, without=ALL_TRACKS).pixels for t in (0.7, 1.0))
    # p' = c + (p - c) * zoom + d, so that p = c + (p' - c - d) / zoom.
    k = 1 / motion.zoom
    shift = [c - k * (c + d) for c, d in ((160, motion.dx), (90, motion.dy))]
    carried = Image.fromarray(before).transform(
        (320, 180), Image.Transform.AFFINE, (k, 0, shift[0], 0, k, shift[1]), Image.Resampling.BILINEAR
    )
    inner = np.s_[30:-30, 30:-30]
    moved = np.abs(np.asarray(carried, int)[inner] - after[inner]).mean()
    unmoved = np.abs(before[inner].astype(int) - after[inner]).mean()
    assert moved < 0.35 * unmoved
    first, *_ = render_scene(11, index, times_s=[1.0], **SMALL)
    assert (first.camera.dx, first.camera.dy, first.camera.zoom) == (0, 0, 1)


def test_held_out_scenes_have_other_hues_and_backgrounds() -> None:
    for (low, high), (other_low, other_high) in product(HUES["train"], HUES["held_out"]):
        assert high < other_low or other_high < low
    assert not set(KINDS["train"]) & set(KINDS["held_out"])
    train, held_out = (Scene(0, split=split, **SMALL).frame(0.0) for split in ("train", "held_out"))
    assert not np.array_equal(train.pixels, held_out.pixels)


def test_light_blur_and_noise_leave_the_truth_alone() -> None:
    plain, real = (Scene(9, plain=plain, **SMALL).frame(0.5) for plain in (True, False))
    assert plain.objects == real.objects
    assert not np.array_equal(plain.pixels, real.pixels)


def test_impossible_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"split is 'test'; allowed: train, held_out"):
        Scene(0, split="test")  # pyright: ignore[reportArgumentType]  # what a caller without types may do
    with pytest.raises(ValueError, match="40 x 360 px is too small"):
        Scene(0, width_px=40)
