"""Masks at the size of the picture, against what torchvision, torch and pycocotools make of the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torchvision.models.detection.roi_heads import paste_masks_in_image

from visionlake.udfs import masks
from visionlake.udfs.masks import Extent, find_mask, in_bands, paste_mask
from visionlake.udfs.rle import decode_mask


def test_a_mask_knows_its_area_and_its_exact_box() -> None:
    mask = np.zeros((30, 40), bool)
    mask[5:9, 11:31] = True
    mask[7, 35] = True
    found = find_mask(mask)
    assert found is not None
    assert found.area_px == mask.sum() and found.box == (11.0, 5.0, 36.0, 9.0)
    assert np.array_equal(decode_mask(found.rle), mask)
    assert coco.area({"size": found.rle["size"], "counts": found.rle["counts"].encode()}) == mask.sum()
    part = find_mask(mask[3:20, 10:40], size=mask.shape, offset=(3, 10))
    assert part == found
    assert find_mask(np.zeros((3, 3), bool)) is None


@pytest.mark.parametrize(
    "box", [(10.0, 20.0, 50.0, 40.0), (-8.3, 3.7, 30.2, 61.9), (40.6, 30.2, 79.9, 66.0), (5.0, 5.0, 6.5, 7.2)]
)
def test_pasted_masks_are_those_of_torchvision_but_for_its_rounded_boxes(box: tuple[float, ...]) -> None:
    torch.manual_seed(4)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 1, 4, 4), size=(28, 28), mode="bicubic").clamp(0, 1)
    found = paste_mask(smooth[0, 0], np.array(box), size=(64, 80))
    theirs = paste_masks_in_image(smooth, torch.tensor([box]), (64, 80))[0, 0].numpy() >= 0.5
    ours = np.zeros((64, 80), bool) if found is None else decode_mask(found.rle)
    edge = np.zeros_like(ours)
    edge[:, 1:] |= theirs[:, 1:] != theirs[:, :-1]
    edge[1:] |= theirs[1:] != theirs[:-1]
    for _ in range(2):  # theirs are whole pixels off by up to one
        wide = edge.copy()
        wide[1:] |= edge[:-1]
        wide[:-1] |= edge[1:]
        wide[:, 1:] |= edge[:, :-1]
        wide[:, :-1] |= edge[:, 1:]
        edge = wide
    assert not ((ours != theirs) & ~edge).any()
    assert (ours & theirs).sum() > 0 or not theirs.any()


def test_a_full_mask_fills_its_box_exactly() -> None:
    found = paste_mask(torch.ones(28, 28), np.array([3.0, 4.0, 23.0, 9.0]), size=(20, 30))
    assert found is not None and found.box == (3.0, 4.0, 23.0, 9.0) and found.area_px == 100


def test_a_grid_need_not_be_square() -> None:
    grid = torch.zeros(28, 14)
    grid[14:] = 1
    found = paste_mask(grid, np.array([2.0, 3.0, 30.0, 31.0]), size=(40, 40))
    assert found is not None and found.box == (2.0, 17.0, 30.0, 31.0)


def test_a_box_beside_the_picture_has_no_mask() -> None:
    assert paste_mask(torch.ones(14, 14), np.array([-9.0, 3.0, 0.0, 9.0]), size=(20, 30)) is None
    assert paste_mask(torch.zeros(14, 14), np.array([3.0, 3.0, 9.0, 9.0]), size=(20, 30)) is None


@pytest.mark.parametrize("size", [(37, 91), (5, 3), (16, 16), (8, 64)])
def test_bands_are_torchs_interpolation(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_BAND_VALUES", 3 * max(size[1], 16) * 4)  # four rows at a time
    torch.manual_seed(1)
    grid = torch.randn(3, 16, 16)
    theirs = torch.nn.functional.interpolate(grid[None], size=size, mode="bilinear", align_corners=False)[0]
    bands = [*in_bands(grid, size=size)]
    assert len(bands) > 1
    torch.testing.assert_close(torch.cat(bands, dim=1), theirs, rtol=1e-4, atol=1e-5)


def test_what_was_padded_is_left_out() -> None:
    picture = torch.arange(60.0).view(1, 6, 10)
    padded = torch.nn.functional.pad(picture, (0, 6, 0, 2), mode="replicate")
    (found,) = in_bands(padded, size=(12, 20), extent=Extent(rows=6, columns=10))
    (wanted,) = in_bands(picture, size=(12, 20))
    torch.testing.assert_close(found, wanted)
