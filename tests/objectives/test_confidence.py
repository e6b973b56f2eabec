"""Equations 3 to 7 against a slow reference written pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semidg.objectives.confidence import (
    FLOOR,
    confidence_aware_loss,
    cross_entropy,
    kl_divergence,
    log_average,
    variance,
)


def random_logs(seed: int, shape: tuple[int, ...] = (2, 3, 4, 5), scale: float = 2.0) -> Tensor:
    logits = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.log_softmax(logits, 1)


def slow_kl(p: Tensor, q: Tensor) -> Tensor:
    out = torch.zeros(p.shape[0], *p.shape[2:], dtype=p.dtype)
    for b in range(p.shape[0]):
        for y in range(p.shape[2]):
            for x in range(p.shape[3]):
                out[b, y, x] = sum(
                    float(p[b, c, y, x]) * math.log(float(p[b, c, y, x]) / float(q[b, c, y, x]))
                    for c in range(p.shape[1])
                )
    return out


def slow_loss(p_taught: Tensor, label: Tensor, v: Tensor, confidence: str) -> float:
    everything, entropies, weights, variances = [], [], [], []
    batch, _, height, width = p_taught.shape
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                entropy = -math.log(float(p_taught[b, int(label[b, y, x]), y, x]))
                entropies.append(entropy)
                weights.append(math.exp(-float(v[b, y, x])))
                variances.append(float(v[b, y, x]))
                everything.append(weights[-1] * entropy + variances[-1])
    n = len(everything)
    return sum(everything) / n if confidence == "pixel" else sum(entropies) / n * sum(weights) / n + sum(variances) / n


@pytest.mark.parametrize("seed", range(5))
def test_average_is_of_probabilities_not_logits(seed: int) -> None:
    a, b = random_logs(seed), random_logs(seed + 100)
    torch.testing.assert_close(log_average(a, b).exp(), (a.exp() + b.exp()) / 2)
    torch.testing.assert_close(log_average(a, b).exp().sum(1), torch.ones(2, 4, 5, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_kl_equals_the_slow_reference(seed: int) -> None:
    a, b = random_logs(seed), random_logs(seed + 100)
    torch.testing.assert_close(kl_divergence(a, b), slow_kl(a.exp(), b.exp()))


def test_variance_is_the_divergence_of_the_strong_from_the_weak_view() -> None:
    weak, strong = random_logs(1), random_logs(2)
    torch.testing.assert_close(variance(weak, strong), slow_kl(strong.exp(), weak.exp()))
    assert not torch.allclose(variance(weak, strong), variance(strong, weak))


@given(st.integers(0, 10**6), st.floats(0.1, 200))
@settings(max_examples=50, deadline=None)
def test_kl_is_finite_and_not_negative_for_any_logits(seed: int, scale: float) -> None:
    a, b = random_logs(seed, scale=scale).float(), random_logs(seed + 1, scale=scale).float()
    v = kl_divergence(a, b)
    assert torch.isfinite(v).all()
    assert v.min() >= -1e-4
    assert kl_divergence(a, a).abs().max() == 0


@pytest.mark.parametrize("confidence", ["pixel", "scalar"])
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_slow_reference(confidence: str, seed: int) -> None:
    taught, v = random_logs(seed), random_logs(seed + 7).abs()[:, 0]
    label = random_logs(seed + 9).argmax(1)
    expected = slow_loss(taught.exp(), label, v, confidence)
    assert confidence_aware_loss(taught, label, v, confidence).item() == pytest.approx(expected)  # type: ignore[arg-type]


def test_without_confidence_it_is_plain_cross_pseudo_supervision() -> None:
    taught, label = random_logs(0), random_logs(1).argmax(1)
    expected = torch.nn.functional.nll_loss(taught, label)
    torch.testing.assert_close(confidence_aware_loss(taught, label, torch.ones(2, 4, 5), "none"), expected)


def test_moving_confidence_between_pixels_changes_the_pixel_form_only() -> None:
    """The published scalar weight cannot tell which pixel is sure; the paper's can."""
    taught = torch.log(torch.tensor([0.9, 0.1], dtype=torch.float64)).reshape(1, 2, 1, 1).repeat(1, 1, 1, 2)
    label = torch.tensor([[[0, 1]]])  # the second pixel's label contradicts the taught network
    sure_left = torch.tensor([[[0.0, 2.0]]], dtype=torch.float64)
    sure_right = sure_left.flip(-1)
    pixel = [confidence_aware_loss(taught, label, v, "pixel").item() for v in (sure_left, sure_right)]
    scalar = [confidence_aware_loss(taught, label, v, "scalar").item() for v in (sure_left, sure_right)]
    assert pixel[1] - pixel[0] > 0.5
    assert scalar[0] == pytest.approx(scalar[1])


def test_gradient_through_the_confidence_is_on_and_can_be_turned_off() -> None:
    taught, label = random_logs(0), random_logs(1).argmax(1)
    v = torch.full((2, 4, 5), 0.3, dtype=torch.float64, requires_grad=True)
    confidence_aware_loss(taught, label, v).backward()
    entropy = cross_entropy(taught, label)
    assert v.grad is not None
    torch.testing.assert_close(v.grad, (1 - math.exp(-0.3) * entropy) / entropy.numel())
    detached = confidence_aware_loss(taught.requires_grad_(), label, v, detach=True)
    assert torch.autograd.grad(detached, v, allow_unused=True)[0] is None


def test_left_out_labels_do_not_teach_but_stay_in_the_mean() -> None:
    taught, label = random_logs(0), random_logs(1).argmax(1)
    keep = torch.zeros(2, 4, 5, dtype=torch.bool)
    v = torch.zeros(2, 4, 5, dtype=torch.float64)
    assert confidence_aware_loss(taught, label, v, keep=keep).item() == 0
    keep[0, 0, 0] = True
    expected = cross_entropy(taught, label)[0, 0, 0] / 40
    torch.testing.assert_close(confidence_aware_loss(taught, label, v, keep=keep), expected)


def test_impossible_label_gives_a_bounded_loss() -> None:
    taught = torch.log_softmax(torch.tensor([500.0, -500.0]), 0).reshape(1, 2, 1, 1)
    assert cross_entropy(taught, torch.tensor([[[1]]])).item() == pytest.approx(-math.log(FLOOR))
