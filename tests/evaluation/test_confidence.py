"""Variance, temperature and expected Dice against slow references and their properties."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from semidg.evaluation.confidence import (
    FLOOR,
    TEMPERATURES,
    Calibration,
    fit_empty,
    fit_expected_dice,
    fit_temperature,
    prediction_scores,
    temper,
    variance,
)


def probabilities(*shape: int, seed: int = 0, sharpness: float = 3.0) -> Tensor:
    """Random class probabilities; the classes lie in the third dimension from the end."""
    logits = sharpness * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(logits, -3)


def slow_kl(p: Tensor, q: Tensor) -> float:
    return sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("networks", [1, 2, 3])
@pytest.mark.parametrize("views", [0, 2])
def test_variance_is_the_sum_of_both_disagreements(networks: int, views: int) -> None:
    plain = probabilities(networks, 3, 4, 5)
    other = probabilities(views, networks, 3, 4, 5, seed=1) if views else None
    result = variance(plain, other)
    for y, x in ((0, 0), (3, 4), (1, 2)):
        pairs = list(permutations(range(networks), 2))
        expected = sum(slow_kl(plain[k, :, y, x], plain[j, :, y, x]) for k, j in pairs) / max(1, len(pairs))
        if other is not None:
            expected += sum(
                slow_kl(other[m, k, :, y, x], plain[k, :, y, x]) for m in range(views) for k in range(networks)
            ) / (views * networks)
        assert float(result[y, x]) == pytest.approx(expected, abs=1e-5)


def test_variance_is_zero_exactly_where_all_agree_and_finite_where_they_are_certain() -> None:
    one = probabilities(1, 2, 3, 3)
    assert float(variance(one.expand(2, -1, -1, -1), one.expand(4, 2, -1, -1, -1)).abs().max()) == 0
    first = torch.zeros(2, 2, 2)
    first[0] = 1
    sure = torch.stack([first, first.flip(0)])
    assert torch.isfinite(variance(sure)).all()
    assert float(variance(sure).min()) > 10


@given(st.integers(0, 1000), st.floats(0.3, 8))
@example(148, 2.0)  # a probability of 1e-10
def test_tempering_keeps_the_order_and_sums_to_one(seed: int, temperature: float) -> None:
    p = probabilities(4, 3, 3, seed=seed)
    q = temper(p, temperature)
    torch.testing.assert_close(q.sum(0), torch.ones(3, 3))
    assert torch.equal(q.argmax(0), p.argmax(0))
    slow = p.double().clamp_min(FLOOR) ** (1 / temperature)
    torch.testing.assert_close(q.double(), slow / slow.sum(0), atol=1e-5, rtol=0)
    assert torch.equal(temper(p, 1.0), p)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_fitted_temperature_is_the_one_that_made_the_labels(true: float) -> None:
    generator = np.random.default_rng(0)
    logits = 2 * generator.standard_normal((60_000, 3))

    def softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    labels = (softmax(logits / true).cumsum(1) > generator.random((len(logits), 1))).argmax(1)
    fitted = fit_temperature(softmax(logits), labels)
    assert fitted == pytest.approx(true, rel=0.05)


def test_fitted_temperature_is_the_best_of_a_grid_and_stays_in_bounds() -> None:
    generator = np.random.default_rng(1)
    p = generator.dirichlet([1, 1], 500)
    labels = (generator.random(500) < 0.5).astype(int)  # unrelated: the best temperature is the largest

    def nll(t: float) -> float:
        q = p ** (1 / t)
        return float(-np.log((q / q.sum(1, keepdims=True))[np.arange(500), labels]).mean())

    fitted = fit_temperature(p, labels)
    assert TEMPERATURES[0] <= fitted <= TEMPERATURES[1]
    assert nll(fitted) <= min(nll(t) for t in np.geomspace(*TEMPERATURES, 200)) + 1e-4
    assert fit_temperature(np.eye(2)[labels], labels) <= 1  # certain and right: no reason to soften


@given(st.integers(0, 10_000), st.sampled_from([2, 4]), st.sampled_from([0.3, 3.0]))
def test_score_is_the_mean_probability_of_the_predicted_pixels(seed: int, classes: int, sharpness: float) -> None:
    p = probabilities(classes, 3, 2, seed=seed, sharpness=sharpness)
    labels = p.argmax(0)
    for number, ours in enumerate(prediction_scores(p), 1):
        places = [(y, x) for y in range(3) for x in range(2) if int(labels[y, x]) == number]
        if places:
            assert ours == pytest.approx(sum(float(p[number, y, x]) for y, x in places) / len(places), abs=1e-6)
        else:
            assert ours is None


def test_expected_dice_of_certain_and_of_empty_predictions() -> None:
    sure = torch.zeros(2, 4, 4)
    sure[1, :2], sure[0, 2:] = 1, 1
    assert prediction_scores(sure) == [1]
    assert Calibration().expected_dice(sure) == 1
    empty = torch.stack([torch.full((4, 4), 0.9), torch.full((4, 4), 0.1)])
    assert prediction_scores(empty) == [None]
    assert Calibration(intercept=1.0, empty=0.25).expected_dice(empty) == 0.25
    both = torch.stack([empty[0] - 0.05, sure[1] * 0.9, torch.full((4, 4), 0.05)])  # class 1 found, class 2 not
    line = Calibration(intercept=0.1, slope=0.5, empty=0.25)
    assert line.expected_dice(both) == pytest.approx((0.1 + 0.5 * 0.9 + 0.25) / 2)


def test_worth_of_an_empty_prediction() -> None:
    assert fit_empty(np.array([]), 0.0) == 0  # every image has a lesion, and none was missed so far
    assert fit_empty(np.array([0.0, 0.0]), 0.0) == 0
    assert fit_empty(np.array([1.0, 1.0, 0.0]), 0.5) == pytest.approx(2.5 / 4)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_line_of_the_expected_dice(points: list[tuple[float, float]]) -> None:
    scores, dice = np.array(points).T
    intercept, slope = fit_expected_dice(scores, dice)
    assert slope >= 0
    assert (intercept + slope * scores).mean() == pytest.approx(dice.mean(), abs=1e-6)  # right on average
    if np.ptp(scores) > 1e-3:
        reference = np.polyfit(scores, dice, 1)
        if reference[0] > 1e-6:
            assert (slope, intercept) == pytest.approx(tuple(reference), abs=1e-4)
        else:
            assert slope == pytest.approx(0, abs=1e-5)


def test_calibration_goes_through_json_and_refuses_nonsense() -> None:
    calibration = Calibration(1.3, -0.2, 1.1, 0.1, "validation", 65)
    assert Calibration.from_dict(calibration.to_dict()) == calibration
    assert Calibration.from_dict({}) == Calibration()
    with pytest.raises(ValueError, match="not positive"):
        Calibration.from_dict({"temperature": 0.0})
    with pytest.raises(ValueError, match="finite"):
        Calibration.from_dict({"slope": float("nan")})
    with pytest.raises(TypeError):
        Calibration.from_dict({"code": "x"})


@given(st.floats(-2, 2), st.floats(0, 5), st.integers(0, 100))
def test_expected_dice_lies_between_0_and_1(intercept: float, slope: float, seed: int) -> None:
    value = Calibration(1.5, intercept, slope).expected_dice(probabilities(2, 4, 4, seed=seed))
    assert 0 <= value <= 1
