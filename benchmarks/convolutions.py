"""Forward and backward of a network against the same with the layers of PyTorch and timm, in place of those of
``semidg/networks/layers.py``; and the two ways to the gradients of depthwise taps beside each other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from benchmarks.figure import Figure, alternate, figure
from benchmarks.training import autocast, configure, new_method, precisions
from semidg.networks.layers import (
    DepthwiseConv2d,
    PointwiseConv2d,
    StridedSameConv2d,
    Upsample,
    _taps,
    _taps_by_convolution,
)

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Way = Callable[[Tensor, Tensor, int, int], Tensor]


def with_plain_convolutions(module: AnyModule) -> AnyModule:
    """A copy whose convolutions and upsampling are those of PyTorch and timm."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if type(part) in (PointwiseConv2d, StridedSameConv2d, DepthwiseConv2d, Upsample):
            part.__class__ = type(part).__bases__[0]
    return module


def figures(quick: bool) -> list[Figure]:
    """One network, on the images of a step of supervised and of epl in the preset, in 32-bit and, where the processor
    has it, bf16; and some of its depthwise layers, alone."""
    found = []
    config = configure(Path(), "supervised", quick)
    fast = new_method(config).networks[0]
    plain = with_plain_convolutions(fast)
    for precision in precisions():
        for count in (2,) if quick else (4, 12):
            images = torch.rand(count, config.data.channels, config.data.size, config.data.size)
            images = images.contiguous(memory_format=torch.channels_last)

            def run(network: nn.Module, images: torch.Tensor = images, precision: str = precision) -> None:
                with autocast(precision):
                    loss = network(images).logits.float().mean()
                loss.backward()
                network.zero_grad()

            ratios, ours, _ = alternate(lambda run=run: run(fast), lambda run=run: run(plain), 2 if quick else 15)
            about = f"{'32-bit' if precision == '32' else precision}, {count} images"
            found.append(figure(f"{about}: fast / plain", ratios))
            found.append(figure(f"{about}: fast, ms", [1000 * s for s in ours]))
    for channels, side, kernel, dilation in (
        (240, 16, 5, 1),
        (672, 8, 5, 1),
        (1152, 8, 5, 2),
        (1152, 8, 3, 2),
        (320, 8, 3, 6),
    ):
        x, grad = (
            torch.randn(12, channels, side, side).contiguous(memory_format=torch.channels_last) for _ in range(2)
        )

        def taps(way: Way, x: Tensor = x, grad: Tensor = grad, kernel: int = kernel, dilation: int = dilation) -> None:
            way(x, grad, kernel, dilation)

        ratios, _, _ = alternate(
            lambda taps=taps: taps(_taps_by_convolution), lambda taps=taps: taps(_taps), 2 if quick else 31
        )
        about = f"taps of 12 x {channels} x {side} x {side}, {kernel} x {kernel}, dilation {dilation}"
        found.append(figure(f"{about}: by convolution / by sums", ratios))
    return found
