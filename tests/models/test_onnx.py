"""Backend `onnx`: the same boxes as from an archive, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_networks import SIDE, Grid, card_text, changed, detect, pictures, save_onnx

from visionlake.udfs._errors import ModelError
from visionlake.udfs.backends import find_backend, onnx
from visionlake.udfs.detector_types import DetectOptions

HEAD = 'kind = "yolox"\nstrides = [8, 16]\nscore_threshold = 0.2'
SIZES = [(64, 64), (50, 80), (200, 30)]


def refused(options: DetectOptions) -> str:
    with pytest.raises(ModelError) as caught:
        find_backend("onnx").load(options)
    return str(caught.value)


def test_an_archive_of_the_same_network_finds_the_same(grid: DetectOptions, grid_onnx: DetectOptions) -> None:
    for one, other in zip(detect(grid, *pictures(*SIZES)), detect(grid_onnx, *pictures(*SIZES)), strict=True):
        assert one.label_ids.tolist() == other.label_ids.tolist() and len(one.boxes)
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4)


def test_the_batch_of_the_file_is_kept_to(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = Grid()
    free = detect(save_onnx(network, tmp_path, card_text(HEAD)), *pictures(*SIZES))
    options = save_onnx(network, tmp_path, card_text(HEAD), batch=2)
    assert find_backend("onnx").load(changed(options, batch_size=8)).batch_size == 2
    for one, other in zip(free, detect(options, *pictures(*SIZES)), strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)
    sized = f"width_px = {SIDE}\nheight_px = {SIDE}\n"
    (tmp_path / "toy.toml").write_text(card_text(HEAD, input=f"{sized}batch = 3"))
    assert "take 2 pictures at a time; their card says 3" in refused(options)
    (tmp_path / "toy.toml").write_text(card_text(HEAD, input="width_px = 32\nheight_px = 64"))
    assert "(2, 3, 64, 64); their card says (pictures, 3, 64, 32)" in refused(options)


def test_what_does_not_fit_is_refused_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(nn.Module):
        def forward(self, pictures: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return pictures * scale

    options = save_onnx(Grid(), tmp_path, card_text(HEAD))
    assert "has no setting precision" in refused(changed(options, precision="bfloat16"))
    given = (torch.rand(1, 3, SIDE, SIDE), torch.rand(1))
    torch.onnx.export(Two().eval(), given, tmp_path / "toy.onnx", verbose=False)
    assert "take 2 inputs (pictures, scale)" in refused(options)
    (tmp_path / "toy.onnx").write_bytes(b"nothing of the kind")
    assert "onnxruntime cannot load them" in refused(options)
    monkeypatch.setattr(onnx, "MAX_BYTES", 7)
    assert "at most 7 are allowed" in refused(options)
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    assert "pip install 'visionlake[onnx]'" in refused(options)


def test_weights_in_files_of_their_own_are_not_followed(tmp_path: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, SIDE, SIDE))

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return (pictures * self.weight).flatten(2)

    options = save_onnx(Large(), tmp_path, card_text(HEAD), external_data=True)
    assert [file.name for file in tmp_path.iterdir() if ".data" in file.name]
    assert "onnxruntime cannot load them" in refused(options)
