"""Boundary terms against slow references and by their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from semidg.objectives.boundary import boundary_loss, edge_loss, edge_target, hausdorff_loss, signed_distance
from semidg.types import IGNORE_INDEX


def labels_of(seed: int, classes: int = 3, shape: tuple[int, ...] = (2, 7, 9), ignored: float = 0.1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, shape, generator=g)
    return labels.where(torch.rand(shape, generator=g) >= ignored, IGNORE_INDEX)


def blob(size: int = 16) -> Tensor:
    """A disk off the centre, (1, size, size), which stays inside for shifts up to 3."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((y - 7) ** 2 + (x - 8) ** 2 < 14).long()[None]


def logits_of(labels: Tensor, classes: int = 2, sure: float = 20.0) -> Tensor:
    """Logits that say the labels."""
    return sure * torch.nn.functional.one_hot(labels.clamp_max(classes - 1), classes).movedim(-1, 1).float()


def slow_edge(labels: NDArray[np.int64], radius: int) -> NDArray[np.bool_]:
    out = np.zeros(labels.shape, bool)
    for b, y, x in np.ndindex(*labels.shape):
        around = labels[b, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
        classes = set(around.ravel().tolist()) - {IGNORE_INDEX}
        out[b, y, x] = labels[b, y, x] != IGNORE_INDEX and len(classes) > 1
    return out


def slow_distance(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    batch, height, width = labels.shape
    out = np.zeros((batch, classes - 1, height, width))
    for b, c, y, x in np.ndindex(*out.shape):
        inside = [(i, j) for i, j in np.ndindex(height, width) if labels[b, i, j] == c + 1]
        outside = [(i, j) for i, j in np.ndindex(height, width) if labels[b, i, j] not in (c + 1, IGNORE_INDEX)]
        if not inside or not outside or labels[b, y, x] == IGNORE_INDEX:
            continue
        others, sign = (outside, -1) if labels[b, y, x] == c + 1 else (inside, 1)
        out[b, c, y, x] = sign * min(math.hypot(y - i, x - j) for i, j in others) / math.hypot(height, width)
    return out


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_edges_equal_the_slow_reference(seed: int, radius: int) -> None:
    labels = labels_of(seed)
    # a mostly constant map as well, so that not every pixel is an edge
    labels[1] = torch.where(labels_of(seed + 9)[1] == 2, labels[1], 1)
    labels[1, :4] = 0
    assert np.array_equal(edge_target(labels, radius).numpy(), slow_edge(labels.numpy(), radius))


def test_edge_of_a_square_is_two_pixels_wide() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 2:6, 2:6] = 1
    expected = torch.zeros(1, 8, 8, dtype=torch.bool)
    expected[0, 1:7, 1:7] = True
    expected[0, 3:5, 3:5] = False
    assert torch.equal(edge_target(labels), expected)


@pytest.mark.parametrize("seed", range(3))
def test_edge_loss_equals_the_slow_reference(seed: int) -> None:
    labels = labels_of(seed, classes=2, shape=(3, 6, 6))
    labels[2] = 0  # an image without an edge
    labels[1, :4] = 0
    logits = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(seed))
    p, edge = torch.sigmoid(logits).double().numpy(), slow_edge(labels.numpy(), 1)
    known = labels.numpy() != IGNORE_INDEX
    balanced, dice = [], []
    for b in range(3):
        kinds: dict[bool, list[float]] = {True: [], False: []}
        overlap = total = 0.0
        for y, x in np.ndindex(6, 6):
            if known[b, y, x]:
                e = bool(edge[b, y, x])
                kinds[e].append(-math.log(p[b, y, x] if e else 1 - p[b, y, x]))
                overlap, total = overlap + p[b, y, x] * e, total + p[b, y, x] + e
        means = [sum(values) / len(values) for values in kinds.values() if values]
        balanced.append(sum(means) / len(means))
        dice.append((2 * overlap + 1) / (total + 1))
    expected = sum(balanced) / 3 + 1 - sum(dice) / 3
    assert edge_loss(logits, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_signed_distance_equals_brute_force(seed: int) -> None:
    labels = labels_of(seed, classes=3, shape=(2, 5, 6), ignored=0.15 * seed)
    labels[1] = labels[1].where(labels[1] != 2, 0)  # class 2 is missing in one image
    np.testing.assert_allclose(signed_distance(labels, 3).numpy(), slow_distance(labels.numpy(), 3), atol=1e-6)


@given(st.integers(0, 10**6), st.integers(0, 2))
@settings(max_examples=30)
def test_signed_distance_has_the_sign_of_the_side_and_a_scale_of_one(seed: int, absent: int) -> None:
    labels = labels_of(seed, classes=2)
    if absent:
        labels = labels.where(labels == IGNORE_INDEX, absent - 1)
    distance = signed_distance(labels, 2)[:, 0]
    assert distance.abs().max() < 1
    if absent:  # without the class, or nothing but the class: no boundary
        assert distance.abs().max() == 0
    else:
        assert torch.equal(distance < 0, labels == 1)
        assert torch.equal(distance > 0, labels == 0)


def test_boundary_loss_is_the_mean_of_probability_times_distance() -> None:
    labels = labels_of(1, classes=3)
    distance = signed_distance(labels, 3)
    logits = torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    p, total, count = torch.softmax(logits.double(), 1).numpy(), 0.0, 0
    for b, y, x in np.ndindex(2, 7, 9):
        if labels[b, y, x] != IGNORE_INDEX:
            for c in (1, 2):
                total, count = total + p[b, c, y, x] * float(distance[b, c - 1, y, x]), count + 1
    assert boundary_loss(logits, labels, distance).item() == pytest.approx(total / count, rel=1e-4)


@given(st.integers(-3, 3), st.integers(-3, 3))
@settings(max_examples=49)
def test_the_truth_has_a_smaller_boundary_loss_than_any_shift_of_it(dy: int, dx: int) -> None:
    truth = blob()
    shifted = truth.roll((dy, dx), (1, 2))
    distance = signed_distance(truth, 2)
    own, other = (boundary_loss(logits_of(m), truth, distance).item() for m in (truth, shifted))
    assert own < 0
    assert own == other if dy == dx == 0 else own < other


def test_boundary_loss_grows_with_the_distance_of_an_error() -> None:
    truth = blob()
    distance = signed_distance(truth, 2)
    near, far = truth.clone(), truth.clone()
    near[0, 7, 13] = 1
    far[0, 15, 15] = 1
    losses = [boundary_loss(logits_of(m), truth, distance).item() for m in (truth, near, far)]
    assert losses == sorted(losses)


@pytest.mark.parametrize("seed", range(3))
def test_hausdorff_equals_the_slow_reference(seed: int) -> None:
    labels = labels_of(seed, classes=3, ignored=0)
    labels[1] = labels[1].clamp_max(1)  # class 2 is missing in one image
    logits = 2 * torch.randn(2, 3, 7, 9, generator=torch.Generator().manual_seed(seed))
    p, total = torch.softmax(logits, 1).numpy(), 0.0
    for b, c in np.ndindex(2, 2):
        truth = labels[b].numpy() == c + 1
        field = sum(
            slow_distance(m.astype(np.int64)[None], 2)[0, 0] ** 2 * (49 + 81) for m in (truth, p[b, c + 1] > 0.5)
        )
        total += float(((p[b, c + 1] - truth) ** 2 * field).mean()) / 4
    assert hausdorff_loss(logits, labels).item() == pytest.approx(math.log(1 + total), rel=1e-4)


def test_hausdorff_is_least_for_the_truth() -> None:
    truth = blob()
    losses = [hausdorff_loss(logits_of(truth.roll(k, 2)), truth).item() for k in range(4)]
    assert losses[0] == pytest.approx(0, abs=1e-5)
    assert losses == sorted(losses)


def loss_named(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    if name == "edge":
        return edge_loss(logits[:, 0], labels)
    if name == "boundary":
        return boundary_loss(logits, labels, signed_distance(labels, logits.shape[1]))
    return hausdorff_loss(logits, labels)


@pytest.mark.parametrize("name", ["edge", "boundary", "hausdorff"])
def test_ignored_pixels_do_not_count(name: str) -> None:
    labels = blob()
    labels[0, 6:9, 6:12] = IGNORE_INDEX
    logits = torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = loss_named(name, logits, labels)
    changed = torch.where(labels[:, None] == IGNORE_INDEX, 5.0, logits.detach())
    assert loss_named(name, changed, labels).item() == pytest.approx(loss.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().sum() > 0
    assert (gradient * (labels == IGNORE_INDEX).unsqueeze(1)).abs().sum() == 0


@pytest.mark.parametrize("name", ["edge", "boundary", "hausdorff"])
@pytest.mark.parametrize("value", [0, 1, IGNORE_INDEX])
def test_an_image_of_one_class_or_unknown_is_finite(name: str, value: int) -> None:
    labels = torch.full((1, 8, 8), value)
    for scale in (1.0, 200.0):
        logits = scale * torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        logits.requires_grad_()
        loss = loss_named(name, logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        if value == IGNORE_INDEX or (name == "boundary"):
            assert loss.item() == pytest.approx(0, abs=1e-6)
