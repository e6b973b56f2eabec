"""The benchmark of planted errors: what it plants, and the area under the ROC curve it takes of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from benchmarks.plant_errors import KINDS, diameter, plant, shifted
from benchmarks.planted import weighted_auroc
from benchmarks.planted_scores import cleanlab_scores
from hypothesis import given
from hypothesis import strategies as st

from semidg.errors import ConfigError
from semidg.experiment.scoring import overlap_dice


def ellipses(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        rows, columns = np.mgrid[: rng.integers(60, 90), : rng.integers(60, 90)]
        row, column = rng.uniform(25, 35, 2)
        inside = np.hypot((rows - row) / rng.uniform(6, 14), (columns - column) / rng.uniform(6, 14)) <= 1
        masks.append(inside.astype(np.uint8))
    return masks


@given(count=st.integers(2, 40), share=st.sampled_from([0.05, 0.1, 0.2]), seed=st.integers(0, 99))
def test_the_share_is_planted_and_everything_else_is_left_alone(count: int, share: float, seed: int) -> None:
    clean = ellipses(count, seed)
    masks, kinds = plant(clean, share, seed)
    assert sum(bool(kind) for kind in kinds) == round(share * count)
    assert kinds.count("swapped") % 2 == 0
    for mask, old, kind in zip(masks, clean, kinds, strict=True):
        assert mask.shape == old.shape
        assert set(np.unique(mask)) <= {0, 1}
        assert np.array_equal(mask, old) == (not kind)
    again = plant(clean, share, seed)
    assert again[1] == kinds
    assert all(np.array_equal(a, b) for a, b in zip(again[0], masks, strict=True))


def test_each_kind_is_what_it_says() -> None:
    clean = ellipses(60, 1)
    masks, kinds = plant(clean, 1.0, 0)
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 10)
    for mask, old, kind in zip(masks, clean, kinds, strict=True):
        if kind == "emptied":
            assert not mask.any()
        if kind == "shifted":
            assert mask.sum() == old.sum()
            centres = [np.argwhere(m).mean(0) for m in (mask, old)]
            assert 0.28 < np.hypot(*(centres[0] - centres[1])) / diameter(old) < 0.52
        if kind == "dilated":
            assert (mask >= old).all()
            assert diameter(mask) == pytest.approx(1.3 * diameter(old), rel=0.1)
        if kind == "eroded":
            assert (mask <= old).all()
            assert mask.any()
            assert diameter(mask) == pytest.approx(0.7 * diameter(old), rel=0.15)
        if kind:
            assert overlap_dice(mask, old, 2) < 0.95


def test_a_mask_without_a_lesion_is_left_alone_and_a_shift_may_leave_the_picture() -> None:
    empty = np.zeros((20, 20), np.uint8)
    masks, kinds = plant([empty, *ellipses(3, 0), empty], 0.6, 0)
    assert (kinds[0], kinds[-1]) == ("", "")
    assert not masks[0].any()
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 1] = mask[3, 4] = 1
    assert np.argwhere(shifted(mask, -1, -1)).tolist() == [[0, 0], [2, 3]]
    assert np.argwhere(shifted(mask, 1, 2)).tolist() == [[2, 3]]


@given(seed=st.integers(0, 999), bad=st.integers(1, 6), good=st.integers(1, 9))
def test_weighted_auroc_is_the_count_over_pairs(seed: int, bad: int, good: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 4, bad).astype(float), rng.integers(1, 5, good).astype(float)
    weights = rng.integers(0, 3, (5, bad)).astype(float), rng.integers(0, 3, (5, good)).astype(float)
    for value, w, v in zip(weighted_auroc(low, high, *weights), *weights, strict=True):
        repeated = [
            (a, b) for a, i in zip(low, w, strict=True) for b, j in zip(high, v, strict=True) for _ in range(int(i * j))
        ]
        if not repeated:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(np.mean([1.0 if a < b else 0.5 if a == b else 0.0 for a, b in repeated]))


def test_cleanlab_gives_a_score_a_mask() -> None:
    pytest.importorskip("cleanlab")
    p = np.full((2, 8, 8), 0.01, np.float32)
    p[:, 2:5, 2:5] = 0.99
    probabilities = np.stack([1 - p, p], 1)
    labels = (p > 0.5).astype(np.int64)
    labels[1] = np.roll(labels[1], 2, 0)
    for method in ("softmin", "num_pixel_issues"):
        right, wrong = cleanlab_scores(labels, probabilities, method)
        assert 1 >= right > wrong >= 0


def test_a_missing_cleanlab_is_said_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cleanlab", "cleanlab.segmentation", "cleanlab.segmentation.rank"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"cleanlab: pip install 'semidg\[audit\]'"):
        cleanlab_scores(np.zeros((1, 2, 2), np.int64), np.full((1, 2, 2, 2), 0.5, np.float32), "softmin")
