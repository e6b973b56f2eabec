"""Networks that only predict: each BatchNorm goes into the convolution before it, and is not computed any more.

In eval mode it is y = (c - m) s + b of what the convolution gives, c = W x + a, with s = w / sqrt(v + eps): the same as
a convolution with s W and (a - m) s + b.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import NamedTuple, cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from semidg.networks.compilation import is_compiled
from semidg.networks.factory import NetworkOutput, SegmentationNetwork
from semidg.networks.norm import OverRanks, SingleValueBatchNorm2d, SingleValueBatchNormAct2d

_NORMS = (nn.BatchNorm2d, SingleValueBatchNorm2d, BatchNormAct2d, SingleValueBatchNormAct2d)
_CLOSE = 1e-3  # of logits on noise: rounding is some 1e-6 of them, a wrong pair is far off
_SIDE = 64  # pixels, of the noise
_MOVING = 4  # weights for each value that a convolution makes of the noise


class _Pair(NamedTuple):
    """A convolution, the BatchNorm that takes its output, and the convolution of a copy that stands for both."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    folded: nn.Conv2d


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode that gives the same numbers, but for rounding, in less time.

    Which convolution is before which BatchNorm is seen by one forward of noise, not guessed from names, and a second
    one checks the copy: a network in which a convolution feeds something else too is returned as it is, and a compiled
    one, whose copy would not be compiled.
    """
    return _folded_copy(network)[0]


class Folded:
    """What ``fold_batch_norms`` gives of a network in eval mode whose weights move, such as an average.

    A folded convolution is computed again before it is used if anything that it is made of was written to; every other
    parameter is the network's own. Deep convolutions, which have many weights and few pixels, stay as they are: to fold
    them again takes as long as their BatchNorms. It does not follow the network to another device or type.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network, self._pairs = _folded_copy(network, _MOVING)
        self._sources = [t for pair in self._pairs for t in (*_tensors(pair.conv), *_tensors(pair.norm))]
        self._versions: list[int] = []
        if self.network is not network:
            _share(self.network, network, self._sources)

    def __call__(self, images: Tensor) -> NetworkOutput:
        """As the network; images (B, C, H, W) in [0, 1]."""
        self.follow()
        output: NetworkOutput = self.network(images)
        return output

    def follow(self) -> None:
        """Fold again what has moved."""
        versions = [t._version for t in self._sources]
        if versions != self._versions:
            _fold(self._pairs)
            self._versions = versions


def _folded_copy(network: nn.Module, most: float = math.inf) -> tuple[nn.Module, list[_Pair]]:
    """The folded copy and what was folded; the network itself and nothing, where no copy gives the same numbers.

    most: convolutions with more weights than so many times the values that they make of the noise are left.
    """
    if not isinstance(network, SegmentationNetwork) or is_compiled(network):
        return network, []
    folded = copy.deepcopy(network).eval()
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, folded.mean.shape[1], _SIDE, _SIDE, generator=generator).to(folded.mean)
    with torch.inference_mode(), torch.autocast(noise.device.type, enabled=False):
        expected, found = _pairs(folded, noise, most)
        names = {module: name for name, module in folded.named_modules()}
        of = dict(network.named_modules())
        pairs = [
            _Pair(cast(nn.Conv2d, of[names[conv]]), cast(nn.BatchNorm2d, of[names[norm]]), conv)
            for conv, norm in found.items()
        ]
    with torch.no_grad():
        for conv, norm in found.items():
            conv.weight = nn.Parameter(conv.weight.clone(), requires_grad=False)
            conv.bias = nn.Parameter(torch.empty_like(norm.bias), requires_grad=False)
            folded.set_submodule(names[norm], _rest(norm))
    _fold(pairs)
    with torch.inference_mode(), torch.autocast(noise.device.type, enabled=False):
        same = torch.allclose(folded(noise).logits, expected, rtol=_CLOSE, atol=_CLOSE * float(expected.abs().max()))
    return (folded, pairs) if same else (network, [])


@torch.no_grad()
def _fold(pairs: list[_Pair]) -> None:
    """s W and (a - m) s + b of every pair, into its folded convolution."""
    if not pairs:
        return
    norms = [pair.norm for pair in pairs]
    scales = torch._foreach_add([_there(n.running_var) for n in norms], [n.eps for n in norms])
    torch._foreach_rsqrt_(scales)
    torch._foreach_mul_(scales, [n.weight for n in norms])
    shifts = torch._foreach_neg([_there(n.running_mean) for n in norms])
    biased = [k for k, pair in enumerate(pairs) if pair.conv.bias is not None]
    if biased:
        torch._foreach_add_([shifts[k] for k in biased], [_there(pairs[k].conv.bias) for k in biased])
    torch._foreach_mul_(shifts, scales)
    torch._foreach_add_(shifts, [n.bias for n in norms])
    torch._foreach_copy_([_there(pair.folded.bias) for pair in pairs], shifts)
    for scale, pair in zip(scales, pairs, strict=True):
        torch.mul(_rows(pair.conv.weight), scale[:, None], out=_rows(pair.folded.weight))


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def _rows(weight: Tensor) -> Tensor:
    """A view (O, values of an output) in the order in memory: a product with a column goes through it in one pass."""
    return (weight if weight.is_contiguous() else weight.permute(0, 2, 3, 1)).view(len(weight), -1)


def _share(folded: nn.Module, network: nn.Module, but: list[Tensor]) -> None:
    """Parameters and buffers of the folded copy become those of the network, ``but`` those that were folded."""
    known = {id(t) for t in but}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if id(tensor) not in known:
            module, _, own = name.rpartition(".")
            setattr(folded.get_submodule(module), own, tensor)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _pairs(network: nn.Module, noise: Tensor, most: float) -> tuple[Tensor, dict[nn.Conv2d, nn.BatchNorm2d]]:
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
            conv, given = made[id(inputs[0])]
            if module.running_mean is not None and module.affine and conv.weight.numel() <= most * given.numel():
                pairs[conv] = module

    seen = [m for m in network.modules() if isinstance(m, nn.Conv2d) or type(m) in _NORMS or isinstance(m, OverRanks)]
    hooks = [module.register_forward_hook(see) for module in seen]
    try:
        logits: Tensor = network(noise).logits
    finally:
        for hook in hooks:
            hook.remove()
    return logits, {conv: norm for conv, norm in pairs.items() if calls[conv] == calls[norm] == 1}


def _rest(norm: nn.Module) -> nn.Module:
    """What is left of a folded BatchNorm: the activation of timm's layer, which has it inside."""
    act = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
    assert isinstance(act, nn.Module)
    return act
