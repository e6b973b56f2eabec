"""Dual-level perception (METHOD section 4): consistency between the views of one network, and between the networks."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from semidg.objectives.confidence import cross_entropy, kl_divergence
from semidg.objectives.supervised import soft_dice_loss
from semidg.types import IGNORE_INDEX


def view_loss(
    log_weak: Tensor,
    log_strong: Tensor,
    label_weak: Tensor,
    label_strong: Tensor,
    direction: Literal["both", "weak_to_strong"] = "both",
    dice: float = 0.0,
    keep: Tensor | None = None,
) -> Tensor:
    """Cross pseudo supervision between the two views of one network (the report's 4.1(3)).

    log_weak, log_strong: log P_O^k and log P_F^k, (B, K, H, W). label_weak, label_strong: their one-hot class numbers,
    (B, H, W) int64, without gradient: label_weak teaches the strong view, label_strong the weak one.
    keep: (B, H, W) bool, weak labels to use (default all). The cross entropy is a mean over all pixels; ``dice``
    times a soft Dice loss against the same labels is added to it (0 in the report).
    """
    loss = _taught_by(log_strong, label_weak, dice, keep)
    return loss if direction == "weak_to_strong" else loss + _taught_by(log_weak, label_strong, dice, None)


def _taught_by(log_p: Tensor, label: Tensor, dice: float, keep: Tensor | None) -> Tensor:
    entropy = cross_entropy(log_p, label)
    loss = (entropy if keep is None else entropy * keep).mean()
    if dice:
        target = label if keep is None else label.where(keep, IGNORE_INDEX)
        loss = loss + dice * soft_dice_loss(log_p.exp(), target)
    return loss


def network_loss(
    log_weak: tuple[Tensor, Tensor],
    log_strong: tuple[Tensor, Tensor],
    log_average: tuple[Tensor, Tensor],
    between: Literal["averaged", "cross_view"] = "averaged",
) -> Tensor:
    """KL divergences between the networks, mean over pixels; each pair holds (B, K, H, W) log-probabilities.

    averaged: V_12 + V_21 = KL(P_E^1 || P_E^2) + KL(P_E^2 || P_E^1) (equations 8, 9).
    cross_view: KL(P_F^2 || P_O^1) + KL(P_F^1 || P_O^2), what the report's code computes.
    """
    if between == "averaged":
        return (kl_divergence(log_average[0], log_average[1]) + kl_divergence(log_average[1], log_average[0])).mean()
    return (kl_divergence(log_strong[1], log_weak[0]) + kl_divergence(log_strong[0], log_weak[1])).mean()
