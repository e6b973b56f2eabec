"""Calibration of pixels, risk and coverage against slow references and known cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semidg.evaluation.calibration import (
    BINS,
    PixelSums,
    boundary_band,
    confidence_summary,
    ece,
    pearson,
    referral,
    risk_coverage,
)
from semidg.evaluation.confidence import Calibration

Array = np.ndarray


def image(seed: int, size: int = 24, sharpness: float = 2.0) -> tuple[torch.Tensor, Array, Array]:
    """(probabilities (2, size, size), label map, truth drawn from the probabilities): calibrated by construction."""
    generator = np.random.default_rng(seed)
    logit = sharpness * generator.standard_normal((size, size))
    p = 1 / (1 + np.exp(-logit))
    truth = (generator.random((size, size)) < p).astype(np.uint8)
    both = torch.from_numpy(np.stack([1 - p, p]).astype(np.float32))
    return both, both.argmax(0).numpy(), truth


def slow_ece_and_brier(images: list[tuple[Array, Array, Array]]) -> tuple[float, float]:
    """Pixel by pixel; every image weighs the same."""
    sums, brier = [[0.0, 0.0, 0.0] for _ in range(BINS)], []
    for p, prediction, truth in images:
        known = [(y, x) for y, x in np.ndindex(truth.shape) if truth[y, x] != 255]
        total = 0.0
        for y, x in known:
            confidence = float(p[:, y, x].max())
            b = min(BINS - 1, int((confidence - 0.5) / 0.5 * BINS))
            for k, value in enumerate((1.0, confidence, float(prediction[y, x] == truth[y, x]))):
                sums[b][k] += value / len(known)
            total += (float(p[1, y, x]) - float(truth[y, x])) ** 2
        brier.append(total / len(known))
    return sum(abs(a - c) for _, c, a in sums) / len(images), float(np.mean(brier))


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_ece_and_brier_follow_their_formulas(temperature: float) -> None:
    pixels = PixelSums(Calibration(temperature))
    slow: dict[str, list[tuple[Array, Array, Array]]] = {"": [], "_uncalibrated": []}
    for seed in range(3):
        p, prediction, truth = image(seed, 12 + seed)
        truth[:3, :4] = 255 if seed else truth[:3, :4]
        pixels.add(p, prediction, truth)
        q = p.double() ** (1 / temperature)
        slow[""].append(((q / q.sum(0)).numpy(), prediction, truth))
        slow["_uncalibrated"].append((p.numpy(), prediction, truth))
    summary = pixels.summary(np.array(["a", "b", "c"]), 2)
    for name, images in slow.items():
        expected = slow_ece_and_brier(images)
        assert summary[f"ece{name}"]["value"] == pytest.approx(expected[0], abs=1e-4)
        assert summary[f"brier{name}"]["value"] == pytest.approx(expected[1], abs=1e-5)
        rows = summary[f"reliability{name}"]
        assert sum(row["weight"] for row in rows) == pytest.approx(1)
        assert sum(r["weight"] * abs(r["accuracy"] - r["confidence"]) for r in rows) == pytest.approx(
            expected[0], abs=1e-4
        )


def test_calibrated_pixels_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    honest, boastful = PixelSums(Calibration()), PixelSums(Calibration(0.4))  # T < 1 sharpens
    for seed in range(20):
        for pixels in (honest, boastful):
            pixels.add(*image(seed, 40))
    groups = np.arange(20)
    good, bad = (p.summary(groups, 2)["ece"] for p in (honest, boastful))
    assert good["value"] < 0.01
    assert bad["value"] > 0.05
    assert good["interval"][1] < bad["interval"][0]


@given(st.integers(0, 1000), st.integers(1, 4))
def test_boundary_band_is_what_a_dilated_boundary_covers(seed: int, width: int) -> None:
    generator = np.random.default_rng(seed)
    truth = np.kron(generator.integers(0, 3, (4, 5)), np.ones((4, 4), int)).astype(np.uint8)
    slow = np.zeros(truth.shape, bool)
    for y, x in np.ndindex(truth.shape):
        near = truth[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        slow[y, x] = any((near == k).any() and (near != k).any() for k in (1, 2))
    np.testing.assert_array_equal(boundary_band(truth, 3, width), slow)


@pytest.mark.parametrize("value", [0, 1])
def test_an_image_of_one_class_has_no_boundary(value: int) -> None:
    truth = np.full((9, 9), value, np.uint8)
    assert not boundary_band(truth, 2).any()
    pixels = PixelSums(Calibration())
    p = torch.full((2, 9, 9), 0.5)
    pixels.add(p, p.argmax(0).numpy(), truth)
    summary = pixels.summary(np.array(["a"]), 2)
    assert summary["boundary_ece"] == {"value": None, "interval": None}
    assert summary["ece"]["interval"] is None  # one group: nothing to resample


def test_ece_of_nothing_wrong_is_zero() -> None:
    table = np.zeros((2, BINS, 3))
    table[:, -1] = 1
    assert ece(table) == 0


values = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


@given(values)
def test_risk_coverage_by_counting(points: list[tuple[float, float]]) -> None:
    expected, dice = np.array(points).T
    result = risk_coverage(expected, dice)
    order = sorted(range(len(dice)), key=lambda k: (-expected[k], k))
    risks = [1 - sum(dice[i] for i in order[:k]) / k for k in range(1, len(dice) + 1)]
    assert result["aurc"] == pytest.approx(sum(risks) / len(risks), abs=1e-9)
    assert result["aurc_oracle"] <= result["aurc"] + 1e-9
    assert result["aurc_oracle"] <= result["aurc_random"] + 1e-9
    assert result["coverage"][-1] == 1
    assert result["dice"][-1] == pytest.approx(dice.mean())
    for coverage, mean in zip(result["coverage"], result["dice"], strict=True):
        k = round(coverage * len(dice))
        assert mean == pytest.approx(sum(dice[i] for i in order[:k]) / k, abs=1e-9)


def test_referral_sends_the_least_certain() -> None:
    dice = np.linspace(0, 1, 11)[1:]
    groups = np.arange(10)
    perfect = referral(dice, dice, groups, 0.2)
    assert perfect["n_kept"] == 8
    assert perfect["dice_referred"] == pytest.approx(0.15)
    assert perfect["dice_kept"] == pytest.approx(np.mean(dice[2:]))
    assert perfect["interval_kept"][0] < perfect["dice_kept"] < perfect["interval_kept"][1]
    wrong = referral(-dice, dice, groups, 0.2)
    assert wrong["dice_kept"] < dice.mean()


def test_summary_is_complete_and_marks_what_was_fitted_on_the_same_part() -> None:
    pixels = PixelSums(Calibration(1.2, 0.0, 1.0, 0.0, "validation", 12))
    rows = []
    for seed in range(12):
        p, prediction, truth = image(seed)
        pixels.add(p, prediction, truth)
        rows.append({"group": f"g{seed // 2}", "dice": seed / 12, "expected_dice": (seed / 12) ** 2})
    cases = pd.DataFrame(rows)
    here, elsewhere = (confidence_summary(cases, pixels, part) for part in ("validation", "test"))
    assert (here["in_sample"], elsewhere["in_sample"]) == (True, False)
    assert here["calibrated_on"] == {"part": "validation", "n": 12}
    assert here["expected_dice"]["spearman"]["value"] == pytest.approx(1)
    low, high = here["expected_dice"]["pearson"]["interval"]
    assert low <= here["expected_dice"]["pearson"]["value"] <= high
    assert here["expected_dice"]["bias"]["value"] == pytest.approx(float((cases.expected_dice - cases.dice).mean()))
    assert [row["referred"] for row in here["referral"]] == [0.1, 0.2, 0.3, 0.5]
    plain = confidence_summary(cases, PixelSums(Calibration(), pixels.reliability, pixels.brier), None)
    assert plain["calibrated_on"] is None
    assert not plain["in_sample"]


def test_correlation_that_does_not_exist_is_null() -> None:
    assert np.isnan(pearson(np.ones(3), np.arange(3.0)))
    pixels = PixelSums(Calibration())
    for seed in range(3):
        pixels.add(*image(seed))
    cases = pd.DataFrame({"group": list("abc"), "dice": [0.5, 0.6, 0.7], "expected_dice": [0.5, 0.5, 0.5]})
    result = confidence_summary(cases, pixels, "test")["expected_dice"]
    assert result["pearson"] == {"value": None, "interval": None}
    assert result["mae"]["value"] == pytest.approx(0.1)
