"""BatchNorm for small batches: on a single value a channel (image pooling, a batch of one), and over all ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from semidg import ranks


class SingleValueBatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` with the same parameters; a single value a channel, which has no variance, is normalised by
    the running statistics, as in eval mode, and does not move them. ``nn.BatchNorm2d`` raises ValueError there."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to the same shape."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class SingleValueBatchNormAct2d(BatchNormAct2d):
    """The same for the layer of timm, which has dropout and activation inside."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to the same shape."""
        if self.training and x.numel() == x.shape[1]:
            y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
            layer: Any = self
            out: Tensor = layer.act(layer.drop(y))
            return out
        plain: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return plain


def allow_single_values(module: nn.Module) -> None:
    """Give every BatchNorm of a network a class that takes single values: the image pooling of DeepLabV3+ has one value
    an image, so may have the deepest maps of a small one, and in the warm-up a batch may hold one labelled image."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = SingleValueBatchNorm2d
        elif type(norm) is BatchNormAct2d:
            norm.__class__ = SingleValueBatchNormAct2d


class OverRanks(nn.BatchNorm2d):
    """BatchNorm whose statistics in train mode are those of the images of all ranks; ``nn.SyncBatchNorm`` does the same
    on a GPU alone, and not for the layers of timm."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to the same shape."""
        if not self.training or ranks.world() == 1:
            return super().forward(x)
        y = self._normalised(x)
        layer: Any = self  # timm's layer has dropout and activation inside
        return layer.act(layer.drop(y)) if isinstance(self, BatchNormAct2d) else y

    def _normalised(self, x: Tensor) -> Tensor:
        """(x - m) / sqrt(v + eps), m and v of the values of all ranks, from the m_r, v_r and number n_r of each:
        m = sum n_r m_r / n, v = sum n_r (v_r + (m_r - m)^2) / n. Of several ranks n is never 1."""
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(values, (0, 2, 3), correction=0)
        means, variances, counts = ranks.combine(
            torch.stack([mean, var, torch.full_like(mean, x.numel() / len(mean))])
        ).unbind(1)
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean).square())).sum(0) / total
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked.add_(1)
                weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, weight)
                self.running_var.lerp_(var * total / (total - 1), weight)
        scale = (var + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def synchronise(module: nn.Module) -> None:
    """Make every BatchNorm of a network one over all ranks; parameters and names stay as they are."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and not isinstance(norm, OverRanks):
            kind = type(norm)
            norm.__class__ = type(f"{kind.__name__}OverRanks", (OverRanks, kind), {})
