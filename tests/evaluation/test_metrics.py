"""Metrics of a case against the written table, a slow reference and MONAI."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import DiceMetric, compute_average_surface_distance, compute_hausdorff_distance

from semidg.errors import DataError
from semidg.evaluation.metrics import HIGHER_IS_BETTER, METRICS, boundary, case_metrics, surface_distances
from semidg.types import IGNORE_INDEX

DOCUMENT = Path(__file__).parents[2] / "docs/reference/metrics.md"
OVERLAP = ("dice", "iou", "precision", "sensitivity")
SHAPE = (6, 8)
DIAGONAL = 10.0  # of 6 x 8


def mask(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A label map with rectangles (top, left, height, width)."""
    result = np.zeros(shape, np.uint8)
    for top, left, height, width in boxes:
        result[top : top + height, left : left + width] = 1
    return result


EMPTY, FULL, LESION, OTHER = mask(), mask((0, 0, 6, 8)), mask((1, 1, 2, 3)), mask((2, 2, 3, 2))


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one pixel, borders, touching and disconnected shapes, and noise; never empty."""
    shape = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))

    def one() -> np.ndarray:
        kind = draw(st.sampled_from(["noise", "pixel", "boxes", "frame"]))
        if kind == "noise":
            result = draw(arrays(np.uint8, shape, elements=st.integers(0, 1)))
        else:
            result = np.zeros(shape, np.uint8)
        if kind == "boxes":
            for _ in range(draw(st.integers(1, 3))):
                top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
                result[top : top + draw(st.integers(1, 12)), left : left + draw(st.integers(1, 12))] = 1
        if kind == "frame":
            result[0], result[-1], result[:, 0], result[:, -1] = 1, 1, 1, 1
        if not result.any():
            result[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = 1
        return result

    return one(), one()


def slow_reference(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The definitions, pixel by pixel, for two masks that are not empty."""
    height, width = truth.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    p, t = ({c for c in cells if m[c]} for m in (prediction, truth))

    def edge(region: set[tuple[int, int]]) -> list[tuple[int, int]]:
        around = ((0, 1), (0, -1), (1, 0), (-1, 0))
        return [(y, x) for y, x in region if any((y + dy, x + dx) not in region for dy, dx in around)]

    def directed(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> list[float]:
        return [min(((ya - yb) ** 2 + (xa - xb) ** 2) ** 0.5 for yb, xb in b) for ya, xa in a]

    def percentile(values: list[float]) -> float:
        ordered = sorted(values)
        place = 0.95 * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    to_t, to_p = directed(edge(p), edge(t)), directed(edge(t), edge(p))
    tn = len(set(cells) - p - t)
    return {
        "dice": 2 * len(p & t) / (len(p) + len(t)),
        "iou": len(p & t) / len(p | t),
        "precision": len(p & t) / len(p),
        "sensitivity": len(p & t) / len(t),
        "specificity": tn / (tn + len(p - t)) if len(t) < len(cells) else 1.0,
        "hd95": max(percentile(to_t), percentile(to_p)),
        "assd": sum(to_t + to_p) / len(to_t + to_p),
    }


# one entry a row of the table in docs/reference/metrics.md: truth, prediction, overlap, specificity, distances
TABLE = {
    ("empty", "empty"): (EMPTY, EMPTY, 1.0, 1.0, 0.0),
    ("empty", "not empty"): (EMPTY, LESION, 0.0, 42 / 48, DIAGONAL),
    ("not empty", "empty"): (LESION, EMPTY, 0.0, 1.0, DIAGONAL),
    ("not empty", "not empty"): (LESION, OTHER, None, 38 / 42, None),
    ("everything", "any"): (FULL, LESION, None, 1.0, None),
}


@pytest.mark.parametrize("row", TABLE, ids=" / ".join)
def test_each_row_of_the_empty_mask_table(row: tuple[str, str]) -> None:
    truth, prediction, overlap, specificity, distance = TABLE[row]
    result = case_metrics(prediction, truth)
    expected = slow_reference(prediction, truth) if overlap is None else {}
    for name in OVERLAP:
        assert result[name] == pytest.approx(expected.get(name, overlap), abs=1e-12)
    for name in ("hd95", "assd"):
        assert result[name] == pytest.approx(expected.get(name, distance), abs=1e-12)
    assert result["specificity"] == pytest.approx(specificity, abs=1e-12)


def test_a_truth_of_everything_that_is_missed_is_a_miss() -> None:
    result = case_metrics(EMPTY, FULL)
    assert [result[name] for name in METRICS] == [0, 0, 0, 0, 1, DIAGONAL, DIAGONAL]


def test_the_table_is_the_same_in_document_code_and_tests() -> None:
    import semidg.evaluation.metrics as module

    def rows(text: str) -> list[list[str]]:
        lines = re.findall(r"^\s*(\|.+\|)\s*$", text, re.MULTILINE)
        cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
        return [row for row in cells if (row[0], row[1]) in TABLE]

    assert module.__doc__
    in_code, in_document = rows(module.__doc__), rows(DOCUMENT.read_text("utf-8"))
    assert [(row[0], row[1]) for row in in_code] == list(TABLE)
    assert in_code == in_document


@settings(max_examples=300, deadline=None)
@given(mask_pairs())
def test_agrees_with_the_slow_reference_and_with_monai(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, truth = pair
    result = case_metrics(prediction, truth)
    assert result == pytest.approx(slow_reference(prediction, truth), abs=1e-9)

    p, t = (torch.from_numpy(m)[None, None].float() for m in pair)
    assert result["hd95"] == pytest.approx(compute_hausdorff_distance(p, t, percentile=95).item(), abs=1e-4)
    symmetric = compute_average_surface_distance(p, t, symmetric=True).item()
    assert result["assd"] == pytest.approx(symmetric, abs=1e-4)
    assert result["dice"] == pytest.approx(DiceMetric()(p, t).item(), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(mask_pairs())
def test_symmetry_and_ranges(pair: tuple[np.ndarray, np.ndarray]) -> None:
    forward, backward = case_metrics(*pair), case_metrics(*reversed(pair))
    for name in ("dice", "iou", "hd95", "assd"):
        assert forward[name] == pytest.approx(backward[name], abs=1e-12)
    assert forward["precision"] == backward["sensitivity"]
    for name in METRICS:
        assert 0 <= forward[name] <= (1 if HIGHER_IS_BETTER[name] else np.hypot(*pair[0].shape))
    assert case_metrics(pair[0], pair[0]) == {n: float(HIGHER_IS_BETTER[n]) for n in METRICS}


@settings(max_examples=100, deadline=None)
@given(mask_pairs())
def test_a_missed_lesion_is_never_better_than_any_prediction(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, truth = pair
    found, missed = case_metrics(prediction, truth), case_metrics(np.zeros_like(truth), truth)
    # specificity looks at the background only and cannot see a miss, which the table says
    for name in set(METRICS) - {"specificity"}:
        if HIGHER_IS_BETTER[name]:
            assert missed[name] <= found[name]
        else:
            assert missed[name] > found[name]


@settings(max_examples=60, deadline=None)
@given(mask_pairs(), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_cropping_to_the_union_changes_no_distance(
    pair: tuple[np.ndarray, np.ndarray], top: int, left: int, rest: int
) -> None:
    padded = [np.pad(m, ((top, rest), (left, rest))) for m in pair]
    small, large = case_metrics(*pair), case_metrics(*padded)
    for name in ("dice", "hd95", "assd"):
        assert small[name] == pytest.approx(large[name], abs=1e-12)


def test_tree_and_distance_transform_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import semidg.evaluation.metrics as module

    generator = np.random.default_rng(0)
    a, b = generator.random((2, 40, 50)) < np.array([0.4, 0.05])[:, None, None]
    assert 10 * (boundary(a).sum() + boundary(b).sum()) > a.size  # takes the transform
    transform = surface_distances(a, b)

    def broken(*_: object) -> None:
        raise AssertionError("the tree was to be used")

    monkeypatch.setattr(module, "distance_transform_edt", broken)
    # far corners make the box large, so that the same boundaries count as few
    shape = (200, 250)
    big = [np.zeros(shape, bool) for _ in range(2)]
    for target, source in zip(big, (a, b), strict=True):
        target[:40, :50] = source
        target[-1, -1] = True
    tree = surface_distances(*big)
    for side, (few, many) in enumerate(zip(tree, transform, strict=True)):
        np.testing.assert_allclose(few[:-1], many, atol=1e-12, err_msg=str(side))
        assert few[-1] == 0


def test_boundary_is_four_connected_and_includes_the_frame() -> None:
    expected = mask((0, 0, 4, 4))
    expected[1:3, 1:3] = 0
    np.testing.assert_array_equal(boundary(mask((0, 0, 4, 4)).astype(bool)), expected.astype(bool))


def test_hd95_forgives_the_farthest_five_percent_but_not_more() -> None:
    truth = mask((10, 10, 21, 21), shape=(60, 60))  # 80 boundary pixels
    few, many = truth.copy(), truth.copy()
    few[50, 50] = 1  # 1 of 81
    many[50:52, 50:53] = 1  # 6 of 86, all on the boundary
    assert case_metrics(few, truth)["hd95"] == 0
    assert case_metrics(many, truth)["hd95"] > 20


def test_known_values() -> None:
    # one column of difference: TP 6, FN 2
    result = case_metrics(mask((1, 1, 2, 3)), mask((1, 1, 2, 4)))
    assert result == pytest.approx(
        {
            "dice": 12 / 14, "iou": 6 / 8, "precision": 1, "sensitivity": 6 / 8, "specificity": 1, "hd95": 1,
            "assd": 2 / 14,
        }
    )  # fmt: skip


def test_ignored_pixels_count_nowhere() -> None:
    truth, prediction = LESION.copy(), LESION.copy()
    truth[:, 4:] = IGNORE_INDEX
    prediction[0:3, 5:8] = 1  # only where the truth is not known
    assert case_metrics(prediction, truth) == case_metrics(LESION, LESION)
    prediction[5, 0] = 1  # the only false positive of 4 columns x 6 rows - 6 lesion pixels
    result = case_metrics(prediction, truth)
    assert result["specificity"] == pytest.approx(17 / 18)
    assert result["precision"] == pytest.approx(6 / 7)


def test_ignored_pixels_decide_emptiness_and_cut_boundaries() -> None:
    truth = np.where(LESION, IGNORE_INDEX, 0).astype(np.uint8)
    assert case_metrics(LESION, truth)["dice"] == 1  # nothing known is lesion, nothing known is predicted
    cut = mask((0, 0, 6, 5))
    cut[:, 3:] = IGNORE_INDEX
    # prediction and truth are both cut at column 3, so neither has a boundary beyond it
    assert case_metrics(FULL, cut)["assd"] == 0


def test_more_classes_give_means_and_each_class() -> None:
    truth, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[0:2, 0:2], truth[3:5, 3:7] = 1, 2
    prediction[0:2, 0:2], prediction[3:5, 3:5] = 1, 2
    result = case_metrics(prediction, truth, classes=4)
    assert list(result) == [*METRICS, *(f"{name}_{c}" for c in (1, 2, 3) for name in METRICS)]
    second = case_metrics((prediction == 2).astype(np.uint8), (truth == 2).astype(np.uint8))
    assert {name: result[f"{name}_2"] for name in METRICS} == second
    assert result["dice_1"] == 1
    assert result["dice_3"] == 1  # absent from both
    assert result["dice"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert result["hd95"] == pytest.approx((0 + second["hd95"] + 0) / 3)


def test_swapped_classes_are_wrong_although_the_foreground_agrees() -> None:
    truth = LESION.copy()
    prediction = np.where(LESION, 2, 0).astype(np.uint8)
    assert case_metrics(prediction, truth, classes=3)["dice"] == 0


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (EMPTY, mask(shape=(5, 5)), "one size"),
        (EMPTY[None], EMPTY[None], "label maps"),
        (LESION * 2, LESION, r"\[2\] are out of range"),
        (LESION, LESION * 3, r"\[3\] are out of range"),
        (LESION * 255, LESION, r"\[255\] are out of range"),
        (LESION.astype(int) * -1, LESION, r"\[-1\] are out of range"),
        (EMPTY, np.full(SHAPE, IGNORE_INDEX, np.uint8), "unlabelled image"),
    ],
)
def test_bad_input_is_refused(prediction: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        case_metrics(prediction, truth)
