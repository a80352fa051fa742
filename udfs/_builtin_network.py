"""The network of backend `builtin`: torchvision's Faster R-CNN on a small residual network with a feature pyramid.

Faster R-CNN: Ren et al., arXiv:1506.01497. Residual blocks: He et al., arXiv:1512.03385. Feature pyramids: Lin et al.,
arXiv:1612.03144. Boxes are proposed from strides 8 to 32 and refined from strides 4 to 32: features of stride 4 make
them precise, and proposing from them would cost more than all the rest.

Under autocast, convolutions alone are computed in lower precision: bfloat16 would round coordinates to whole pixels
and worse.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork, MultiScaleRoIAlign

PROPOSALS = 120
_STEM, _WIDTHS, _DEPTHS = 24, (48, 80, 128, 128), (1, 2, 2, 1)
_CHANNELS, _HIDDEN, _POOLED = 56, 48, 7
_ANCHORS_PX, _ASPECTS = ((24,), (48,), (96,)), ((0.4, 1.0, 2.5),)

Target = dict[str, torch.Tensor]


class _Backbone(nn.Module):
    """Features of strides 4, 8, 16 and 32, brought to one number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv2dNormActivation(3, _STEM, 3, stride=2)
        before = (_STEM, *_WIDTHS[:-1])
        self.stages = nn.ModuleList(map(_stage, before, _WIDTHS, _DEPTHS))
        self.fpn = FeaturePyramidNetwork([*_WIDTHS], _CHANNELS)
        self.out_channels = _CHANNELS

    def forward(self, pictures: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Features by level, finest first, as 32-bit floats."""
        found: OrderedDict[str, torch.Tensor] = OrderedDict()
        values = self.stem(pictures)
        for place, stage in enumerate(self.stages):
            found[str(place)] = values = stage(values)
        return OrderedDict((level, each.float()) for level, each in self.fpn(found).items())


def _stage(before: int, width: int, depth: int) -> nn.Sequential:
    shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=2, bias=False), nn.BatchNorm2d(width))
    first = BasicBlock(before, width, stride=2, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(depth - 1)))


class _Proposals(RegionProposalNetwork):
    """Proposals from all levels but the finest."""

    def forward(
        self, images: ImageList, features: dict[str, torch.Tensor], targets: list[Target] | None = None
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        with torch.autocast(images.tensors.device.type, enabled=False):
            return super().forward(images, OrderedDict([*features.items()][1:]), targets)


class _Predictor(FastRCNNPredictor):
    """Classes and boxes as 32-bit floats."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class _Unresized(GeneralizedRCNNTransform):
    """Normalises and stacks pictures, and leaves their size to who made them."""

    def resize(self, image: torch.Tensor, target: Target | None = None) -> tuple[torch.Tensor, Target | None]:
        return image, target


def make_network(label_count: int) -> GeneralizedRCNN:
    """The network with random weights; its label 0 is the background.

    Pictures are float RGB from 0 to 1, 3 x height x width, multiples of 32 px: `MultiScaleRoIAlign` takes the strides
    from the first picture that it sees, and others are rounded. Boxes are x_min, y_min, x_max, y_max in
    pixels of them.
    """
    proposals = _Proposals(
        AnchorGenerator(_ANCHORS_PX, _ASPECTS * len(_ANCHORS_PX)),
        RPNHead(_CHANNELS, len(_ASPECTS[0])),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=128,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 300, "testing": 300},
        post_nms_top_n={"training": PROPOSALS, "testing": PROPOSALS},
        nms_thresh=0.7,
    )
    levels = [str(level) for level in range(len(_WIDTHS))]
    chooser = RoIHeads(
        MultiScaleRoIAlign(levels, _POOLED, 2),
        FastRCNNConvFCHead((_CHANNELS, _POOLED, _POOLED), [_CHANNELS, _CHANNELS], [_HIDDEN]),
        _Predictor(_HIDDEN, label_count + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=64,
        positive_fraction=0.5,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    normalised = _Unresized(0, 0, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    return GeneralizedRCNN(_Backbone(), proposals, chooser, normalised)
