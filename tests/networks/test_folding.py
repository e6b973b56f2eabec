"""Folded networks give the numbers of those they come from and have no BatchNorm left; what cannot be folded stays."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from semidg.config import NetworkConfig
from semidg.networks.compilation import compile_networks
from semidg.networks.ema import MovingAverage, make_teacher
from semidg.networks.factory import NetworkOutput, SegmentationNetwork, make_network
from semidg.networks.folding import Folded, fold_batch_norms
from semidg.networks.norm import synchronise


def trained(network: nn.Module) -> nn.Module:
    """BatchNorms as after a training: no mean is 0, no variance and no scale 1."""
    generator = torch.Generator().manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator) * 0.1)
            norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
            nn.init.normal_(norm.weight, 1, 0.1, generator=generator)
            nn.init.normal_(norm.bias, 0, 0.1, generator=generator)
    return network


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("deeplabv3plus", "tf_efficientnet_lite0"),
        ("deeplabv3plus", "resnet18"),
        ("unet", "resnet18"),
        ("unet", "mobilenet_v2"),
        ("deeplabv3plus", "tu-resnet18"),
    ],
)
@torch.no_grad()
def test_same_numbers_without_a_batch_norm(architecture: Literal["deeplabv3plus", "unet", "fpn"], encoder: str) -> None:
    network = trained(make_network(NetworkConfig(architecture=architecture, encoder=encoder, weights="none"), 3, 0))
    x = torch.rand(2, 3, 72, 96, generator=torch.Generator().manual_seed(2))
    before = {name: t.clone() for name, t in network.state_dict().items()}
    folded = fold_batch_norms(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    precise = deepcopy(network).double().eval()
    expected, exact = precise(x.double()), fold_batch_norms(precise)(x.double())
    plain, found = network.eval()(x), folded(x)
    channels_last = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = channels_last(x.contiguous(memory_format=torch.channels_last))
    for truth, *others in zip(expected, exact, plain, found, last, strict=True):
        size = truth.abs().max()
        in_double, *in_single = ((truth - other).abs().max() / size for other in others)
        assert in_double <= 1e-12
        assert max(in_single) <= 2e-5  # rounding alone, that of the network itself among it: up to 9e-6 seen
    for name, t in network.state_dict().items():
        assert torch.equal(t, before[name]), "the network itself is left alone"


class _Model(nn.Module):
    """Encoder and head of a few layers; the output of its first convolution goes two ways where ``forks``."""

    def __init__(self, *, forks: bool, twice: bool = False) -> None:
        super().__init__()
        self.forks, self.twice = forks, twice
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.segmentation_head = nn.Conv2d(8, 2, 1)

    def encoder(self, x: Tensor) -> list[Tensor]:
        made = self.conv(x)
        y = self.norm(made)
        if self.twice:
            y = self.norm(y.relu())
        return [y + made if self.forks else y]

    def decoder(self, maps: list[Tensor]) -> Tensor:
        return maps[0]


@torch.no_grad()
def test_a_convolution_that_feeds_something_else_is_not_folded() -> None:
    for model in (_Model(forks=True), _Model(forks=False, twice=True)):
        network = trained(SegmentationNetwork(model, 3)).eval()
        folded = fold_batch_norms(network)
        assert any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        x = torch.rand(1, 3, 32, 32)
        assert torch.equal(network(x).logits, folded(x).logits)
    straight = fold_batch_norms(trained(SegmentationNetwork(_Model(forks=False), 3)).eval())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in straight.modules())


def network_of(encoder: str, seed: int = 0) -> nn.Module:
    return trained(make_network(NetworkConfig(encoder=encoder, weights="none"), 3, seed))


def near(a: NetworkOutput, b: NetworkOutput) -> bool:
    return all(float((x - y).abs().max() / y.abs().max()) <= 2e-5 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet18"])
@torch.no_grad()
def test_a_folded_average_follows_whatever_writes_to_it(encoder: str) -> None:
    student = network_of(encoder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = make_teacher(student)
    names = [name for name, _ in teacher.named_parameters()]
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)).contiguous(
        memory_format=torch.channels_last
    )
    folded, average = Folded(teacher), MovingAverage(teacher, student)
    assert folded.network is not teacher
    few = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (folded.network, teacher)]
    assert 0 < few[0] < few[1], "the deepest ones are left"
    assert near(folded(x), teacher(x))
    first = teacher(x)
    for parameter in student.parameters():
        parameter.add_(0.05 * parameter.abs().mean())
    average.move(0.5, 100)
    assert not near(first, teacher(x)), "it has moved"
    assert near(folded(x), teacher(x))
    teacher.load_state_dict(network_of(encoder, 1).state_dict())
    assert near(folded(x), teacher(x))
    for norm in teacher.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_var.mul_(1.5)  # type: ignore[union-attr]
    assert near(folded(x), teacher(x))
    assert [name for name, _ in teacher.named_parameters()] == names, "the average itself is left alone"


@torch.no_grad()
def test_a_folded_average_in_bf16_is_as_near_to_32_bit_as_the_average() -> None:
    teacher = network_of("tf_efficientnet_lite0").eval()
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    folded, exact = Folded(teacher), torch.softmax(teacher(x).logits, 1)
    with torch.autocast("cpu", torch.bfloat16):
        errors = [(torch.softmax(n(x).logits.float(), 1) - exact).abs().mean() for n in (folded, teacher)]
    assert 0 < errors[0] < 1.5 * errors[1]


@torch.no_grad()
def test_averages_of_several_ranks_fold_and_compiled_ones_stay() -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    over_ranks = network_of("resnet18").eval()
    synchronise(over_ranks)
    assert Folded(over_ranks).network is not over_ranks
    assert near(Folded(over_ranks)(x), over_ranks(x))
    compiled = network_of("resnet18").eval()
    compile_networks([compiled], "eager")
    assert Folded(compiled).network is compiled
    assert fold_batch_norms(compiled) is compiled


def test_other_modules_are_left_alone() -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> NetworkOutput:
            return NetworkOutput(x, x)

    other = Other()
    assert fold_batch_norms(other) is other
