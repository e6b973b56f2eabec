"""Forward and backward of a network against the same with the layers of PyTorch and timm, in place of those of
``semidg/networks/layers.py``."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from benchmarks.figure import Figure, alternate, figure
from benchmarks.training import autocast, configure, new_method, precisions
from semidg.networks.layers import DepthwiseConv2d, PointwiseConv2d, StridedSameConv2d, Upsample

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def with_plain_convolutions(module: AnyModule) -> AnyModule:
    """A copy whose convolutions and upsampling are those of PyTorch and timm."""
    module = copy.deepcopy(module)
    for part in module.modules():
        if type(part) in (PointwiseConv2d, StridedSameConv2d, DepthwiseConv2d, Upsample):
            part.__class__ = type(part).__bases__[0]
    return module


def figures(quick: bool) -> list[Figure]:
    """One network, in 32-bit and, where the processor has it, bf16, on the images of a step of supervised and of epl
    in the preset."""
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
    return found
