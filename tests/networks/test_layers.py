"""The fast convolutions give the numbers and gradients of those they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from semidg.networks import layers
from semidg.networks.layers import (
    DepthwiseConv2d,
    PointwiseConv2d,
    StridedSameConv2d,
    Upsample,
    use_fast_layers,
)


def agree(plain: nn.Module, fast: nn.Module, x: Tensor, rtol: float = 1e-4, atol: float = 1e-4) -> None:
    results = []
    for conv in (plain, fast):
        y = conv(x)
        gradient = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y.dtype)
        results.append((y, *torch.autograd.grad(y, (x, *conv.parameters()), gradient)))
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def made_fast(plain: nn.Module, kind: type[nn.Module]) -> nn.Module:
    fast = nn.Sequential(copy.deepcopy(plain))
    use_fast_layers(fast)
    assert type(fast[0]) is kind
    return fast[0]


def images(batch: int, channels: int, size: tuple[int, int], channels_last: bool) -> Tensor:
    x = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(0))
    return (x.contiguous(memory_format=torch.channels_last) if channels_last else x).requires_grad_()


@given(
    st.integers(1, 3), st.sampled_from([(8, 8), (8, 12), (9, 7), (4, 4)]), st.sampled_from([3, 5]),
    st.integers(1, 9), st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_depthwise(
    batch: int, size: tuple[int, int], kernel: int, dilation: int, bias: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=6, bias=bias)
    kind = nn.Conv2d if (dilation, kernel) == (1, 3) else DepthwiseConv2d  # the latter is fast as it is
    agree(plain, made_fast(plain, kind), images(batch, 6, size, channels_last))


@pytest.mark.parametrize(
    ("size", "kernel", "dilation"), [((8, 8), 5, 2), ((64, 64), 5, 1), ((33, 18), 7, 2), ((2, 5), 7, 1), ((1, 1), 5, 2)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_to_the_gradient_of_the_taps_agree(
    size: tuple[int, int], kernel: int, dilation: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, grad = (
        torch.randn(2, 6, *size, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    with torch.autocast("cpu", torch.bfloat16):
        sums = layers._taps_by_convolution(x, grad, kernel, dilation)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, layers._taps(x, grad, kernel, dilation), rtol=1e-4, atol=1e-4)


@given(
    st.integers(1, 3), st.sampled_from([(8, 8), (5, 12), (1, 1)]), st.sampled_from([2, 9]), st.booleans(), st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_pointwise(batch: int, size: tuple[int, int], outputs: int, bias: bool, channels_last: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, outputs, 1, bias=bias)
    agree(plain, made_fast(plain, PointwiseConv2d), images(batch, 6, size, channels_last))


@given(
    st.integers(1, 3), st.sampled_from([(8, 8), (6, 12), (9, 8), (7, 7), (2, 2)]), st.sampled_from([3, 5, 7]),
    st.sampled_from([1, 6]), st.booleans(), st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_strided_with_same_padding(
    batch: int, size: tuple[int, int], kernel: int, groups: int, bias: bool, channels_last: bool
) -> None:
    torch.manual_seed(0)
    plain = Conv2dSame(6, 6, kernel, stride=2, groups=groups, bias=bias)
    agree(plain, made_fast(plain, StridedSameConv2d), images(batch, 6, size, channels_last))


@pytest.mark.parametrize(
    ("plain", "kind", "dtype"),
    [
        (nn.Conv2d(6, 6, 5, padding=4, dilation=2, groups=6, bias=False), DepthwiseConv2d, torch.bfloat16),
        (nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False), DepthwiseConv2d, torch.bfloat16),
        (nn.Conv2d(6, 2, 1, bias=False), PointwiseConv2d, torch.bfloat16),
        (nn.Conv2d(6, 9, 1, bias=False), PointwiseConv2d, torch.bfloat16),
        (Conv2dSame(6, 9, 3, stride=2, bias=False), StridedSameConv2d, torch.bfloat16),
        (Conv2dSame(6, 6, 3, stride=2, groups=6, bias=False), StridedSameConv2d, torch.float32),
    ],
)
def test_in_bf16_the_results_have_its_accuracy(plain: nn.Module, kind: type[nn.Module], dtype: torch.dtype) -> None:
    fast = made_fast(plain, kind)
    x = images(2, 6, (8, 8), True)
    results = []
    for conv in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        assert y.dtype == (dtype if conv is fast else torch.bfloat16)
        results.append((y.float(), *torch.autograd.grad(y.float().square().mean(), (x, conv.weight))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0.03, atol=0.01)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=4),  # neither dilated nor large
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),  # not depthwise
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4),  # two outputs a channel
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4),  # changes the size
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, padding_mode="reflect"),
        nn.Conv2d(4, 8, 1, stride=2),
        nn.Conv2d(4, 8, 1, groups=2),
        nn.Conv2d(4, 8, (1, 3)),
        Conv2dSame(4, 8, 3, stride=1),
        Conv2dSame(4, 8, 4, stride=2),
    ],
)
def test_others_stay_as_they_are(conv: nn.Conv2d) -> None:
    kind = type(conv)
    use_fast_layers(conv)
    assert type(conv) is kind


def test_second_derivatives_are_refused_and_not_wrong() -> None:
    fast = made_fast(nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2), DepthwiseConv2d)
    x = images(1, 2, (6, 6), True)
    (slope,) = torch.autograd.grad(fast(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@pytest.mark.parametrize("channels_last", [True, False])
def test_upsampling_gives_the_same_where_its_output_is_concatenated(channels_last: bool) -> None:
    plain = nn.Upsample(mode="bilinear", scale_factor=4, align_corners=True)
    fast = made_fast(plain, Upsample)
    results = []
    for layer in (plain, fast):
        x = images(2, 6, (5, 4), channels_last)
        other = images(2, 3, (20, 16), channels_last)
        y = torch.cat([layer(x), other], 1)
        results.append(
            (y, *torch.autograd.grad((y * torch.linspace(-1, 1, y[0].numel()).view_as(y[0])).sum(), (x, other)))
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        assert not fast(images(1, 6, (3, 3), channels_last)).requires_grad
