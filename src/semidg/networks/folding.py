"""Networks that only predict: each BatchNorm goes into the convolution before it, and is not computed any more.

In eval mode it is y = (c - m) s + b of what the convolution gives, c = W x + a, with s = w / sqrt(v + eps): the same as
a convolution with s W and (a - m) s + b.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from semidg.networks.factory import SegmentationNetwork
from semidg.networks.norm import SingleValueBatchNorm2d, SingleValueBatchNormAct2d

_NORMS = (nn.BatchNorm2d, SingleValueBatchNorm2d, BatchNormAct2d, SingleValueBatchNormAct2d)
_CLOSE = 1e-3  # of logits on noise: rounding is some 1e-6 of them, a wrong pair is far off


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode that gives the same numbers, but for rounding, in less time.

    Which convolution is before which BatchNorm is seen by one forward of noise, not guessed from names, and a second
    one checks the copy: a network in which a convolution feeds something else too is returned as it is.
    """
    if not isinstance(network, SegmentationNetwork):
        return network
    folded = copy.deepcopy(network).eval()
    noise = torch.rand(1, folded.mean.shape[1], 64, 64, generator=torch.Generator().manual_seed(0)).to(folded.mean)
    with torch.inference_mode():
        expected, pairs = _pairs(folded, noise)
    with torch.no_grad():
        for conv, norm in pairs.items():
            _fold(conv, norm)
    for name, module in list(folded.named_modules()):
        if module in pairs.values():
            folded.set_submodule(name, _rest(module))
    with torch.inference_mode():
        same = torch.allclose(folded(noise).logits, expected, rtol=_CLOSE, atol=_CLOSE * float(expected.abs().max()))
    return folded if same else network


def _pairs(network: nn.Module, noise: Tensor) -> tuple[Tensor, dict[nn.Conv2d, nn.BatchNorm2d]]:
    """The logits, and each convolution with the BatchNorm that takes its output; both are called once."""
    calls: Counter[nn.Module] = Counter()
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # outputs are kept, so that no other gets their id
    pairs: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def see(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output
        elif id(inputs[0]) in made:
            assert isinstance(module, nn.BatchNorm2d)
            pairs[made[id(inputs[0])][0]] = module

    seen = [m for m in network.modules() if isinstance(m, nn.Conv2d) or type(m) in _NORMS]
    hooks = [module.register_forward_hook(see) for module in seen]
    try:
        logits: Tensor = network(noise).logits
    finally:
        for hook in hooks:
            hook.remove()
    once = {c: n for c, n in pairs.items() if calls[c] == calls[n] == 1 and n.running_mean is not None}
    return logits, once


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def _rest(norm: nn.Module) -> nn.Module:
    """What is left of a folded BatchNorm: the activation of timm's layer, which has it inside."""
    act = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
    assert isinstance(act, nn.Module)
    return act
