"""Ramp and learning rate: pure functions of the progress."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semidg.config import OptimiserConfig
from semidg.method_config import RampConfig
from semidg.objectives.schedule import learning_rate_factor, ramp_weight


def test_ramp_is_zero_then_rises_then_stays() -> None:
    ramp = RampConfig(warmup=0.1, end=0.4, maximum=3.0)
    assert ramp_weight(0.0, ramp) == ramp_weight(0.0999, ramp) == 0
    assert ramp_weight(0.25, ramp) == pytest.approx(3 * math.exp(-5 * 0.25))
    assert ramp_weight(0.4, ramp) == ramp_weight(1.0, ramp) == 3


def test_report_schedule_is_a_step() -> None:
    """21 of 60 epochs supervised, then w = 1."""
    ramp = RampConfig(warmup=0.35, end=0.35, maximum=1.0)
    assert [ramp_weight(f, ramp) for f in (0.349, 0.35, 0.9)] == [0, 1, 1]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_ramp_never_falls(a: float, b: float, warmup: float, end: float) -> None:
    ramp = RampConfig(warmup=warmup, end=end)
    low, high = sorted((a, b))
    assert 0 <= ramp_weight(low, ramp) <= ramp_weight(high, ramp) <= 1


@pytest.mark.parametrize("schedule", ["constant", "poly", "cosine"])
def test_learning_rate_warms_up_then_falls(schedule: str) -> None:
    config = OptimiserConfig.model_validate({"schedule": schedule, "warmup_steps": 10})
    factors = [learning_rate_factor(step, 100, config) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    assert factors[100] == pytest.approx(1.0 if schedule == "constant" else 0.0)


def test_poly_exponent() -> None:
    config = OptimiserConfig(schedule="poly", power=0.9, warmup_steps=0)
    assert learning_rate_factor(50, 100, config) == pytest.approx(0.5**0.9)
