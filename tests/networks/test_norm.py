"""BatchNorm of a single value a channel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from semidg.networks.norm import SingleValueBatchNorm2d, SingleValueBatchNormAct2d, allow_single_values

KINDS = {nn.BatchNorm2d: SingleValueBatchNorm2d, BatchNormAct2d: SingleValueBatchNormAct2d}


def pair(kind: Any = nn.BatchNorm2d) -> tuple[nn.Sequential, nn.Sequential]:
    """The same layer twice, with statistics and parameters of some training; the second one is converted."""
    models = nn.Sequential(kind(3)), nn.Sequential(kind(3))
    with torch.no_grad():
        for model in models:
            torch.manual_seed(0)
            model[0].weight.uniform_(0.5, 2)
            model[0].bias.normal_()
            model(torch.randn(4, 3, 2, 2) * 3 + 1)
    allow_single_values(models[1])
    return models


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_value_is_normalised_by_the_running_statistics_and_leaves_them(kind: Any) -> None:
    plain, ours = pair(kind)
    x = torch.randn(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        plain(x)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    torch.testing.assert_close(ours(x), plain.eval()(x))
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())
    ours(x.requires_grad_()).sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 2, 1)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_elsewhere_it_is_the_plain_layer(shape: tuple[int, ...], training: bool, kind: Any) -> None:
    plain, ours = (model.train(training) for model in pair(kind))
    x = torch.randn(shape)
    assert torch.equal(ours(x), plain(x))
    assert type(ours[0]) is KINDS[kind]
    assert plain.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), ours.buffers(), strict=True))
