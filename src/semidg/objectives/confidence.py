"""Confidence-aware cross pseudo supervision, "EPL" (METHOD section 3; Yao, Hu, Li, AAAI 2022, equations 3-5)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from semidg import ranks

#: Probabilities below this are raised to it wherever a logarithm is taken.
FLOOR = 1e-7

Confidence = Literal["pixel", "scalar", "none"]


def log_average(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log P_E = log((P_O + P_F) / 2) from log-probabilities: probabilities are averaged, not logits (eq. 6, 7)."""
    return torch.logaddexp(log_p, log_q) - math.log(2)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """sum_c P log(P / Q) a pixel. log_p, log_q: (B, K, H, W) log-probabilities; returns (B, H, W), finite, >= 0."""
    low = math.log(FLOOR)
    return (log_p.exp() * (log_p.clamp_min(low) - log_q.clamp_min(low))).sum(1)


def variance(log_weak: Tensor, log_strong: Tensor) -> Tensor:
    """V_k = sum_c P_F^k log(P_F^k / P_O^k), the disagreement of one network's two views; (B, H, W)."""
    return kl_divergence(log_strong, log_weak)


def cross_entropy(log_p: Tensor, label: Tensor) -> Tensor:
    """-log P[label] a pixel. log_p: (B, K, H, W); label: (B, H, W) int64; returns (B, H, W)."""
    return -log_p.gather(1, label.unsqueeze(1)).squeeze(1).clamp_min(math.log(FLOOR))


def confidence_aware_loss(
    log_average_taught: Tensor,
    label: Tensor,
    variance_teaching: Tensor,
    confidence: Confidence = "pixel",
    detach: bool = False,
    keep: Tensor | None = None,
) -> Tensor:
    """One direction of L_cacps: mean over pixels of exp(-V_1) CE(P_E^2, Y_1) + V_1.

    log_average_taught: log P_E of the network that learns, (B, K, H, W). label: Y of the network that teaches,
    (B, H, W) int64, without gradient. variance_teaching: V of the network that teaches, (B, H, W).
    confidence: "pixel" weighs each pixel (the paper); "scalar" is <exp(-V)> <CE> + <V> with means over the whole batch
    (the published code); "none" is plain cross pseudo supervision.
    detach: no gradient through V. keep: (B, H, W) bool, pseudo labels to use (default all).
    """
    entropy = cross_entropy(log_average_taught, label)
    if keep is not None:
        entropy = entropy * keep
    if confidence == "none":
        return entropy.mean()
    v = variance_teaching.detach() if detach else variance_teaching
    if confidence == "scalar":
        return ranks.mean(torch.exp(-v).mean()) * ranks.mean(entropy.mean()) + v.mean()
    return (torch.exp(-v) * entropy + v).mean()
