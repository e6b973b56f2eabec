"""Mixing the BatchNorm statistics of new images: against a plain loop, and what must hold whatever they are."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from semidg.networks.adaptation import adapt_batch_norms, share_of
from semidg.networks.factory import make_pair
from semidg.networks.norm import SingleValueBatchNorm2d
from tests_support import tiny_config


class Small(nn.Module):
    """Two convolutions with BatchNorm, dropout, and a pooled branch with a single value a channel of one image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.pooled = nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 3, 3), nn.Conv2d(4, 3, 1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(3), SingleValueBatchNorm2d(3)])
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.norms[0](self.first(x))))
        pooled: Tensor = self.norms[2](self.pooled(x.mean((2, 3), keepdim=True)))
        other: Tensor = self.norms[1](self.second(x))
        return other + pooled


def small(seed: int = 0) -> Small:
    """A small network in eval mode whose running statistics are no default."""
    torch.manual_seed(seed)
    network = Small()
    for norm in network.norms:
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return network.eval()


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 12, 10, generator=torch.Generator().manual_seed(seed))


def normalised(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor]:
    """By the batch, written out: (y, m, v) with m_c and v_c over images, rows and columns."""
    means, variances, y = [], [], torch.empty_like(x)
    for c in range(x.shape[1]):
        values = x[:, c].double()
        m = values.sum() / values.numel()
        v = ((values - m) ** 2).sum() / values.numel()
        y[:, c] = ((values - m) / (v + norm.eps).sqrt() * norm.weight[c] + norm.bias[c]).float()
        means.append(m)
        variances.append(v)
    return y, torch.stack(means).float(), torch.stack(variances).float()


def test_the_statistics_are_those_of_a_plain_loop() -> None:
    network, batches, share = small(), [images(5, 1), images(3, 2)], 0.3
    expected = [[torch.zeros_like(n.running_mean), torch.zeros_like(n.running_var)] for n in network.norms]
    with torch.no_grad():
        for batch in batches:
            y, *first = normalised(network.first(batch), network.norms[0])
            x = F.relu(y)
            _, *second = normalised(network.second(x), network.norms[1])
            _, *pooled = normalised(network.pooled(x.mean((2, 3), keepdim=True)), network.norms[2])
            for sums, seen in zip(expected, (first, second, pooled), strict=True):
                for k in range(2):
                    sums[k] += seen[k] * len(batch) / 8
    before = copy.deepcopy(network)
    adapt_batch_norms(network, batches, share)
    for norm, old, (mean, var) in zip(network.norms, before.norms, expected, strict=True):
        torch.testing.assert_close(norm.running_mean, 0.7 * old.running_mean + 0.3 * mean)
        torch.testing.assert_close(norm.running_var, 0.7 * old.running_var + 0.3 * var)


def test_nothing_else_changes() -> None:
    network = small().train()  # whatever mode it is in
    network.norms[1].eval()
    before = copy.deepcopy(network)
    adapt_batch_norms(network, [images(4)], 0.5)
    changed = {name for name, value in network.state_dict().items() if not value.equal(before.state_dict()[name])}
    assert changed == {f"norms.{k}.running_{what}" for k in range(3) for what in ("mean", "var")}
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
    assert [n.momentum for n in network.norms] == [0.1] * 3
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_one_image_has_no_variance_where_it_is_pooled() -> None:
    network = small()
    before = copy.deepcopy(network)
    adapt_batch_norms(network, [images(1)], 0.5)
    assert network.norms[2].running_mean.equal(before.norms[2].running_mean)
    assert network.norms[2].running_var.equal(before.norms[2].running_var)
    assert not network.norms[0].running_mean.equal(before.norms[0].running_mean)


def test_an_error_in_between_leaves_the_network_as_it_was() -> None:
    network = small()
    before = copy.deepcopy(network)
    with pytest.raises(RuntimeError):
        adapt_batch_norms(network, [images(3), torch.zeros(3, 2, 12, 10)], 0.5)
    assert all(value.equal(before.state_dict()[name]) for name, value in network.state_dict().items())
    assert not any(module.training or module._forward_pre_hooks for module in network.modules())


@settings(deadline=None, max_examples=25)
@given(st.floats(0.2, 5), st.floats(-1, 1), st.integers(2, 6))
def test_all_of_the_new_statistics_undo_a_change_of_gain_and_level(gain: float, level: float, count: int) -> None:
    """With s = 1 the first layer cannot tell a x + b from x, where padding does not matter."""
    x = images(count, 3)
    plain, other = small().double(), small().double()
    adapt_batch_norms(plain, [x.double()], 1.0)
    adapt_batch_norms(other, [gain * x.double() + level], 1.0)
    with torch.no_grad():
        torch.testing.assert_close(other(gain * x.double() + level), plain(x.double()), rtol=0.02, atol=0.02)


def test_it_reaches_every_norm_of_the_networks_used() -> None:
    (network,) = make_pair(tiny_config().network, 3, 0, 1)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    old = [norm.running_mean.clone() for norm in norms]
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    adapt_batch_norms(network.eval(), [x], 0.5)
    assert len(norms) > 10
    assert not any(norm.running_mean.equal(mean) for norm, mean in zip(norms, old, strict=True))


@pytest.mark.parametrize(("images", "share"), [(1, 1 / 9), (4, 1 / 3), (8, 0.5), (9, 0.5), (10**6, 0.5)])
def test_few_images_count_for_less(images: int, share: float) -> None:
    assert share_of(images) == pytest.approx(share)
