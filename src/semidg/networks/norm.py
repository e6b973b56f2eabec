"""BatchNorm that can train on a single value a channel: image pooling, and a batch of one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the same parameters; a single value a channel, which has no variance, is normalised by
    the running statistics, as in eval mode, and does not move them. ``nn.BatchNorm2d`` raises ValueError there."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def allow_single_values(module: nn.Module) -> None:
    """Turn every ``nn.BatchNorm2d`` of a network into a ``SingleValueBatchNorm2d``: the image pooling of DeepLabV3+ has
    one value an image, and in the warm-up a batch may hold one labelled image."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = SingleValueBatchNorm2d
