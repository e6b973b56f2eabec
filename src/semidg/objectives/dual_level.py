"""Dual-level perception (METHOD section 4): consistency between the views of one network, and between the networks."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from semidg.objectives.confidence import cross_entropy, kl_divergence


def view_loss(
    log_weak: Tensor,
    log_strong: Tensor,
    label_weak: Tensor,
    label_strong: Tensor,
    direction: Literal["both", "weak_to_strong"] = "both",
    keep: Tensor | None = None,
) -> Tensor:
    """Cross pseudo supervision between the two views of one network (the report's 4.1(3)).

    log_weak, log_strong: log P_O^k and log P_F^k, (B, K, H, W). label_weak, label_strong: their one-hot class numbers,
    (B, H, W) int64, without gradient: label_weak teaches the strong view, label_strong the weak one.
    keep: (B, H, W) bool, weak labels to use (default all). Returns the mean over pixels.
    """
    to_strong = cross_entropy(log_strong, label_weak)
    if keep is not None:
        to_strong = to_strong * keep
    if direction == "weak_to_strong":
        return to_strong.mean()
    return to_strong.mean() + cross_entropy(log_weak, label_strong).mean()


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
