"""The benchmarks of prediction and growth run; what they measure here is not looked at."""

from __future__ import annotations

import math

import pytest

from benchmarks import growth, predict, ray_workers


def test_predict_is_held_against_the_forward() -> None:
    found = predict.figures(quick=True)
    assert [one.name for one in found] == ["predict over forward", "masks alone over forward"]
    assert [one.target for one in found] == [predict.TARGET, None]
    assert all(one.median > 0 and not one.at_most for one in found)
    assert set(found[0].details["images a second"]) == {"forward", "predict", "masks"}


def test_two_ray_workers_are_held_against_one() -> None:
    pytest.importorskip("ray")
    (found,) = ray_workers.figures(quick=True)
    assert found.target == ray_workers.TARGET
    assert found.median > 0


def test_growth_has_an_exponent_for_each_stage_and_for_steps() -> None:
    found = growth.figures(quick=True)
    names = [one.name.partition(":")[0] for one in found]
    assert names == [*growth.STAGES, "step", "step"]
    assert all(math.isfinite(one.median) for one in found)
    assert all(len(one.details["seconds"]) == len(one.details["peak MB"]) == 2 for one in found)


def test_the_exponent_is_the_slope_of_the_logarithms() -> None:
    assert growth.exponent([10, 20, 40], [3, 12, 48]) == pytest.approx(2)
