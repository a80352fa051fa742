"""Archives of the small networks, one for each kind of head."""

from __future__ import annotations

import pytest
import torch
from toy_networks import SIDE, Grid, Plain, card_text, save

from visionlake.udfs.detector_types import DetectOptions


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    torch.manual_seed(3)
    head = 'kind = "yolox"\nstrides = [8, 16]\nnms_iou = 0.5\nscore_threshold = 0.2\nmany_labels = true'
    return save(Grid(), tmp_path_factory.mktemp("grid"), card_text(head))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> DetectOptions:
    head = 'kind = "boxes_scores_labels"\nbackground_id = 0\nscore_threshold = 0.1\nfirst_label_id = 10'
    scaled = f"width_px = {SIDE}\nheight_px = {SIDE}\n"
    return save(Plain(), tmp_path_factory.mktemp("plain"), card_text(head, input=scaled))
