"""The mask head of backend `builtin`: which pixels in and around a box are seen of its object.

After that of Mask R-CNN (He et al., arXiv:1703.06870), but small: the features of stride 4 and the label say what the
object is and roughly where, the picture itself where exactly its edges are. Two by two cells of it go in, and come
out, as the channels of one that is computed (Shi et al., arXiv:1609.05158). In between are residual convolutions with
growing steps, to see the whole box (Yu and Koltun, arXiv:1511.07122).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, relu
from torchvision.ops import Conv2dNormActivation, roi_align

CELLS = 56  # of a mask, across and down
MARGIN = 0.125  # of a box's sides: a mask reaches that far beyond it, for boxes are not exact
_FINER = 2
_FEATURES, _WIDTH, _DILATIONS = 56, 24, (1, 2, 4, 1, 1)


class MaskHead(nn.Module):
    """Masks of objects whose boxes and labels are known."""

    def __init__(self, label_count: int) -> None:
        super().__init__()
        self.labels = nn.Embedding(label_count, _WIDTH)
        self.first = Conv2dNormActivation(_FEATURES + 3 * _FINER**2, _WIDTH, 1)
        self.blocks = nn.ModuleList(
            Conv2dNormActivation(_WIDTH, _WIDTH, dilation=each, activation_layer=None) for each in _DILATIONS
        )
        self.last = nn.Conv2d(_WIDTH, _FINER**2, 1)

    def forward(
        self, pictures: torch.Tensor, features: torch.Tensor, boxes: list[torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """How likely each cell of a grid over each of the boxes, widened, is a part of its object: N x 56 x 56 logits.

        `pictures` (M x 3 x height x width) are normalised, `features` those of stride 4 of the network, `boxes` lists
        n x 4 for each of the M pictures in pixels of it, `labels` are those of all N boxes, from 0.
        """
        wide = [widened(each) for each in boxes]
        scale = features.shape[-1] / pictures.shape[-1]
        rough = roi_align(features, wide, CELLS // _FINER, scale, sampling_ratio=2, aligned=True)
        fine = pixel_unshuffle(roi_align(pictures, wide, CELLS, sampling_ratio=2, aligned=True), _FINER)
        values = self.first(torch.cat([rough, fine], dim=1)) + self.labels(labels)[:, :, None, None]
        for block in self.blocks:
            values = relu(values + block(values))
        return pixel_shuffle(self.last(values), _FINER)[:, 0].float()


def widened(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes (N x 4) with the margin that masks have around them."""
    margin = MARGIN * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)
