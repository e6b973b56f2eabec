"""Intervals by group, summaries and paired comparison."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from semidg.errors import DataError
from semidg.evaluation.metrics import METRICS
from semidg.evaluation.statistics import bootstrap_interval, paired_difference, summarise


def table(n: int = 60, seed: int = 0, shift: float = 0.0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": [f"case {i}" for i in range(n)],
            "domain": ["A", "B", "B"] * (n // 3),
            "class": ["benign", "malignant"] * (n // 2),
            "group": [f"g{i // 2}" for i in range(n)],
        }
    )
    for name in METRICS:
        frame[name] = generator.uniform(0.2, 0.8, n) + shift
    return frame


def slow_bootstrap(values: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """Drawn group by group and joined, as a cluster bootstrap is told."""
    generator = np.random.default_rng(seed)
    names = np.unique(groups)
    means = [
        np.concatenate([values[groups == name] for name in generator.choice(names, len(names))]).mean()
        for _ in range(draws)
    ]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def test_agrees_with_a_slow_cluster_bootstrap_on_unequal_groups() -> None:
    generator = np.random.default_rng(3)
    groups = np.repeat(np.arange(25), generator.integers(1, 6, 25))
    # far from zero, so that dividing by a fixed number of cases would show
    values = 5 + generator.normal(size=25)[groups] + 0.2 * generator.normal(size=len(groups))
    fast, slow = bootstrap_interval(values, groups, 4000), slow_bootstrap(values, groups, 4000, 9)
    assert fast == pytest.approx(slow, abs=0.04)  # Monte Carlo error; the interval is about 0.8 wide
    assert slow[1] - slow[0] > 0.5


def test_twins_widen_the_interval_and_copies_of_cases_do_not_narrow_it() -> None:
    values = np.random.default_rng(0).normal(size=40)
    low, high = bootstrap_interval(values, np.arange(40))
    twins = np.repeat(values, 4)
    assert bootstrap_interval(twins, np.repeat(np.arange(40), 4)) == pytest.approx((low, high))
    naive = bootstrap_interval(twins, np.arange(160))
    assert naive[1] - naive[0] < 0.6 * (high - low)


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        effects = generator.normal(size=40)
        values = np.repeat(effects, 3) + 0.3 * generator.normal(size=120)
        low, high = bootstrap_interval(values, np.repeat(np.arange(40), 3), draws=400, seed=trial)
        hits += low <= 0 <= high
    assert 0.89 <= hits / 300 <= 0.98


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


def test_summary_by_domain_and_class_is_json() -> None:
    cases = table()
    summary = json.loads(json.dumps(summarise(cases), allow_nan=False))
    assert set(summary) >= {"overall", "by_domain", "by_class"}
    assert set(summary["by_domain"]) == {"A", "B"}
    assert set(summary["by_class"]) == {"benign", "malignant"}
    part = cases[cases["domain"] == "B"]
    block = summary["by_domain"]["B"]
    assert (block["n"], block["n_groups"]) == (len(part), part["group"].nunique())
    assert list(block) == ["n", "n_groups", *METRICS]
    for name in METRICS:
        assert block[name]["mean"] == pytest.approx(part[name].mean())
        assert block[name]["median"] == pytest.approx(part[name].median())
        assert block[name]["std"] == pytest.approx(part[name].std())
        assert block[name]["interval"] == pytest.approx(bootstrap_interval(part[name], part["group"]))


def test_summary_of_one_case_says_none_where_nothing_exists() -> None:
    block = summarise(table()[:1], ["dice"])["overall"]
    assert block["n"] == block["n_groups"] == 1
    assert block["dice"]["std"] is None
    assert block["dice"]["interval"] is None


def test_a_case_without_a_value_is_never_dropped_in_silence() -> None:
    cases = table()
    cases.loc[4, "hd95"] = np.nan
    with pytest.raises(DataError, match=r"hd95 .* case 4"):
        summarise(cases)
    with pytest.raises(DataError, match="no column group"):
        summarise(table().drop(columns="group"))
    with pytest.raises(DataError, match="empty"):
        summarise(table()[:0])


def test_paired_difference_does_not_depend_on_the_order_of_rows() -> None:
    a, b = table(seed=1, shift=0.1), table(seed=2)
    result = paired_difference(a, b.sample(frac=1, random_state=0))
    assert result == paired_difference(a, b)
    assert json.dumps(result, allow_nan=False)
    difference = a["dice"] - b["dice"]
    assert (result["n"], result["n_groups"]) == (60, 30)
    assert result["difference"] == pytest.approx(difference.mean())
    assert result["difference"] == pytest.approx(result["mean_a"] - result["mean_b"])
    low, high = result["interval"]
    assert low < result["difference"] < high
    of_groups = difference.groupby(a["group"]).mean()
    assert result["p"] == pytest.approx(wilcoxon(of_groups).pvalue)


def test_pairing_finds_what_two_separate_intervals_hide() -> None:
    a = table(seed=1)
    b = a.assign(dice=a["dice"] - 0.02)
    result = paired_difference(a, b)
    assert result["difference"] == pytest.approx(0.02)
    assert result["interval"] == pytest.approx([0.02, 0.02])
    assert result["p"] < 1e-5
    first, second = summarise(a, ["dice"])["overall"]["dice"], summarise(b, ["dice"])["overall"]["dice"]
    assert second["interval"][1] > first["interval"][0]
    swapped = paired_difference(b, a)
    assert swapped["difference"] == pytest.approx(-0.02)
    assert swapped["p"] == pytest.approx(result["p"])


def test_equal_runs_do_not_differ() -> None:
    result = paired_difference(table(), table())
    assert (result["difference"], result["p"], result["interval"]) == (0, 1, [0, 0])


def test_copied_groups_do_not_lower_p() -> None:
    a, b = table(seed=1, shift=0.05), table(seed=2)
    copies = [pd.concat([t, t.assign(id=t["id"] + " twin")], ignore_index=True) for t in (a, b)]
    assert paired_difference(*copies)["p"] == pytest.approx(paired_difference(a, b)["p"])


def test_several_seeds_are_averaged_case_by_case() -> None:
    runs = [table(seed=s) for s in (1, 2, 3)]
    pooled = paired_difference(pd.concat(runs), table(seed=9))
    mean = runs[0].assign(dice=np.mean([run["dice"] for run in runs], axis=0))
    single = paired_difference(mean, table(seed=9))
    assert pooled.pop("interval") == pytest.approx(single.pop("interval"))
    assert (pooled.pop("metric"), pooled) == (single.pop("metric"), pytest.approx(single))
    assert pooled["n"] == 60
    with pytest.raises(DataError, match="often"):
        paired_difference(pd.concat([runs[0], runs[1][:5]]), table())


def test_different_cases_or_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 ids in one only, such as case 0"):
        paired_difference(table(), table()[1:])
    with pytest.raises(DataError, match="different groups"):
        paired_difference(table(), table().assign(group="g0"))
