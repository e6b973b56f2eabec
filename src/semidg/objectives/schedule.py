"""Schedules: pure functions of the progress of training."""

from __future__ import annotations

import math

from semidg.config import OptimiserConfig
from semidg.method_config import RampConfig


def ramp_weight(fraction: float, config: RampConfig) -> float:
    """w(t): 0 up to ``warmup``, then exp(-5 (1 - r)^2) times ``maximum``, with r rising from 0 to 1 at ``end``.

    The sigmoid-shaped ramp is the field's usual one (Laine and Aila, ICLR 2017).
    """
    if fraction < config.warmup:
        return 0.0
    if fraction >= config.end:
        return config.maximum
    r = (fraction - config.warmup) / (config.end - config.warmup)
    return config.maximum * math.exp(-5 * (1 - r) ** 2)


def learning_rate_factor(step: int, total: int, config: OptimiserConfig) -> float:
    """Factor of the learning rate at a step: linear warm-up, then constant, poly or cosine down to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    fraction = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    if config.schedule == "poly":
        return float((1 - min(1.0, fraction)) ** config.power)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, fraction)))
    return 1.0
