"""BatchNorm of a single value a channel."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semidg.networks.norm import SingleValueBatchNorm2d, allow_single_values


def pair() -> tuple[nn.Sequential, nn.Sequential]:
    """The same layer twice, with statistics and parameters of some training; the second one is converted."""
    models = nn.Sequential(nn.BatchNorm2d(3)), nn.Sequential(nn.BatchNorm2d(3))
    with torch.no_grad():
        for model in models:
            torch.manual_seed(0)
            model[0].weight.uniform_(0.5, 2)
            model[0].bias.normal_()
            model(torch.randn(4, 3, 2, 2) * 3 + 1)
    allow_single_values(models[1])
    return models


def test_a_single_value_is_normalised_by_the_running_statistics_and_leaves_them() -> None:
    plain, ours = pair()
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
def test_elsewhere_it_is_the_plain_layer(shape: tuple[int, ...], training: bool) -> None:
    plain, ours = (model.train(training) for model in pair())
    x = torch.randn(shape)
    assert torch.equal(ours(x), plain(x))
    assert isinstance(ours[0], SingleValueBatchNorm2d)
    assert plain.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), ours.buffers(), strict=True))
