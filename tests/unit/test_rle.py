from __future__ import annotations

import numpy as np
import pytest

from visionlake.udfs.rle import decode_mask, encode_mask, fill_runs


def test_known_encodings() -> None:
    # These texts were written by pycocotools for the same masks.
    small = np.zeros((4, 5), bool)
    small[1:3, 1:4] = small[3, 4] = True
    assert encode_mask(small) == {"size": [4, 5], "counts": "5220002O"}
    large = np.zeros((360, 640), bool)
    large[:, 3:5] = large[100:300, 200:400] = True
    assert encode_mask(large)["counts"].startswith("hQ1`f0ldT2h_OT`kM000")


@pytest.mark.parametrize("fill", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_decoding_gives_the_mask_back(fill: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        coarse = rng.random(rng.integers(1, 12, 2)) < fill
        mask = np.repeat(np.repeat(coarse, rng.integers(1, 9), 0), rng.integers(1, 9), 1)
        assert np.array_equal(decode_mask(encode_mask(mask)), mask)


def test_a_part_gives_the_same_text_as_the_whole() -> None:
    rng = np.random.default_rng(4)
    for _ in range(60):
        part = rng.random(rng.integers(1, 10, 2)) < 0.6
        height, width = part.shape[0] + int(rng.integers(3)), part.shape[1] + int(rng.integers(3))
        top, left = int(rng.integers(height - part.shape[0] + 1)), int(rng.integers(width - part.shape[1] + 1))
        whole = np.zeros((height, width), bool)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
        assert encode_mask(part, size=(height, width), offset=(top, left)) == encode_mask(whole)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie in a mask of 4 x 4"):
        encode_mask(np.ones((2, 2), bool), size=(4, 4), offset=(3, 0))
    with pytest.raises(ValueError, match="do not fill a mask of 9 x 9"):
        decode_mask({"size": [9, 9], "counts": "5220002O"})


@pytest.mark.parametrize("counts", ["5220002", "P" * 100_000, "o" * 100_000 + "0", "/" * 9, "S1", "oooooooo1" * 50_000])
def test_hostile_text_is_refused_at_once(counts: str) -> None:
    with pytest.raises(ValueError, match="run"):
        decode_mask({"size": [4, 5], "counts": counts})


@pytest.mark.parametrize("runs", [[2**63 - 1, 2**63 - 1, 22], [2**64 - 1, 21], [-1, 21], [21], [10, 5], [2**70, 1]])
def test_runs_that_fill_no_mask_are_refused(runs: list[int]) -> None:
    with pytest.raises(ValueError, match="run"):
        fill_runs(runs, size=(4, 5))
