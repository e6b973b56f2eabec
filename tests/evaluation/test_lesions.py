"""Lesion-wise detection: components, the matching of pairs, and images with none, one and several lesions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from semidg.evaluation.lesions import MATCH_IOU, lesion_counts


def boxes(*places: tuple[int, int, int, int], shape: tuple[int, int] = (20, 40)) -> np.ndarray:
    """A mask with rectangles (top, left, height, width)."""
    result = np.zeros(shape, bool)
    for top, left, height, width in places:
        result[top : top + height, left : left + width] = True
    return result


A, B, C = (2, 2, 6, 6), (2, 12, 6, 6), (2, 22, 6, 6)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        pytest.param([], [], (0, 0, 0), id="nothing to find, nothing said"),
        pytest.param([A, B], [], (0, 0, 2), id="false alarms"),
        pytest.param([], [A, B], (2, 0, 0), id="all missed"),
        pytest.param([A], [A], (1, 1, 0), id="one, found"),
        pytest.param([A, B], [A], (1, 1, 1), id="one found, one false"),
        pytest.param([A], [A, B, C], (3, 1, 0), id="one of three"),
        pytest.param([B, C], [A, B], (2, 1, 1), id="one found, one missed, one false"),
        pytest.param([(2, 2, 6, 16)], [A, B], (2, 1, 0), id="one blob over two finds one"),
        pytest.param([(2, 2, 6, 2), (2, 5, 6, 3)], [A], (1, 1, 1), id="one in two pieces is found once"),
        pytest.param([(7, 7, 6, 6)], [A], (1, 0, 1), id="touching by a corner is not enough: IoU 1 / 71"),
        pytest.param([(0, 0, 20, 40)], [A], (1, 0, 1), id="the whole image finds no small lesion: IoU 0.045"),
    ],
)
def test_none_one_and_several_lesions(predicted: list, true: list, expected: tuple[int, int, int]) -> None:
    assert lesion_counts(boxes(*predicted), boxes(*true)) == expected


def test_an_iou_of_exactly_the_threshold_matches_and_less_does_not() -> None:
    true = boxes((0, 0, 1, 10))
    assert MATCH_IOU == 0.1
    assert lesion_counts(boxes((0, 0, 1, 1)), true) == (1, 1, 0)
    assert lesion_counts(boxes((0, 0, 1, 1)), boxes((0, 0, 1, 11))) == (1, 0, 1)


def test_the_matching_takes_the_most_pairs_and_not_the_best_one() -> None:
    # the long prediction fits A best, but only it can find B; A is found by the short one
    true = boxes((2, 2, 2, 10), (2, 13, 2, 4))
    predicted = boxes((2, 2, 1, 2), (3, 5, 1, 12))
    iou = [[(p & t).sum() / (p | t).sum() for p in _parts(predicted)] for t in _parts(true)]
    assert iou[0][1] > iou[0][0] >= MATCH_IOU
    assert iou[1][1] >= MATCH_IOU > iou[1][0]
    assert lesion_counts(predicted, true) == (2, 2, 0)


def test_components_hold_together_at_corners() -> None:
    plane = np.eye(4, dtype=bool)
    assert lesion_counts(plane, plane) == (1, 1, 0)
    volume = np.zeros((4, 4, 4), bool)
    volume[range(4), range(4), range(4)] = True
    assert lesion_counts(volume, volume) == (1, 1, 0)
    volume[3, 3, 3], volume[0, 3, 3] = False, True
    assert lesion_counts(np.zeros_like(volume), volume) == (2, 0, 0)


def test_thousands_of_components() -> None:
    grid = np.zeros((300, 300), bool)
    grid[::3, ::3] = True
    shifted = np.roll(grid, 1, axis=1)
    assert lesion_counts(grid, grid) == (10_000, 10_000, 0)
    assert lesion_counts(shifted, grid) == (10_000, 0, 10_000)
    assert lesion_counts(grid | shifted, grid) == (10_000, 10_000, 0)  # IoU 0.5 each


def _parts(mask: np.ndarray) -> list[np.ndarray]:
    labels, n = label(mask, np.ones((3,) * mask.ndim))
    return [labels == k for k in range(1, n + 1)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(9, 9), (4, 4, 4)]))
def test_agrees_with_every_possible_matching(seed: int, shape: tuple[int, ...]) -> None:
    """The most pairs over all assignments of true to predicted components, tried one by one."""
    generator = np.random.default_rng(seed)
    true, predicted = generator.random((2, *shape)) < generator.choice([0.1, 0.2, 0.3], 2).reshape(
        2, *(1,) * len(shape)
    )
    predicted |= true & (generator.random(shape) < 0.7)
    near = [[10 * (p & t).sum() >= (p | t).sum() for p in _parts(predicted)] for t in _parts(true)]
    n_predicted = len(_parts(predicted))
    choices = [[None, *(k for k, hit in enumerate(row) if hit)] for row in near]
    most = max(
        len(taken)
        for choice in itertools.product(*choices)
        if len(set(taken := [k for k in choice if k is not None])) == len(taken)
    )
    assert lesion_counts(predicted, true) == (len(near), most, n_predicted - most)
