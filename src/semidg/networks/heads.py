"""Heads on the decoder's features that training needs and prediction does not.

They are drawn from the random state of the caller, one for each network, and are trained like the networks.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from semidg.networks.factory import SegmentationNetwork
from semidg.types import IGNORE_INDEX

_MULTIPLE = 32  # the networks pad their input to a multiple of this, and the features are those of the padded image


class ProjectionHead(nn.Module):
    """1x1 convolution, ReLU, 1x1 convolution to 128, L2 norm (SimCLR's head, Chen et al., ICML 2020, a pixel each).

    A 1x1 convolution is a linear layer on each pixel; as such it needs to see the chosen pixels only.
    """

    def __init__(self, channels: int, dimension: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, dimension))

    def forward(self, pixels: Tensor) -> Tensor:
        """Features of pixels, (M, D), to embeddings of length 1, (M, 128) float32."""
        embedding: Tensor = self.layers(pixels)
        return F.normalize(embedding.float(), dim=-1, eps=1e-6)


class EdgeHead(nn.Module):
    """3x3 convolution, ReLU, 1x1 convolution to one logit, brought to the size of the image."""

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))

    def forward(self, features: Tensor, height: int, width: int) -> Tensor:
        """(B, D, h, w) to logits of an edge (B, height, width), bilinearly; height and width are those of the image."""
        size = (height + -height % _MULTIPLE, width + -width % _MULTIPLE)
        logits = F.interpolate(self.layers(features), size, mode="bilinear", align_corners=False)
        return logits[:, 0, :height, :width]


def feature_channels(network: nn.Module) -> int:
    """D, the channels of a network's decoder features."""
    head = cast(nn.Sequential, cast(SegmentationNetwork, network).model.segmentation_head)
    return cast(nn.Conv2d, head[0]).in_channels


def labels_at_features(labels: Tensor, features: Tensor) -> Tensor:
    """Labels (B, H, W) int64 at the resolution of features (., D, h, w): that of the pixel nearest to the centre of
    each feature, (B, h, w) int64; ``IGNORE_INDEX`` where a feature lies in the padding of the network's input."""
    pad = (0, -labels.shape[-1] % _MULTIPLE, 0, -labels.shape[-2] % _MULTIPLE)
    padded = F.pad(labels, pad, value=IGNORE_INDEX)
    small = F.interpolate(padded.unsqueeze(1).float(), features.shape[-2:], mode="nearest-exact")
    return small.squeeze(1).long()
