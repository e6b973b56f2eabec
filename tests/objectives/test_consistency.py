"""Consistency, pseudo labels and copy-paste against slow references written from the formulas."""

from __future__ import annotations

import math
from collections import deque
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semidg.objectives import consistency as c
from semidg.types import IGNORE_INDEX

SHAPE = (2, 3, 4, 5)


def logs(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.log_softmax(2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)), 1)


def test_squared_distance() -> None:
    log_p, q = logs(0), logs(1).exp()
    expected = np.zeros((2, 4, 5))
    for b, k, y, x in np.ndindex(*SHAPE):
        expected[b, y, x] += (math.exp(log_p[b, k, y, x]) - q[b, k, y, x].item()) ** 2
    np.testing.assert_allclose(c.squared_distance(log_p, q).numpy(), expected, rtol=1e-5)
    assert c.squared_distance(log_p, log_p.exp()).max() == 0


def test_entropy() -> None:
    q = logs(0).exp()
    expected = np.zeros((2, 4, 5))
    for b, k, y, x in np.ndindex(*SHAPE):
        expected[b, y, x] -= q[b, k, y, x].item() * math.log(q[b, k, y, x].item())
    np.testing.assert_allclose(c.entropy(q).numpy(), expected, rtol=1e-5)
    certain = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    assert c.entropy(certain).item() == pytest.approx(0, abs=1e-6)


@given(st.integers(0, 999), st.integers(2, 6))
def test_entropy_is_largest_for_equal_probabilities(seed: int, classes: int) -> None:
    u = c.entropy(logs(seed, (1, classes, 3, 3)).exp())
    assert u.min() >= 0
    assert u.max() <= math.log(classes) + 1e-5
    assert c.entropy(torch.full((1, classes, 1, 1), 1 / classes)).item() == pytest.approx(math.log(classes))


def test_entropy_limit_rises_from_three_quarters_to_all_of_the_largest() -> None:
    limits = [c.entropy_limit(t / 10, 2) for t in range(11)]
    assert limits == sorted(limits)
    assert limits[0] == pytest.approx((0.75 + 0.25 * math.exp(-5)) * math.log(2))
    assert limits[5] == pytest.approx((0.75 + 0.25 * math.exp(-1.25)) * math.log(2))
    assert limits[10] == pytest.approx(math.log(2))
    assert c.entropy_limit(0.3, 4, 1.0) == pytest.approx(math.log(4))


def test_masked_mean() -> None:
    values, keep = torch.arange(8.0).reshape(2, 2, 2), torch.zeros(2, 2, 2, dtype=torch.bool)
    keep[0, 0, 1] = keep[1, 1, 0] = True
    assert c.masked_mean(values, keep).item() == (1 + 6) / 2
    nothing = c.masked_mean(values.requires_grad_(), torch.zeros_like(keep))
    nothing.backward()
    assert nothing.item() == 0
    assert values.grad is not None


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.9])
def test_thresholded_cross_entropy(threshold: float) -> None:
    log_p, log_q = logs(0), logs(1)
    total = 0.0
    for b, y, x in np.ndindex(2, 4, 5):
        q = log_q[b, :, y, x].exp().tolist()
        if max(q) >= threshold:
            total -= log_p[b, q.index(max(q)), y, x].item()
    target = c.pseudo_label(log_q, threshold)
    assert target.label.dtype == torch.int64
    assert c.thresholded_cross_entropy(log_p, target).item() == pytest.approx(total / 40, rel=1e-5)


def test_a_pixel_below_the_threshold_has_no_gradient() -> None:
    log_p = logs(0).requires_grad_()
    target = c.pseudo_label(logs(1), 0.8)
    assert 0 < target.keep.sum() < target.keep.numel()
    c.thresholded_cross_entropy(log_p, target).backward()
    assert log_p.grad is not None
    assert torch.equal(log_p.grad.abs().sum(1) > 0, target.keep)


def slow_largest(label: np.ndarray, classes: int) -> np.ndarray:
    """Flood fill, eight neighbours; of equal parts, the first in reading order."""
    out = np.zeros_like(label)
    for k in range(1, classes):
        left = {(int(y), int(x)) for y, x in zip(*np.where(label == k), strict=True)}
        best: set[tuple[int, int]] = set()
        for start in sorted(left):
            if start not in left:
                continue
            left.discard(start)
            part, queue = {start}, deque([start])
            while queue:
                y, x = queue.popleft()
                for n in product(range(y - 1, y + 2), range(x - 1, x + 2)):
                    if n in left:
                        left.discard(n)
                        part.add(n)
                        queue.append(n)
            if len(part) > len(best):
                best = part
        for y, x in best:
            out[y, x] = k
    return out


@given(st.integers(0, 10_000), st.integers(2, 4))
@settings(max_examples=50)
def test_largest_components(seed: int, classes: int) -> None:
    label = torch.randint(0, classes, (2, 7, 6), generator=torch.Generator().manual_seed(seed))
    result = c.largest_components(label, classes)
    np.testing.assert_array_equal(result.numpy(), [slow_largest(x, classes) for x in label.numpy()])
    assert result.dtype == label.dtype


def test_largest_component_of_nothing_is_nothing() -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert torch.equal(c.largest_components(empty, 2), empty)


def test_paste() -> None:
    inside = torch.zeros(2, 3, 3, dtype=torch.bool)
    inside[0, 1, 2] = inside[1, 0, 0] = True
    for shape in ((2, 3, 3), (2, 4, 3, 3)):
        given_, onto = torch.ones(shape), torch.zeros(shape)
        result = c.paste(inside, given_, onto)
        for at in np.ndindex(*shape):
            assert result[at] == float(inside[at[0], at[-2], at[-1]])


def slow_segmentation_loss(p: np.ndarray, target: np.ndarray, counted: np.ndarray) -> float:
    """Cross entropy + soft Dice (smooth 1) over the counted pixels, Dice by image and foreground class."""
    entropies, scores = [], []
    for b in range(len(p)):
        entropies += [-math.log(p[b, target[b, y, x], y, x]) for y, x in zip(*np.where(counted[b]), strict=True)]
        for k in range(1, p.shape[1]):
            truth = (target[b] == k) & counted[b]
            predicted = p[b, k][counted[b]].sum()
            scores.append((2 * p[b, k][truth].sum() + 1) / (predicted + truth.sum() + 1))
    return sum(entropies) / max(1, len(entropies)) + 1 - sum(scores) / len(scores)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_region_loss(alpha: float) -> None:
    g = torch.Generator().manual_seed(4)
    log_p, target = logs(0), torch.randint(0, 3, (2, 4, 5), generator=g)
    labelled = torch.rand(2, 4, 5, generator=g) < 0.6
    target[0, 0, 0], labelled[0, 0, 0] = IGNORE_INDEX, True
    known = (target != IGNORE_INDEX).numpy()
    p, y, m = log_p.exp().double().numpy(), target.numpy(), labelled.numpy()
    expected = slow_segmentation_loss(p, y, m & known)
    expected += alpha * slow_segmentation_loss(p, y, ~m & known)
    assert c.region_loss(log_p, target, labelled, alpha).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labelled", [True, False])
def test_region_loss_is_finite_where_a_region_is_empty_and_for_one_image_without_foreground(labelled: bool) -> None:
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    loss = c.region_loss(logits, target, torch.full((1, 4, 4), labelled))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
