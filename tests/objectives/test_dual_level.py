"""Section 4: between the views of a network, and between the networks (equations 8 and 9)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semidg.objectives.confidence import log_average
from semidg.objectives.dual_level import network_loss, view_loss
from semidg.objectives.supervised import soft_dice_loss
from semidg.types import IGNORE_INDEX


def logs(seed: int) -> Tensor:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.log_softmax(logits, 1)


def slow_mean_kl(p: Tensor, q: Tensor) -> float:
    total = 0.0
    for index in torch.cartesian_prod(*(torch.arange(n) for n in (2, 4, 5))).tolist():
        b, y, x = index
        total += sum(float(p[b, c, y, x] * (p[b, c, y, x] / q[b, c, y, x]).log()) for c in range(3))
    return total / 40


def test_view_loss_is_cross_entropy_both_ways() -> None:
    weak, strong = logs(0), logs(1)
    label_weak, label_strong = weak.argmax(1), strong.argmax(1)
    expected = F.nll_loss(strong, label_weak) + F.nll_loss(weak, label_strong)
    torch.testing.assert_close(view_loss(weak, strong, label_weak, label_strong), expected)


def test_one_direction_leaves_the_weak_view_without_gradient() -> None:
    weak, strong = logs(0).requires_grad_(), logs(1).requires_grad_()
    loss = view_loss(weak, strong, weak.argmax(1), strong.argmax(1), "weak_to_strong")
    torch.testing.assert_close(loss, F.nll_loss(strong, weak.argmax(1)))
    gradient_weak, gradient_strong = torch.autograd.grad(loss, (weak, strong), allow_unused=True)
    assert gradient_weak is None
    assert gradient_strong is not None


def test_soft_dice_can_be_added_and_sees_kept_labels_only() -> None:
    weak, strong = logs(0), logs(1)
    label = weak.argmax(1)
    plain = view_loss(weak, strong, label, label, "weak_to_strong")
    both = view_loss(weak, strong, label, label, "weak_to_strong", dice=0.5)
    torch.testing.assert_close(both - plain, 0.5 * soft_dice_loss(strong.exp(), label))
    keep = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    part = view_loss(weak, strong, label, label, "weak_to_strong", dice=1.0, keep=keep)
    entropy = (F.nll_loss(strong, label, reduction="none") * keep).mean()
    torch.testing.assert_close(part, entropy + soft_dice_loss(strong.exp(), label.where(keep, IGNORE_INDEX)))


def test_network_loss_equals_equations_8_and_9() -> None:
    weak, strong = (logs(0), logs(1)), (logs(2), logs(3))
    average = (log_average(weak[0], strong[0]), log_average(weak[1], strong[1]))
    a, b = ((w.exp() + s.exp()) / 2 for w, s in zip(weak, strong, strict=True))
    expected = slow_mean_kl(a, b) + slow_mean_kl(b, a)
    assert network_loss(weak, strong, average).item() == pytest.approx(expected)


def test_cross_view_form_compares_strong_with_the_other_networks_weak_view() -> None:
    weak, strong = (logs(0), logs(1)), (logs(2), logs(3))
    expected = slow_mean_kl(strong[1].exp(), weak[0].exp()) + slow_mean_kl(strong[0].exp(), weak[1].exp())
    assert network_loss(weak, strong, weak, "cross_view").item() == pytest.approx(expected)


def test_equal_networks_have_no_loss_between_them() -> None:
    same = (logs(0), logs(0))
    assert network_loss(same, same, same).item() == 0
    assert network_loss(same, same, same, "cross_view").item() == 0
