"""Metrics of a case against the written table, a slow reference and MONAI."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)

import semidg.evaluation.metrics as module
from semidg.errors import ConfigError, DataError
from semidg.evaluation.metrics import (
    HIGHER_IS_BETTER,
    LESION_COUNTS,
    METRICS,
    MM_METRICS,
    boundary,
    case_metrics,
    surface_distances,
)
from semidg.types import IGNORE_INDEX

DOCUMENT = Path(__file__).parents[2] / "docs/reference/metrics.md"
KEYS = ["area", *METRICS, "area_bias", *LESION_COUNTS]
SHAPE = (6, 8)
DIAGONAL = 10.0  # of 6 x 8


def mask(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A label map with rectangles (top, left, height, width)."""
    result = np.zeros(shape, np.uint8)
    for top, left, height, width in boxes:
        result[top : top + height, left : left + width] = 1
    return result


EMPTY, FULL, LESION, OTHER = mask(), mask((0, 0, 6, 8)), mask((1, 1, 2, 3)), mask((2, 2, 3, 2))
TWO = mask((1, 1, 2, 3), (5, 7, 1, 1))


def random_mask(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One pixel, touching and disconnected boxes, the frame of the image, dense and sparse noise; never empty."""
    kind = generator.choice(["pixel", "boxes", "frame", "noise", "full"], p=[0.15, 0.5, 0.1, 0.2, 0.05])
    result = np.zeros(shape, np.uint8)
    if kind == "boxes":
        for _ in range(generator.integers(1, 4)):
            start = [generator.integers(0, n) for n in shape]
            result[tuple(slice(s, s + generator.integers(1, 9)) for s in start)] = 1
    elif kind == "frame":
        result[...] = 1
        result[(slice(1, -1),) * len(shape)] = 0
    elif kind == "noise":
        result[generator.random(shape) < generator.choice([0.05, 0.5, 0.9])] = 1
    elif kind == "full":
        result[...] = 1
    if not result.any():
        result[tuple(generator.integers(0, n) for n in shape)] = 1
    return result


def random_pair(seed: int, ndim: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a truth of one random size; every second time the prediction is a shifted truth."""
    generator = np.random.default_rng([seed, ndim])
    shape = tuple(generator.integers(1, 16 if ndim == 2 else 8, ndim))
    truth = random_mask(generator, shape)
    shift = tuple(generator.integers(-2, 3, ndim))
    return (np.roll(truth, shift, range(ndim)) if seed % 2 else random_mask(generator, shape)), truth


pairs = st.builds(random_pair, st.integers(0, 2**32 - 1))


def slow_reference(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...] | None = None
) -> dict[str, float]:
    """The definitions, set by set and pixel by pixel, for two masks that are not empty."""
    cells = set(np.ndindex(truth.shape))
    ignored = {c for c in cells if truth[c] == IGNORE_INDEX}
    p, t = ({c for c in cells - ignored if m[c] == 1} for m in (prediction, truth))
    sides = [tuple(s * (a == k) for a in range(truth.ndim)) for k in range(truth.ndim) for s in (-1, 1)]
    around = [step for step in itertools.product((-1, 0, 1), repeat=truth.ndim) if any(step)]

    def moved(cell: tuple[int, ...], steps: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        return [tuple(a + b for a, b in zip(cell, step, strict=True)) for step in steps]

    def edge(region: set[tuple[int, ...]]) -> np.ndarray:
        return np.array([c for c in region if any(n not in region for n in moved(c, sides))])

    def percentile(values: np.ndarray) -> float:
        ordered = sorted(values)
        place = 0.95 * (len(ordered) - 1)
        low = int(place)
        return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])

    def surface(scale: tuple[float, ...], tolerance: float) -> dict[str, float]:
        table = np.sqrt((((edge(p)[:, None] - edge(t)[None]) * np.array(scale)) ** 2).sum(-1))  # every pair
        to_t, to_p = table.min(1), table.min(0)
        both = [*to_t, *to_p]
        f1 = 0.0075 * sum(n**2 for n in truth.shape) ** 0.5
        hits = [sum(v <= f1 for v in values) / len(values) for values in (to_t, to_p)]
        return {
            "hd": max(both),
            "hd95": max(percentile(to_t), percentile(to_p)),
            "assd": sum(both) / len(both),
            "nsd": sum(v <= tolerance + 1e-9 for v in both) / len(both),
            "boundary_f1": 2 / sum(1 / h for h in hits) if all(hits) else 0.0,
        }

    def pieces(region: set[tuple[int, ...]]) -> list[set[tuple[int, ...]]]:
        left, found = set(region), []
        while left:
            front = [left.pop()]
            found.append(set(front))
            while front:
                new = left.intersection(moved(front.pop(), around))
                left -= new
                found[-1] |= new
                front += new
        return found

    of_t, of_p = pieces(t), pieces(p)
    near = [[k for k, b in enumerate(of_p) if 10 * len(a & b) >= len(a | b)] for a in of_t]
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        """Kuhn's algorithm: give a true piece a predicted one, moving others if need be."""
        for k in near[row]:
            if k not in seen:
                seen.add(k)
                if k not in owner or place(owner[k], seen):
                    owner[k] = row
                    return True
        return False

    matched = sum(place(row, set()) for row in range(len(of_t)))
    tn = len(cells - ignored - p - t)
    scored = len(cells - ignored)
    result = {
        "area": len(t) / scored,
        "dice": 2 * len(p & t) / (len(p) + len(t)),
        "iou": len(p & t) / len(p | t),
        "precision": len(p & t) / len(p),
        "sensitivity": len(p & t) / len(t),
        "specificity": tn / (tn + len(p - t)) if len(t) < scored else 1.0,
        **surface((1.0,) * truth.ndim, 3),
        "area_error": abs(len(p) - len(t)) / max(len(p), len(t)),
        "area_bias": (len(p) - len(t)) / max(len(p), len(t)),
        "lesions": len(of_t),
        "lesions_found": matched,
        "lesions_false": len(of_p) - matched,
    }
    if spacing:
        result |= {f"{name}_mm": v for name, v in surface(spacing, 1.0).items() if name != "boundary_f1"}
    return result


# The written table. What its rows stand for, and the values that its words name for a pair of masks.

ROWS = {
    ("empty", "empty"): [(EMPTY, EMPTY)],
    ("empty", "not empty"): [(LESION, EMPTY), (TWO, EMPTY), (FULL, EMPTY)],
    ("not empty", "empty"): [(EMPTY, LESION), (EMPTY, TWO)],
    ("not empty", "not empty"): [(OTHER, LESION), (LESION, OTHER), (TWO, LESION), (FULL, LESION)],
    ("everything", "any"): [(LESION, FULL), (EMPTY, FULL), (FULL, FULL)],
}
COLUMNS = {
    "overlap": ("dice", "iou", "precision", "sensitivity", "nsd", "boundary_f1", "nsd_mm"),
    "specificity": ("specificity",),
    "distance": ("hd", "hd95", "assd", "hd_mm", "hd95_mm", "assd_mm"),
    "area_error": ("area_error",),
    "area_bias": ("area_bias",),
    "found": ("lesions_found",),
    "false": ("lesions_false",),
}


def table(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of the table of empty masks in a text, by truth and prediction: column -> cell."""
    lines = re.findall(r"^\s*(\|.+\|)\s*$", text, re.MULTILINE)
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    heading = next(row for row in cells if row[:2] == ["truth", "prediction"])
    return {(row[0], row[1]): dict(zip(heading[2:], row[2:], strict=True)) for row in cells if tuple(row[:2]) in ROWS}


def test_the_table_is_the_same_in_document_and_code() -> None:
    assert module.__doc__
    in_code = table(module.__doc__)
    assert list(in_code) == list(ROWS)
    assert all(list(row) == list(COLUMNS) for row in in_code.values())
    assert in_code == table(DOCUMENT.read_text("utf-8"))
    tabled = [name for names in COLUMNS.values() for name in names]
    assert sorted(tabled) == sorted({*METRICS, *MM_METRICS, "area_bias", *LESION_COUNTS} - {"lesions"})


@pytest.mark.parametrize(
    ("row", "prediction", "truth"),
    [(row, p, t) for row, pair in ROWS.items() for p, t in pair],
    ids=[f"{' / '.join(row)} {n}" for row, pair in ROWS.items() for n in range(len(pair))],
)
def test_each_row_of_the_table_of_empty_masks(row: tuple[str, str], prediction: np.ndarray, truth: np.ndarray) -> None:
    spacing = (0.5, 0.25)
    result = case_metrics(prediction, truth, spacing=spacing)
    written = table(module.__doc__ or "")
    above = written[tuple("not empty" if m.any() else "empty" for m in (truth, prediction))]
    lesions = {id(LESION): 1, id(TWO): 2, id(FULL): 1, id(OTHER): 1, id(EMPTY): 0}
    tn, fp = ((truth == 0) & (prediction == k) for k in (0, 1))
    words = {
        "TN / (TN + FP)": lambda: tn.sum() / (tn.sum() + fp.sum()),
        "1 (TN + FP = 0)": lambda: 1,
        "N_P": lambda: lesions[id(prediction)],
    }
    for column, names in COLUMNS.items():
        cell = written[row][column]
        cell = above[column] if cell == "above" else cell
        for name in names:
            if cell == "defined":
                expected = slow_reference(prediction, truth, spacing)[name]
            elif cell == "D":
                expected = np.hypot(6 * 0.5, 8 * 0.25) if name.endswith("mm") else DIAGONAL
            else:
                expected = words[cell]() if cell in words else float(cell)
            assert result[name] == pytest.approx(expected, abs=1e-12), name
    assert result["lesions"] == lesions[id(truth)]
    assert result["area"] == truth.mean()


def test_a_truth_of_everything_that_is_missed_is_a_miss() -> None:
    result = case_metrics(EMPTY, FULL)
    assert [result[name] for name in METRICS] == [0, 0, 0, 0, 1, DIAGONAL, DIAGONAL, DIAGONAL, 0, 0, 1]


@settings(max_examples=150, deadline=None)
@given(pairs, st.sampled_from([(0.3, 0.3), (2.0, 0.1)]))
def test_no_prediction_scores_worse_than_a_missed_lesion(
    pair: tuple[np.ndarray, np.ndarray], spacing: tuple[float, float]
) -> None:
    prediction, truth = pair
    found = case_metrics(prediction, truth, spacing=spacing)
    missed = case_metrics(np.zeros_like(truth), truth, spacing=spacing)
    # specificity looks at the background only and cannot see a miss, which the table says
    for name in {*METRICS, *MM_METRICS} - {"specificity"}:
        if HIGHER_IS_BETTER[name]:
            assert missed[name] == 0 <= found[name]
        else:
            assert missed[name] > found[name]
    assert missed["lesions_found"] == 0 < missed["lesions"] == found["lesions"]


# Agreement: 1,000 masks in the plane, 240 in volumes, 120 with ignored pixels


def monai(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> dict[str, float]:
    p, t = (torch.from_numpy(m)[None, None].float() for m in (prediction, truth))
    found = {
        "hd": compute_hausdorff_distance(p, t, spacing=spacing),
        "hd95": compute_hausdorff_distance(p, t, percentile=95, spacing=spacing),
        "assd": compute_average_surface_distance(p, t, symmetric=True, spacing=spacing),
        "nsd": compute_surface_dice(p, t, [tolerance], include_background=True, spacing=spacing),
        "dice": compute_dice(p, t),
        "iou": compute_iou(p, t),
    }
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize("block", range(5))
def test_agrees_with_the_slow_reference_and_with_monai(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        prediction, truth = random_pair(seed)
        result = case_metrics(prediction, truth)
        assert result == pytest.approx(slow_reference(prediction, truth), abs=1e-9), seed
        if seed % 4 < 2:  # MONAI takes ten times as long as the reference
            expected = monai(prediction, truth, (1.0, 1.0), 3.0)
            assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-4), seed


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 0.5), (2.0, 0.5, 0.75)], ids=["isotropic", "anisotropic"])
def test_volumes_with_a_spacing_agree_with_the_slow_reference_and_with_monai(spacing: tuple[float, ...]) -> None:
    for seed in range(60):
        prediction, truth = random_pair(seed, 3)
        result = case_metrics(prediction, truth, spacing=spacing)
        assert list(result) == [*KEYS, *MM_METRICS]
        assert result == pytest.approx(slow_reference(prediction, truth, spacing), abs=1e-9), seed
        if seed % 3 == 0:
            expected = monai(prediction, truth, spacing, 1.0)
            in_mm = {name: result[f"{name}_mm" if f"{name}_mm" in MM_METRICS else name] for name in expected}
            assert in_mm == pytest.approx(expected, abs=1e-4), seed


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 2**32 - 1))
def test_ignored_pixels_and_an_anisotropic_spacing_agree_with_the_slow_reference(
    pair: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    prediction, truth = pair
    truth = np.where(np.random.default_rng(seed).random(truth.shape) < 0.2, IGNORE_INDEX, truth).astype(np.uint8)
    assume((prediction[truth != IGNORE_INDEX] == 1).any() and (truth == 1).any())  # else it is the table's part
    result = case_metrics(prediction, truth, spacing=(0.4, 1.1))
    assert result == pytest.approx(slow_reference(prediction, truth, (0.4, 1.1)), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(pairs)
def test_symmetry_and_ranges(pair: tuple[np.ndarray, np.ndarray]) -> None:
    forward, backward = case_metrics(*pair), case_metrics(*reversed(pair))
    for name in ("dice", "iou", "hd", "hd95", "assd", "nsd", "boundary_f1", "area_error", "lesions_found"):
        assert forward[name] == pytest.approx(backward[name], abs=1e-12)
    assert forward["precision"] == backward["sensitivity"]
    assert forward["area_bias"] == -backward["area_bias"]
    assert forward["lesions"] == backward["lesions_found"] + backward["lesions_false"]
    for name in METRICS:
        bound = np.hypot(*pair[0].shape) if name in {"hd", "hd95", "assd"} else 1
        assert 0 <= forward[name] <= bound
    same = case_metrics(pair[0], pair[0])
    assert {name: same[name] for name in METRICS} == {n: float(HIGHER_IS_BETTER[n]) for n in METRICS}
    assert same["lesions_found"] == same["lesions"]
    assert same["lesions_false"] == 0


@settings(max_examples=60, deadline=None)
@given(pairs, st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
def test_cropping_to_the_union_changes_nothing(
    pair: tuple[np.ndarray, np.ndarray], top: int, left: int, rest: int
) -> None:
    padded = [np.pad(m, ((top, rest), (left, rest))) for m in pair]
    small, large = case_metrics(*pair), case_metrics(*padded)
    # specificity, area and the tolerance of boundary_f1 belong to the size of the image
    for name in set(KEYS) - {"specificity", "area", "boundary_f1"}:
        assert small[name] == pytest.approx(large[name], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.uint8, (5, 6), elements=st.integers(0, 1)),
    arrays(np.uint8, (5, 6), elements=st.integers(0, 1)),
    st.floats(0.05, 20),
)
def test_an_isotropic_spacing_scales_pixels(prediction: np.ndarray, truth: np.ndarray, mm: float) -> None:
    result = case_metrics(prediction, truth, spacing=(mm, mm), tolerance=2, tolerance_mm=2 * mm)
    for name in ("hd", "hd95", "assd"):
        assert result[f"{name}_mm"] == pytest.approx(result[name] * mm)
    assert result["nsd_mm"] == result["nsd"]


@pytest.mark.parametrize("spacing", [None, (0.7, 1.9)])
def test_tree_and_distance_transform_give_the_same(
    monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, float] | None
) -> None:
    generator = np.random.default_rng(0)
    a, b = (boundary(m) for m in generator.random((2, 40, 50)) < np.array([0.4, 0.05])[:, None, None])
    assert 10 * (a.sum() + b.sum()) > a.size  # takes the transform
    transform = surface_distances(a, b, spacing)

    def broken(*_: object) -> None:
        raise AssertionError("the tree was to be used")

    monkeypatch.setattr(module, "distance_transform_edt", broken)
    # in a large box the same boundaries count as few
    tree = surface_distances(*(np.pad(m, ((0, 160), (0, 200))) for m in (a, b)), spacing)
    for few, many in zip(tree, transform, strict=True):
        np.testing.assert_allclose(few, many, atol=1e-12)


# Volumes

volumes = st.builds(random_pair, st.integers(0, 2**32 - 1), st.just(3))
#: What does not ask where the boundary runs, nor how large the box is.
COUNTED = {"area", "dice", "iou", "precision", "sensitivity", "specificity", "area_error", "area_bias", *LESION_COUNTS}


@settings(max_examples=40, deadline=None)
@given(volumes, st.integers(0, 2**32 - 1))
def test_volumes_with_ignored_voxels_agree_with_the_slow_reference(
    pair: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    prediction, truth = pair
    truth = np.where(np.random.default_rng(seed).random(truth.shape) < 0.2, IGNORE_INDEX, truth).astype(np.uint8)
    assume((prediction[truth != IGNORE_INDEX] == 1).any() and (truth == 1).any())
    spacing = (3.0, 0.8, 0.5)
    result = case_metrics(prediction, truth, spacing=spacing)
    assert result == pytest.approx(slow_reference(prediction, truth, spacing), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_a_volume_of_one_plane_is_counted_like_its_image_but_is_all_boundary(
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    prediction, truth = pair
    flat, deep = case_metrics(prediction, truth), case_metrics(prediction[None], truth[None])
    assert {name: deep[name] for name in COUNTED} == {name: flat[name] for name in COUNTED}
    assert boundary(truth[None] > 0).sum() == (truth > 0).sum()
    assert deep == pytest.approx(slow_reference(prediction[None], truth[None]), abs=1e-9)
    # distances are those between the sets in place of their outlines
    sets = surface_distances(prediction > 0, truth > 0)
    assert deep["hd"] == pytest.approx(max(values.max() for values in sets))
    assert deep["assd"] == pytest.approx(np.concatenate(sets).mean())


@pytest.mark.parametrize(("row", "prediction", "truth"), [(r, p, t) for r, of in ROWS.items() for p, t in of])
def test_the_table_of_empty_masks_holds_for_volumes(
    row: tuple[str, str], prediction: np.ndarray, truth: np.ndarray
) -> None:
    spacing = (3.0, 0.5, 0.25)
    p, t = (np.stack([m, m]) for m in (prediction, truth))
    result, flat = case_metrics(p, t, spacing=spacing), case_metrics(prediction, truth, spacing=spacing[1:])
    assert {name: result[name] for name in COUNTED} == pytest.approx({name: flat[name] for name in COUNTED})
    if not p.any() or not t.any():
        wrong = p.any() != t.any()
        for name in ("hd", "hd95", "assd"):
            assert result[name] == pytest.approx(wrong * np.linalg.norm((2, 6, 8)))
            assert result[f"{name}_mm"] == pytest.approx(wrong * np.linalg.norm((6, 3, 2)))
        assert {result[name] for name in ("nsd", "nsd_mm", "boundary_f1")} == {1 - wrong}
    elif row != ("everything", "any"):
        assert result == pytest.approx(slow_reference(p, t, spacing), abs=1e-9)


# Single facts


def test_boundary_is_four_connected_and_includes_the_frame() -> None:
    expected = mask((0, 0, 4, 4))
    expected[1:3, 1:3] = 0
    np.testing.assert_array_equal(boundary(mask((0, 0, 4, 4)).astype(bool)), expected.astype(bool))
    cube = np.zeros((5, 5, 5), bool)
    cube[:3, 1:4, 1:4] = True
    assert (cube & ~boundary(cube)).nonzero() == ([1], [2], [2])


def test_hd95_forgives_the_farthest_five_percent_but_not_more_and_hd_nothing() -> None:
    truth = mask((10, 10, 21, 21), shape=(60, 60))  # 80 boundary pixels
    few, many = truth.copy(), truth.copy()
    few[50, 50] = 1  # 1 of 81
    many[50:52, 50:53] = 1  # 6 of 86, all on the boundary
    assert case_metrics(few, truth)["hd95"] == 0
    assert case_metrics(many, truth)["hd95"] > 20
    assert case_metrics(few, truth)["hd"] == pytest.approx(20 * 2**0.5)


def test_a_distance_equal_to_the_tolerance_counts_and_the_tolerance_can_be_chosen() -> None:
    truth, prediction = mask((0, 0, 1, 1)), mask((0, 3, 1, 1))
    assert case_metrics(prediction, truth)["nsd"] == 1
    assert case_metrics(prediction, truth, tolerance=2.9)["nsd"] == 0
    # 3 x 0.1 is more than 0.3 in floating point
    assert case_metrics(prediction, truth, spacing=(0.2, 0.1), tolerance_mm=0.3)["nsd_mm"] == 1
    assert case_metrics(prediction, truth, spacing=(0.1, 0.1), tolerance_mm=0.29)["nsd_mm"] == 0


def test_boundary_f1_has_a_tolerance_of_the_image_diagonal() -> None:
    truth = mask((40, 40, 40, 40), shape=(240, 320))  # 0.0075 x 400 = 3 pixels
    for shift, expected in ((3, True), (4, False)):
        f1 = case_metrics(np.roll(truth, shift, 1), truth)["boundary_f1"]
        assert (f1 == 1) == expected


def test_known_values() -> None:
    # one column of difference: TP 6, FN 2; every pixel is boundary; the tolerance of boundary_f1 is 0.075 pixels
    result = case_metrics(mask((1, 1, 2, 3)), mask((1, 1, 2, 4)), spacing=(1, 2))
    assert list(result) == [*KEYS, *MM_METRICS]
    assert result == pytest.approx(
        {
            "area": 8 / 48, "dice": 12 / 14, "iou": 6 / 8, "precision": 1, "sensitivity": 6 / 8, "specificity": 1,
            "hd": 1, "hd95": 1, "assd": 2 / 14, "nsd": 1, "boundary_f1": 2 * 0.75 / 1.75, "area_error": 2 / 8,
            "area_bias": -2 / 8, "lesions": 1, "lesions_found": 1, "lesions_false": 0,
            "hd_mm": 2, "hd95_mm": 2, "assd_mm": 4 / 14, "nsd_mm": 12 / 14,
        }
    )  # fmt: skip
    assert all(isinstance(result[name], int) for name in LESION_COUNTS)


def test_ignored_pixels_count_nowhere() -> None:
    truth, prediction = LESION.copy(), LESION.copy()
    truth[:, 4:] = IGNORE_INDEX
    prediction[0:3, 5:8] = 1  # only where the truth is not known
    whole = case_metrics(LESION, LESION)
    assert case_metrics(prediction, truth) == whole | {"area": 6 / 24}
    prediction[5, 0] = 1  # the only false positive of 4 columns x 6 rows - 6 lesion pixels
    result = case_metrics(prediction, truth)
    assert result["specificity"] == pytest.approx(17 / 18)
    assert result["precision"] == pytest.approx(6 / 7)
    assert result["lesions_false"] == 1


def test_ignored_pixels_decide_emptiness_and_cut_boundaries() -> None:
    truth = np.where(LESION, IGNORE_INDEX, 0).astype(np.uint8)
    assert case_metrics(LESION, truth)["dice"] == 1  # nothing known is lesion, nothing known is predicted
    cut = mask((0, 0, 6, 5))
    cut[:, 3:] = IGNORE_INDEX
    # prediction and truth are both cut at column 3, so neither has a boundary beyond it
    assert case_metrics(FULL, cut)["assd"] == 0


def test_more_classes_give_means_sums_and_each_class() -> None:
    truth, prediction = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[0:2, 0:2], truth[3:5, 3:7] = 1, 2
    prediction[0:2, 0:2], prediction[3:5, 3:5], prediction[0, 7] = 1, 2, 2
    result = case_metrics(prediction, truth, classes=4, spacing=(0.5, 0.5))
    keys = [*KEYS, *MM_METRICS]
    assert list(result) == [*keys, *(f"{name}_{c}" for c in (1, 2, 3) for name in keys)]
    second = case_metrics((prediction == 2).astype(np.uint8), (truth == 2).astype(np.uint8), spacing=(0.5, 0.5))
    assert {name: result[f"{name}_2"] for name in keys} == second
    assert result["dice_1"] == 1
    assert result["dice_3"] == 1  # absent from both
    assert result["dice"] == pytest.approx((1 + second["dice"] + 1) / 3)
    assert result["hd95_mm"] == pytest.approx((0 + second["hd95_mm"] + 0) / 3)
    assert result["area"] == 12 / 48
    assert result["area_2"] == 8 / 48
    assert [result[name] for name in LESION_COUNTS] == [2, 2, 1]
    assert [result[f"{name}_1"] for name in LESION_COUNTS] == [1, 1, 0]


def test_swapped_classes_are_wrong_although_the_foreground_agrees() -> None:
    truth = LESION.copy()
    prediction = np.where(LESION, 2, 0).astype(np.uint8)
    result = case_metrics(prediction, truth, classes=3)
    assert result["dice"] == 0
    assert [result[name] for name in LESION_COUNTS] == [1, 0, 1]


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (EMPTY, mask(shape=(5, 5)), "one size"),
        (EMPTY[None, None], EMPTY[None, None], "label maps"),
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


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (1.0, float("nan")), (float("inf"), 1.0)])
def test_a_bad_spacing_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="one an axis"):
        case_metrics(LESION, LESION, spacing=spacing)


def test_a_bad_tolerance_is_refused() -> None:
    for bad in ({"tolerance": -1.0}, {"tolerance_mm": float("nan")}):
        with pytest.raises(ConfigError, match="tolerance"):
            case_metrics(LESION, LESION, **bad)
