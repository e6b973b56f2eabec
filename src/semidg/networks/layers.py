"""Layers with the same numbers by a faster way where PyTorch's own way is slow, which is on a CPU only.

Each class keeps the parameters of the one it stands for and falls back to it on other devices and in other layouts.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Where oneDNN takes any number of groups at once; elsewhere PyTorch may go through them one by one.
_MANY_GROUPS = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution. With one thread and few images PyTorch takes an unfolding product for it, with half the
    speed of its oneDNN kernel; a dilation, which means nothing for a single tap, makes it take the kernel. That one is
    slow in turn for a few outputs (a segmentation head): they are a matrix product over the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, C_out, H, W)."""
        if not _fast_layout(x):
            return super().forward(x)
        if self.out_channels < 8:
            return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.bias, dilation=2)


class StridedSameConv2d(Conv2dSame):
    """A convolution of stride 2 with TensorFlow's padding, one more at the right and below than at the left and above.
    On an even side a kernel with a row and a column of zeros in front of it needs the same padding on all sides,
    which the convolution does itself, and no padded copy of its input. In bf16 a depthwise one has a gradient twelve
    times as slow as in float32: it stays in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, C_out, ceil(H / 2), ceil(W / 2))."""
        if not _fast_layout(x) or x.shape[-2] % 2 or x.shape[-1] % 2:
            padded: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return padded
        weight, padding = F.pad(self.weight, (1, 0, 1, 0)), self.kernel_size[0] // 2
        with torch.autocast("cpu", enabled=self.groups == 1 and torch.is_autocast_enabled("cpu")):
            x = x if self.groups == 1 else x.to(weight.dtype)
            return F.conv2d(x, weight, self.bias, stride=2, padding=padding, groups=self.groups)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps the size, dilated or of 5 x 5 and more; oneDNN has a fast kernel
    for it forward, and none for its gradients."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to the same shape."""
        d, middle = self.dilation[0], self.kernel_size[0] // 2
        if d >= max(x.shape[-2:]):  # every tap but the centre lies in the padding
            return F.conv2d(
                x, self.weight[:, :, middle : middle + 1, middle : middle + 1], self.bias, groups=self.groups
            )
        if not _fast_layout(x):
            return super().forward(x)
        if not torch.is_grad_enabled():
            return _depthwise(x, self.weight, d, self.bias)
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):  # autograd functions are not cast by themselves
            x, weight = x.to(torch.get_autocast_dtype("cpu")), weight.to(torch.get_autocast_dtype("cpu"))
        out: Tensor = _Depthwise.apply(x, weight, d)
        return out if self.bias is None else out + self.bias[:, None, None]


class Upsample(nn.Upsample):
    """Of an output that is concatenated with others the gradient is a slice of theirs: it is copied out of it first,
    since the gradient of an interpolation is far slower where its channels do not lie side by side."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) to (B, C, f H, f W)."""
        out: Tensor = super().forward(x)
        return _Compact.apply(out) if _fast_layout(x) and out.requires_grad else out


class _Compact(torch.autograd.Function):
    """The same tensor, whose gradient is channels_last without gaps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)


class _Depthwise(torch.autograd.Function):
    """Y = X * w. The gradient of X is a convolution with the kernel turned by 180 degrees, so a fast forward again;
    that of a tap of w is the sum of X, shifted by the tap, times the gradient of Y, for many taps a fast forward
    too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return _depthwise(x, weight, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_x = _depthwise(grad, weight.flip(2, 3), ctx.dilation) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            # measured (benchmarks/convolutions.py): of nine taps, or on larger sides, the convolution is the slower one
            many = _MANY_GROUPS and weight.shape[-1] > 3 and ctx.dilation <= 2 and max(x.shape[-2:]) <= 64
            of_weight = (_taps_by_convolution if many else _taps)(x, grad, weight.shape[-1], ctx.dilation)
        return of_x, None if of_weight is None else of_weight.to(weight.dtype), None


def _depthwise(x: Tensor, weight: Tensor, dilation: int, bias: Tensor | None = None) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=weight.shape[0])


def _taps_by_convolution(x: Tensor, grad: Tensor, kernel: int, dilation: int) -> Tensor:
    """The same as ``_taps``, by one convolution: X is an image of B x C channels, the gradient of Y its kernel of H x W
    taps, and what comes out, k x k, is the sum for each image and channel."""
    b, c, h, w = x.shape
    image, turned = (
        torch.empty(h, w, b, c, dtype=torch.float32).copy_(t.permute(2, 3, 0, 1)).flatten(2) for t in (x, grad)
    )
    with torch.autocast("cpu", enabled=False):
        sums = F.conv2d(
            image.permute(2, 0, 1)[None],
            turned.permute(2, 0, 1)[:, None],
            stride=dilation,
            padding=dilation * (kernel // 2),
            groups=b * c,
        )
    return sums.reshape(b, c, kernel, kernel).sum(0).unsqueeze(1)


def _taps(x: Tensor, grad: Tensor, kernel: int, dilation: int) -> Tensor:
    """sum over images and pixels of x[pixel + shift of the tap] grad[pixel], (C, 1, k, k) float32."""
    height, width = x.shape[-2:]
    x, grad = (t.float().permute(0, 2, 3, 1) for t in (x, grad))  # channels innermost, as they lie in memory
    taps = x.new_zeros(kernel, kernel, x.shape[-1])
    for i in range(kernel):
        for j in range(kernel):
            down, right = (i - kernel // 2) * dilation, (j - kernel // 2) * dilation
            if abs(down) < height and abs(right) < width:
                from_rows, to_rows = _overlap(down, height)
                from_columns, to_columns = _overlap(right, width)
                taps[i, j] = (x[:, from_rows, from_columns] * grad[:, to_rows, to_columns]).sum((0, 1, 2))
    return taps.permute(2, 0, 1).unsqueeze(1)


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Places p + shift and p for the p with both inside [0, size)."""
    return slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size + min(-shift, 0))


def _fast_layout(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def use_fast_layers(module: nn.Module) -> None:
    """Give every layer of a network that has a faster way that way; parameters stay as they are."""
    for conv in module.modules():
        if type(conv) is nn.Upsample:
            conv.__class__ = Upsample
        if not isinstance(conv, nn.Conv2d):
            continue
        d, k, square = conv.dilation[0], conv.kernel_size[0], conv.kernel_size[0] == conv.kernel_size[1]
        same = conv.padding == (d * (k // 2),) * 2 and k % 2 == 1 and conv.dilation == (d, d)
        depthwise = conv.groups == conv.in_channels == conv.out_channels
        if type(conv) is Conv2dSame:
            if square and k % 2 and conv.stride == (2, 2) and conv.dilation == (1, 1):
                conv.__class__ = StridedSameConv2d
        elif type(conv) is not nn.Conv2d or not square or conv.stride != (1, 1) or conv.padding_mode != "zeros":
            continue
        elif k == 1 and conv.groups == 1 and conv.padding == (0, 0):
            conv.__class__ = PointwiseConv2d
        elif depthwise and (d > 1 or k > 3) and same:
            conv.__class__ = DepthwiseConv2d
