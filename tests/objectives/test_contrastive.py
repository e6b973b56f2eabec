"""Section 5: the choice of pixels, and InfoNCE against a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semidg.method_config import ContrastiveConfig
from semidg.objectives.boundary import edge_target
from semidg.objectives.contrastive import choose_anchors, contrastive_loss, info_nce
from semidg.types import IGNORE_INDEX


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeddings(seed: int, count: int = 12) -> Tensor:
    return F.normalize(torch.randn(count, 5, generator=generator(seed), dtype=torch.float64), dim=1)


def slow_info_nce(anchors: Tensor, positives: Tensor, labels: Tensor, temperature: float) -> float:
    a, p, y = anchors.numpy(), positives.numpy(), labels.tolist()
    by_class: dict[int, list[float]] = {}
    for i, own in enumerate(y):
        positive = math.exp(float(np.dot(a[i], p[i])) / temperature)
        negatives = sum(math.exp(float(np.dot(a[i], p[j])) / temperature) for j in range(len(y)) if y[j] != own)
        by_class.setdefault(own, []).append(-math.log(positive / (positive + negatives)))
    return sum(sum(losses) / len(losses) for losses in by_class.values()) / len(by_class)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_info_nce_equals_the_slow_reference(seed: int, temperature: float) -> None:
    a, p = embeddings(seed), embeddings(seed + 50)
    labels = torch.randint(0, 4, (12,), generator=generator(seed))
    labels[labels == 2] = 3  # a class number without a pixel
    expected = slow_info_nce(a, p, labels, temperature)
    assert info_nce(a, p, labels, temperature).item() == pytest.approx(expected, rel=1e-5)


def test_loss_compares_networks_and_views_crosswise() -> None:
    labels = torch.tensor([0, 1] * 6)
    first, second = (embeddings(0), embeddings(1)), (embeddings(2), embeddings(3))
    crossed = [(first[0], second[1]), (first[1], second[0]), (second[0], first[1]), (second[1], first[0])]
    expected = sum(slow_info_nce(a, p, labels, 0.1) for a, p in crossed) / 4
    assert contrastive_loss(first, second, labels, 0.1).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(
        contrastive_loss(first, second, labels, 0.1), contrastive_loss(second, first, labels, 0.1)
    )


def test_positives_and_negatives_get_no_gradient() -> None:
    a, p = embeddings(0).requires_grad_(), embeddings(1).requires_grad_()
    loss = info_nce(a, p, torch.tensor([0, 1] * 6), 0.1)
    ours, theirs = torch.autograd.grad(loss, (a, p), allow_unused=True)
    assert ours.abs().sum() > 0
    assert theirs is None


def test_a_step_of_gradient_descent_brings_positives_together_and_classes_apart() -> None:
    labels = torch.arange(12) % 3
    raw = [torch.randn(12, 5, generator=generator(k)).requires_grad_() for k in range(4)]

    def similarities() -> tuple[float, float]:
        a, b, c, d = (F.normalize(r.detach(), dim=1) for r in raw)
        positive, negative = [], []
        for own, other in ((a, d), (b, c)):
            table = own @ other.T
            positive.append(table.diagonal().mean())
            negative.append(table[labels[:, None] != labels[None]].mean())
        return sum(positive).item(), sum(negative).item()  # type: ignore[union-attr]

    before = similarities()
    a, b, c, d = (F.normalize(r, dim=1) for r in raw)
    contrastive_loss((a, b), (c, d), labels, 0.1).backward()
    with torch.no_grad():
        for r in raw:
            assert r.grad is not None
            r.sub_(0.05 * r.grad)
    after = similarities()
    assert after[0] > before[0]
    assert after[1] < before[1]


@pytest.mark.parametrize("count", [0, 1, 6])
def test_without_another_class_it_is_a_zero_that_keeps_the_graph(count: int) -> None:
    a = torch.randn(count, 5, requires_grad=True)
    loss = info_nce(a, torch.randn(count, 5), torch.ones(count, dtype=torch.long), 0.1)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, a)
    assert gradient.abs().sum() == 0


def test_large_batches_of_equal_embeddings_are_finite_at_a_small_temperature() -> None:
    a = F.normalize(torch.ones(64, 8), dim=1).requires_grad_()
    loss = info_nce(a, a, torch.arange(64) % 2, 1e-3)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(33), rel=1e-4)
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_half_precision_is_computed_in_32_bit() -> None:
    a, p = embeddings(0).bfloat16(), embeddings(1).bfloat16()
    labels = torch.tensor([0, 1] * 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(a, p, labels, 0.1)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, info_nce(a.float(), p.float(), labels, 0.1))


@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.integers(1, 2),
    st.integers(0, 3),
)
@settings(max_examples=60)
def test_anchors_are_distinct_pixels_of_their_class_in_the_asked_shares(
    seed: int, anchors: int, share: float, batch: int, absent: int
) -> None:
    labels = torch.randint(0, 3, (batch, 6, 7), generator=generator(seed))
    labels[labels == absent] = IGNORE_INDEX
    band = torch.rand(batch, 6, 7, generator=generator(seed + 1)) < 0.4
    config = ContrastiveConfig(anchors=anchors, boundary_share=share)
    at = choose_anchors(labels, band, 3, config, generator(seed))
    assert torch.equal(labels[at.image, at.row, at.column], at.label)
    places = list(zip(at.image.tolist(), at.row.tolist(), at.column.tolist(), strict=True))
    assert len(set(places)) == len(places)
    for c in range(3):
        own = at.label == c
        near, far = int(((labels == c) & band).sum()), int(((labels == c) & ~band).sum())
        chosen_near = int(band[at.image, at.row, at.column][own].sum())
        assert own.sum() == min(anchors, near + far)
        if near >= round(share * anchors) and far >= anchors - round(share * anchors):
            assert chosen_near == round(share * anchors)


def test_the_choice_depends_on_the_generator_alone() -> None:
    labels = torch.randint(0, 2, (2, 16, 16), generator=generator())
    band = edge_target(labels)
    config = ContrastiveConfig(anchors=20)
    a, b, c = (choose_anchors(labels, band, 2, config, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a.row, c.row)


def test_nothing_to_choose_from() -> None:
    labels = torch.full((1, 4, 4), IGNORE_INDEX)
    at = choose_anchors(labels, torch.zeros(1, 4, 4, dtype=torch.bool), 2, ContrastiveConfig(), generator())
    assert [len(index) for index in at] == [0, 0, 0, 0]
