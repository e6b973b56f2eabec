"""Intervals by group, the detectable difference, and summaries."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.errors import DataError
from semidg.evaluation.metrics import LESION_COUNTS, METRICS, MM_METRICS
from semidg.evaluation.statistics import (
    SIZES,
    bootstrap_interval,
    class_metrics,
    detectable_difference,
    resampled_sums,
    standard_error,
    summarise,
)

clusters = st.lists(  # of each group: the values of its cases
    st.lists(st.floats(-100, 100, allow_nan=False, width=32), min_size=1, max_size=4), min_size=2, max_size=12
)


def table(n: int = 60, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"case {i}" for i in range(n)],
            "domain": ["A", "B", "B"] * (n // 3),
            "class": ["benign", "malignant"] * (n // 2),
            "group": [f"g{i // 2}" for i in range(n)],
            "area": np.resize([0.0, 0.001, 0.02, 0.0999, 0.1, 0.7], n),
        }
    )
    for name in METRICS:
        frame[name] = generator.uniform(0.2, 0.8, n)
    frame["area_bias"] = generator.uniform(-1, 1, n)
    frame["lesions"] = np.where(frame["area"] > 0, generator.integers(1, 4, n), 0)
    frame["lesions_found"] = generator.integers(0, frame["lesions"] + 1)
    frame["lesions_false"] = generator.integers(0, 3, n)
    return frame


def flat(groups: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([np.asarray(g, float) for g in groups]), np.repeat(
        np.arange(len(groups)), [*map(len, groups)]
    )


def slow_bootstrap(values: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Drawn group by group and joined, as a cluster bootstrap is told: the means of the draws."""
    generator = np.random.default_rng(seed)
    parts = [values[groups == name] for name in np.unique(groups)]
    return np.array(
        [
            np.concatenate([parts[g] for g in generator.integers(len(parts), size=len(parts))]).mean()
            for _ in range(draws)
        ]
    )


def test_agrees_with_a_slow_cluster_bootstrap_on_unequal_groups() -> None:
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(25), generator.integers(1, 6, 25))
    # far from zero, so that dividing by a fixed number of cases would show
    values = 5 + generator.normal(size=25)[groups] + 0.2 * generator.normal(size=len(groups))
    slow = np.quantile(slow_bootstrap(values, groups, 4000, 9), [0.025, 0.975])
    assert bootstrap_interval(values, groups, 4000) == pytest.approx(slow, abs=0.04)  # the interval is 0.8 wide
    assert slow[1] - slow[0] > 0.5


def test_twins_widen_the_interval_and_copies_of_cases_do_not_narrow_it() -> None:
    values = np.random.default_rng(0).normal(size=40)
    low, high = bootstrap_interval(values, np.arange(40))
    twins = np.repeat(values, 4)
    assert bootstrap_interval(twins, np.repeat(np.arange(40), 4)) == pytest.approx((low, high))
    naive = bootstrap_interval(twins, np.arange(160))
    assert naive[1] - naive[0] < 0.6 * (high - low)


def test_covers_the_truth_about_as_often_as_it_says_and_without_groups_would_not() -> None:
    generator = np.random.default_rng(1)
    groups, each = np.repeat(np.arange(40), 3), np.arange(120)
    hits = naive_hits = 0
    for trial in range(300):
        values = generator.normal(size=40)[groups] + 0.3 * generator.normal(size=120)
        low, high = bootstrap_interval(values, groups, draws=400, seed=trial)
        hits += low <= 0 <= high
        low, high = bootstrap_interval(values, each, draws=400, seed=trial)
        naive_hits += low <= 0 <= high
    assert 0.90 <= hits / 300 <= 0.99
    assert naive_hits / 300 < 0.85


@settings(max_examples=40, deadline=None)
@given(clusters, st.integers(2, 4), st.randoms(use_true_random=False))
def test_interval_knows_neither_the_names_of_groups_nor_copies_within_them(
    drawn: list[list[float]], copies: int, random: Any
) -> None:
    values, groups = flat(drawn)
    expected = pytest.approx(bootstrap_interval(values, groups, 200), rel=1e-9, abs=1e-9)
    names = [f"group {i}" for i in range(len(drawn))]
    random.shuffle(names)
    assert bootstrap_interval(values, np.array(names)[groups], 200) == expected
    assert bootstrap_interval(np.repeat(values, copies), np.repeat(groups, copies), 200) == expected


@settings(max_examples=40, deadline=None)
@given(clusters, st.floats(-10, 10), st.floats(0.1, 10))
def test_interval_moves_and_scales_with_the_values_and_a_constant_has_no_width(
    drawn: list[list[float]], shift: float, factor: float
) -> None:
    values, groups = flat(drawn)
    low, high = bootstrap_interval(values, groups, 200)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    moved = bootstrap_interval(factor * values + shift, groups, 200)
    assert moved == pytest.approx((factor * low + shift, factor * high + shift), rel=1e-9, abs=1e-8)
    assert bootstrap_interval(np.full(len(values), shift), groups, 200) == pytest.approx((shift, shift), abs=1e-12)


def test_seed_level_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(0).random(30), np.arange(30)
    assert bootstrap_interval(values, groups, seed=1) == bootstrap_interval(values, groups, seed=1)
    assert bootstrap_interval(values, groups, seed=1) != bootstrap_interval(values, groups, seed=2)
    wide, narrow = bootstrap_interval(values, groups, level=0.99), bootstrap_interval(values, groups, level=0.5)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]
    whole = bootstrap_interval(values, groups)
    monkeypatch.setattr("semidg.evaluation.statistics._CHUNK", 100)  # three draws at a time
    assert bootstrap_interval(values, groups) == pytest.approx(whole)


def test_one_group_has_no_interval_and_bad_input_is_refused() -> None:
    assert np.isnan(bootstrap_interval([0.1, 0.9], ["g", "g"])).all()
    assert bootstrap_interval([0.5, 0.5], ["g", "h"]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="one group a value"):
        bootstrap_interval([1.0, 2.0], ["g"])
    with pytest.raises(ValueError, match="one group a value"):
        bootstrap_interval([], [])
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval([1.0, 2.0], ["g", "h"], level=95)
    with pytest.raises(ValueError, match="draws"):
        bootstrap_interval([1.0, 2.0], ["g", "h"], draws=0)


def test_all_columns_share_the_draws() -> None:
    generator = np.random.default_rng(0)
    column, groups = generator.random(20), np.repeat(np.arange(8), [1, 2, 3, 4, 1, 2, 3, 4])
    sums = resampled_sums(np.stack([column, 3 * column, np.ones(20)], axis=1), groups, 50, 4)
    np.testing.assert_allclose(sums[:, 1], 3 * sums[:, 0])
    assert set(np.unique(sums[:, 2])) <= set(range(8, 33))
    assert sums[:, 2].std() > 0  # the number of cases varies with the groups drawn


def test_standard_error_is_that_of_the_formula_and_of_the_draws() -> None:
    generator = np.random.default_rng(2)
    sizes = generator.integers(1, 6, 60)
    groups = np.repeat(np.arange(60), sizes)
    values = generator.normal(size=60)[groups] + 0.3 * generator.normal(size=len(groups))
    mean, total = values.mean(), 0.0
    for g in range(60):
        total += (values[groups == g].sum() - sizes[g] * mean) ** 2
    error = standard_error(values, groups)
    assert error == pytest.approx(np.sqrt(60 / 59 * total) / len(values))
    assert error == pytest.approx(slow_bootstrap(values, groups, 3000, 0).std(), rel=0.06)
    assert error > 1.5 * values.std(ddof=1) / np.sqrt(len(values))  # what the groups cost
    assert standard_error(values, np.arange(len(values))) == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))


def test_detectable_difference_is_found_four_times_out_of_five() -> None:
    """1,000 comparisons of two methods whose means differ by the detectable difference at the true standard error."""
    generator = np.random.default_rng(5)
    groups, paired_found, found = np.repeat(np.arange(60), 2), 0, 0
    effects = np.sqrt(0.3) * generator.normal(size=(1000, 2, 60))[:, :, groups]
    scores = effects + np.sqrt(0.1) * generator.normal(size=(1000, 2, 120))
    true_error = np.sqrt((0.3 + 0.1 / 2) / 60)  # of the mean of one method
    shift = (1.959964 + 0.841621) * np.sqrt(2) * true_error
    sizes, paired_sizes = [], []
    for a, b in scores:
        sizes.append(detectable_difference(a, groups, paired=False))
        paired_sizes.append(detectable_difference(a - b, groups, paired=True))
        error = np.hypot(standard_error(a, groups), standard_error(b, groups))
        found += abs(a.mean() + shift - b.mean()) > 1.959964 * error
        paired_found += abs((a + shift - b).mean()) > 1.959964 * standard_error(a - b, groups)
    assert np.mean(sizes) == pytest.approx(shift, rel=0.02)
    assert np.mean(paired_sizes) == pytest.approx(shift, rel=0.02)  # the methods of this simulation are not correlated
    assert found / 1000 == pytest.approx(0.8, abs=0.04)
    assert paired_found / 1000 == pytest.approx(0.8, abs=0.04)


def test_summary_by_domain_class_and_size_is_json() -> None:
    cases = table()
    summary = json.loads(json.dumps(summarise(cases), allow_nan=False))
    assert list(summary) == [
        *("level", "draws", "seed", "detectable_difference", "overall", "by_domain", "by_class", "by_size")
    ]
    assert list(summary["by_domain"]) == ["A", "B"]
    assert list(summary["by_class"]) == ["benign", "malignant"]
    assert {name: block["n"] for name, block in summary["by_size"].items()} == dict(
        zip(SIZES, (10, 10, 20, 20), strict=True)
    )
    for block, part in (
        (summary["overall"], cases),
        (summary["by_domain"]["B"], cases[cases["domain"] == "B"]),
        (summary["by_size"]["medium"], cases[cases["area"].between(0.02, 0.0999)]),
    ):
        assert (block["n"], block["n_groups"]) == (len(part), part["group"].nunique())
        assert list(block) == ["n", "n_groups", *METRICS, "area_bias", "lesions"]
        for name in (*METRICS, "area_bias"):
            assert block[name]["mean"] == pytest.approx(part[name].mean())
            assert block[name]["median"] == pytest.approx(part[name].median())
            assert block[name]["std"] == pytest.approx(part[name].std())
            assert block[name]["interval"] == pytest.approx(bootstrap_interval(part[name], part["group"]))
    least = detectable_difference(cases["dice"], cases["group"], paired=False)
    assert summary["detectable_difference"] == {
        "metric": "dice",
        "value": pytest.approx(least),
        "power": 0.8,
        "paired": False,
    }


def test_summary_takes_the_metrics_the_table_has() -> None:
    cases = table().drop(columns=["area", *LESION_COUNTS, "hd95"]).assign(hd95_mm=1.0, dice_1=0.5, expected_dice=0.5)
    summary = summarise(cases)
    assert "by_size" not in summary
    block = summary["overall"]
    assert list(block) == ["n", "n_groups", *(m for m in METRICS if m != "hd95"), "area_bias", "hd95_mm", "dice_1"]
    assert "hd95_mm" in MM_METRICS
    only = summarise(cases, ["assd"])
    assert list(only["overall"]) == ["n", "n_groups", "assd"]
    assert only["detectable_difference"]["metric"] == "assd"


def test_sizes_that_do_not_occur_are_absent_and_their_order_is_kept() -> None:
    cases = table().assign(area=np.resize([0.5, 0.0199], 60))
    assert list(summarise(cases, ["dice"])["by_size"]) == ["small", "large"]
    with pytest.raises(DataError, match="area of case 0 is outside 0 to 1"):
        summarise(table().assign(area=2.5))


def test_lesions_are_ratios_of_sums_with_an_interval_over_groups() -> None:
    cases = table(seed=4)
    block = summarise(cases)["overall"]["lesions"]
    true, found, false = (int(cases[name].sum()) for name in LESION_COUNTS)
    assert (block["true"], block["found"], block["missed"], block["false"]) == (true, found, true - found, false)
    expected = {
        "sensitivity": (cases["lesions_found"], cases["lesions"]),
        "precision": (cases["lesions_found"], cases["lesions_found"] + cases["lesions_false"]),
        "false_per_image": (cases["lesions_false"], cases["lesions"] * 0 + 1),
    }
    generator = np.random.default_rng(8)
    members = [np.flatnonzero(cases["group"] == name) for name in cases["group"].unique()]
    drawn = [np.concatenate([members[g] for g in generator.integers(30, size=30)]) for _ in range(2000)]
    for name, (above, below) in expected.items():
        assert block[name]["value"] == pytest.approx(above.sum() / below.sum())
        a, b = above.to_numpy(), below.to_numpy()
        slow = np.quantile([a[rows].sum() / b[rows].sum() for rows in drawn], [0.025, 0.975])
        assert block[name]["interval"] == pytest.approx(slow, abs=0.03)


def test_a_ratio_over_nothing_is_none_and_draws_without_a_lesion_are_left_out() -> None:
    cases = table()[:8].assign(lesions=0, lesions_found=0, lesions_false=0)
    block = summarise(cases)["overall"]["lesions"]
    assert block["sensitivity"] == block["precision"] == {"value": None, "interval": None}
    assert block["false_per_image"] == {"value": 0, "interval": None}  # none at all: how rare they are is not known
    cases.loc[[0, 2], ["lesions", "lesions_found"]] = [[2, 1], [2, 2]]  # two of four groups
    block = json.loads(json.dumps(summarise(cases), allow_nan=False))["overall"]["lesions"]
    assert block["sensitivity"] == {"value": 0.75, "interval": [0.5, 1]}
    cases["lesions_found"] = cases["lesions"]  # all draws say 1: Wilson's interval of two groups that have lesions
    block = summarise(cases)["overall"]["lesions"]
    low = 2 / (2 + 1.959964**2)
    assert block["sensitivity"] == {"value": 1.0, "interval": [pytest.approx(low, abs=1e-6), 1.0]}
    assert block["precision"] == block["sensitivity"]
    assert block["false_per_image"] == {"value": 0.0, "interval": None}
    cases["lesions_found"] = 0
    block = summarise(cases)["overall"]["lesions"]
    assert block["sensitivity"] == {"value": 0.0, "interval": [0.0, pytest.approx(1 - low, abs=1e-6)]}
    cases.loc[[0, 2], "lesions_found"] = [1, 2]
    one_group = summarise(cases[:2])["overall"]["lesions"]
    assert one_group["sensitivity"] == {"value": 0.5, "interval": None}


def test_summary_of_one_case_says_none_where_nothing_exists() -> None:
    summary = summarise(table()[:1], ["dice"])
    block = summary["overall"]
    assert block["n"] == block["n_groups"] == 1
    assert block["dice"]["std"] is None
    assert block["dice"]["interval"] is None
    assert summary["detectable_difference"]["value"] is None


def test_a_case_without_a_value_is_never_dropped_in_silence() -> None:
    cases = table()
    cases.loc[4, "hd95"] = np.nan
    with pytest.raises(DataError, match=r"hd95 .* case 4"):
        summarise(cases)
    with pytest.raises(DataError, match="no column group"):
        summarise(table().drop(columns="group"))
    with pytest.raises(DataError, match="no column lesions_false"):
        summarise(table().drop(columns="lesions_false"))
    with pytest.raises(DataError, match="no metric"):
        summarise(table()[["id", "domain", "class", "group"]])
    with pytest.raises(DataError, match="empty"):
        summarise(table()[:0])


def test_every_metric_of_every_class_is_summarised_like_that_of_all() -> None:
    generator = np.random.default_rng(2)
    cases = pd.DataFrame({"id": [str(k) for k in range(12)], "domain": "d", "class": "c", "group": np.arange(12) // 2})
    for name in ("dice", "dice_1", "dice_2", "hd95_mm_2", "nsd_1", "lesions_1", "expected_dice", "dice_x"):
        cases[name] = generator.random(12)
    assert class_metrics(cases.columns) == ["dice_1", "dice_2", "hd95_mm_2", "nsd_1"]
    result = summarise(cases)
    assert list(result["overall"]) == ["n", "n_groups", "dice", "dice_1", "dice_2", "hd95_mm_2", "nsd_1"]
    alone = summarise(cases.drop(columns="dice").rename(columns={"dice_2": "dice"}), ["dice"])
    own, plain = result["overall"]["dice_2"], alone["overall"]["dice"]
    assert own.pop("interval") == pytest.approx(plain.pop("interval"))
    assert own == pytest.approx(plain)
    assert result["by_domain"]["d"]["dice_1"]["mean"] == pytest.approx(cases["dice_1"].mean())
