"""Paired comparison, the interval over seeds, Holm's adjustment and the table of comparisons."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from semidg.errors import DataError
from semidg.evaluation.comparison import compare, holm, mean_over_parts, paired_difference
from semidg.evaluation.statistics import bootstrap_interval, detectable_difference, summarise

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


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
    for name in ("dice", "hd95"):
        frame[name] = generator.uniform(0.2, 0.8, n) + shift
    return frame


def runs(*seeds: int, effects: tuple[float, ...] = (0.0, 0.0, 0.0), of: int | None = None) -> pd.DataFrame:
    """One run a seed: cases of their own (or all those of seed ``of``) plus the effect of the run."""
    parts = [table(seed=s if of is None else of).assign(run=s) for s in seeds]
    return pd.concat([p.assign(dice=p["dice"] + e) for p, e in zip(parts, effects, strict=False)], ignore_index=True)


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
    expected = detectable_difference(difference, a["group"], paired=True)
    assert result["detectable_difference"] == pytest.approx(expected)
    assert result["interval_seeds"] is None


def test_pairing_finds_what_two_separate_intervals_hide() -> None:
    a = table(seed=1)
    b = a.assign(dice=a["dice"] - 0.02)
    result = paired_difference(a, b)
    assert result["difference"] == pytest.approx(0.02)
    assert result["interval"] == pytest.approx([0.02, 0.02])
    assert result["detectable_difference"] == pytest.approx(0, abs=1e-12)
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


def test_equal_methods_are_told_apart_about_as_often_as_p_says() -> None:
    """200 pairs of equal methods; twins share most of their difference."""
    generator, frame, found, naive = np.random.default_rng(7), table(), 0, 0
    for _ in range(200):
        difference = generator.normal(size=30).repeat(2) + 0.3 * generator.normal(size=60)
        found += paired_difference(frame.assign(dice=difference), frame.assign(dice=0.0), draws=1)["p"] < 0.05
        naive += wilcoxon(difference).pvalue < 0.05
    assert 0.01 <= found / 200 <= 0.09
    assert naive / 200 > 0.1


def test_several_seeds_are_averaged_case_by_case() -> None:
    seeds = [table(seed=s) for s in (1, 2, 3)]
    pooled = paired_difference(pd.concat(seeds), table(seed=9))
    mean = seeds[0].assign(dice=np.mean([run["dice"] for run in seeds], axis=0))
    single = paired_difference(mean, table(seed=9))
    for key in ("interval", "interval_a"):
        assert pooled.pop(key) == pytest.approx(single.pop(key))
    assert (pooled.pop("metric"), pooled) == (single.pop("metric"), pytest.approx(single))
    assert pooled["n"] == 60
    assert pooled["interval_seeds"] is None  # which row is of which run is not known


def test_different_cases_or_groups_or_gaps_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 ids in one only, such as case 0"):
        paired_difference(table(), table()[1:])
    with pytest.raises(DataError, match="different groups"):
        paired_difference(table(), table().assign(group="g0"))
    with pytest.raises(DataError, match=r"first table holds case 10 1 times, but case 0 2 times"):
        paired_difference(pd.concat([table(), table()[:5]]), table())
    with pytest.raises(DataError, match=r"holds case 0 in run 2 0 times, but case 0 in run 1 1 times"):
        paired_difference(runs(1, 2).drop(index=60), table())
    twice = pd.concat([table(), table()], ignore_index=True)
    twice.loc[63, "group"] = "elsewhere"
    with pytest.raises(DataError, match="second table puts case 3 into different groups"):
        paired_difference(table(), twice)
    with pytest.raises(DataError, match="column run"):
        paired_difference(runs(1, 2).assign(run=[None] * 120), table())


def slow_crossed(a: pd.DataFrame, b: pd.DataFrame, paired: bool, draws: int = 3000) -> np.ndarray:
    """The pigeonhole bootstrap of the mean difference, case by case and run by run, from its definition."""
    generator, values = np.random.default_rng(11), []
    tables = [t.pivot_table(index="id", columns="run", values="dice") for t in (a, b)]
    group_of = a.groupby("id")["group"].first().loc[tables[0].index].to_numpy()
    members = [np.flatnonzero(group_of == name) for name in np.unique(group_of)]
    for _ in range(draws):
        rows = np.concatenate([members[g] for g in generator.integers(len(members), size=len(members))])
        columns = [generator.integers(t.shape[1], size=t.shape[1]) for t in tables]
        if paired:
            columns[1] = columns[0]
        means = [t.to_numpy()[np.ix_(rows, c)].mean() for t, c in zip(tables, columns, strict=True)]
        values.append(means[0] - means[1])
    return np.quantile(values, [0.025, 0.975])


@pytest.mark.parametrize("paired", [True, False])
def test_interval_over_seeds_agrees_with_a_slow_pigeonhole_bootstrap(paired: bool) -> None:
    a = runs(1, 2, 3, effects=(0.2, 0.0, -0.1))
    b = runs(4, 5, 6, effects=(-0.2, 0.0, 0.1))
    b = b.assign(run=b["run"] - 3) if paired else b[b["run"] < 6]
    slow = slow_crossed(a, b, paired)
    result = paired_difference(a, b)
    assert result["interval_seeds"] == pytest.approx(slow, abs=0.025)  # 0.3 to 0.6 wide
    low, high = result["interval"]
    assert slow[1] - slow[0] > 2 * (high - low) > 0.1  # it widens where runs differ


def test_identical_runs_add_nothing() -> None:
    a, b = runs(1, 2, of=1), runs(1, 2, of=5)
    result = paired_difference(a, b)
    assert result["interval_seeds"] == pytest.approx(result["interval"], abs=1e-12)
    other_names = paired_difference(a, b.assign(run=b["run"] + 2))
    assert other_names["interval_seeds"] == pytest.approx(result["interval"], abs=1e-12)


def test_runs_of_the_same_seed_are_paired_and_others_are_not() -> None:
    a = runs(1, 2, of=1, effects=(0.15, -0.05))
    b = runs(1, 2, of=1, effects=(0.1, -0.1))
    assert paired_difference(a, b)["interval_seeds"] == pytest.approx([0.05, 0.05])
    apart = paired_difference(a, b.assign(run=b["run"] + 2))
    assert apart["interval"] == pytest.approx([0.05, 0.05])
    assert apart["interval_seeds"] == pytest.approx([0.05 - 0.2, 0.05 + 0.2])  # each pair of runs is met
    assert paired_difference(a, b[b["run"] == 1])["interval_seeds"] is None


def test_networks_within_a_run_are_averaged_before_runs_are_resampled() -> None:
    a, b = runs(1, 2, effects=(0.1, 0.0)), runs(1, 2, of=6)
    halves = pd.concat([a.assign(dice=a["dice"] + d) for d in (0.05, -0.05)])
    one, two = paired_difference(a, b), paired_difference(halves, b)
    for key in ("interval", "interval_seeds", "mean_a", "p"):
        assert two[key] == pytest.approx(one[key])


@given(p_values)
def test_holm_agrees_with_a_slow_step_down_and_has_its_properties(p: list[float]) -> None:
    m, adjusted, ranked = len(p), holm(p), sorted(range(len(p)), key=lambda i: p[i])
    slow = [0.0] * m
    for rank, i in enumerate(ranked):
        slow[i] = min(1.0, max((m - before) * p[ranked[before]] for before in range(rank + 1)))
    assert adjusted == pytest.approx(slow)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    assert adjusted[ranked[0]] == pytest.approx(min(1.0, m * p[ranked[0]]))  # Bonferroni, for the smallest
    assert (adjusted <= np.minimum(1.0, m * np.asarray(p)) + 1e-12).all()
    assert (np.diff(adjusted[ranked]) >= 0).all()
    assert holm(p[::-1]) == pytest.approx(adjusted[::-1])


def test_holm_on_numbers_worked_by_hand_and_on_bad_ones() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(holm([])) == 0
    for bad in ([0.5, np.nan], [1.1], [-0.1], [[0.1]]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            holm(bad)


def test_table_has_a_row_a_name_and_metric() -> None:
    tables = {"base": runs(1, 2), "other": runs(1, 2, effects=(0.1, 0.2), of=4), "single": table(seed=3)}
    result = compare(tables, "base", ("dice", "hd95"), draws=500)
    assert list(result.columns) == [
        *("name", "metric", "n", "n_groups", "runs", "mean", "low", "high", "difference", "difference_low"),
        *("difference_high", "seeds_low", "seeds_high", "p", "p_holm", "detectable_difference"),
    ]
    assert list(zip(result["name"], result["metric"], strict=True)) == list(itertools.product(tables, ("dice", "hd95")))
    assert list(result["runs"]) == [2, 2, 2, 2, 1, 1]
    assert result.iloc[:2, 8:].isna().all(axis=None)
    assert result.iloc[4:][["seeds_low", "seeds_high"]].isna().all(axis=None)
    for _, row in result.iterrows():
        cases = tables[row["name"]].groupby("id").agg({row["metric"]: "mean", "group": "first"})
        interval = bootstrap_interval(cases[row["metric"]], cases["group"], draws=500)
        assert (row["low"], row["high"]) == pytest.approx(interval)
        assert row["mean"] == pytest.approx(cases[row["metric"]].mean())
        if row["name"] == "base":
            continue
        single = paired_difference(tables[row["name"]], tables["base"], row["metric"], draws=500)
        for key in ("difference", "p", "detectable_difference", "n", "n_groups"):
            assert row[key] == pytest.approx(single[key])
        assert [row["difference_low"], row["difference_high"]] == pytest.approx(single["interval"])
        if single["interval_seeds"]:
            assert [row["seeds_low"], row["seeds_high"]] == pytest.approx(single["interval_seeds"])
    # the family is all comparisons of the table
    assert result["p_holm"].iloc[2:].to_numpy() == pytest.approx(holm(result["p"].iloc[2:]))
    assert result.loc[result["p"].idxmin(), "p_holm"] == pytest.approx(min(1, 4 * result["p"].min()))


def test_table_refuses_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match=r"called sup, the baseline; there are a, b"):
        compare({"a": table(), "b": table()}, "sup")
    with pytest.raises(DataError, match=r"b and a were scored on different cases: 1 ids"):
        compare({"a": table(), "b": table()[1:]}, "a")
    with pytest.raises(DataError, match="no column iou"):
        compare({"a": table(), "b": table()}, "a", ("iou",))
    alone = compare({"a": table()[:1]}, "a")
    assert alone[["low", "p_holm"]].isna().all(axis=None)
    one_group = compare({"a": table()[:2], "b": table(seed=2)[:2]}, "a")
    assert one_group[["low", "difference_low", "detectable_difference"]].isna().all(axis=None)
    assert one_group["p"].iloc[1] == 1


def apart(*parts: pd.DataFrame) -> list[pd.DataFrame]:
    """Tables whose cases and groups are their own."""
    return [part.assign(id=f"{i} " + part["id"], group=f"{i} " + part["group"]) for i, part in enumerate(parts)]


def test_mean_over_parts_weighs_each_part_the_same() -> None:
    a, b = (apart(table(60, seed=one, shift=shift), table(12, seed=one + 1)) for one, shift in ((1, 0.1), (3, 0.0)))
    result = mean_over_parts(a, b)
    expected = [np.mean([t["dice"].mean() for t in tables]) for tables in (a, b)]
    assert result["mean"] == pytest.approx(expected[0])
    assert result["difference"] == pytest.approx(expected[0] - expected[1])
    assert result["difference_interval"][0] < result["difference"] < result["difference_interval"][1]
    assert (result["n"], result["n_groups"]) == (72, 36)
    of_groups = [(x["dice"] - y["dice"]).groupby(x["group"]).mean() for x, y in zip(a, b, strict=True)]
    assert result["p"] == pytest.approx(wilcoxon(np.concatenate(of_groups)).pvalue)
    assert result["interval_seeds"] is None
    assert json.dumps(result, allow_nan=False)
    alone = mean_over_parts(a)
    assert (alone["mean"], alone["interval"], alone["p"]) == (result["mean"], result["interval"], None)


def test_mean_over_one_part_is_the_paired_difference() -> None:
    a, b = runs(1, 2, effects=(0.1, 0.2), of=4), runs(1, 2)
    one, other = mean_over_parts([a], [b], draws=4000), paired_difference(a, b, draws=4000)
    assert one["difference"] == pytest.approx(other["difference"])
    assert one["p"] == pytest.approx(other["p"])
    for mine, theirs in (("difference_interval", "interval"), ("interval_seeds", "interval_seeds")):
        assert one[mine] == pytest.approx(other[theirs], abs=0.01)  # other draws


def test_mean_over_parts_has_the_error_of_independent_parts() -> None:
    generator = np.random.default_rng(0)
    frames = [table().assign(dice=generator.normal(0.5, 0.1, 60), group=[f"g{i}" for i in range(60)]) for _ in "abcd"]
    frames = apart(*frames)
    low, high = mean_over_parts(frames, draws=4000)["interval"]
    error = np.sqrt(sum(frame["dice"].var() / 60 for frame in frames)) / 4
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.08)
    with pytest.raises(DataError, match="different cases"):
        mean_over_parts(frames, [frames[0][1:], *frames[1:]])


@pytest.mark.parametrize("alike", [True, False])
def test_a_run_is_drawn_for_all_parts_that_have_it(alike: bool) -> None:
    """Each of two runs has one effect on all cases of four parts, +0.1 or -0.1: drawn together the mean keeps it."""
    parts = apart(*[runs(1, 2, effects=(0.1, -0.1), of=k) for k in range(4)])
    base = apart(*[runs(1, 2, of=k) for k in range(4)])
    if not alike:  # other runs in each part
        parts, base = ([t.assign(run=t["run"] + 10 * k) for k, t in enumerate(of)] for of in (parts, base))
    low, high = mean_over_parts(parts, base)["interval_seeds"]
    assert (low, high) == pytest.approx((-0.1, 0.1) if alike else (-0.075, 0.075), abs=0.026)
    assert (high - low > 0.19) == alike


def test_parts_with_the_same_cases_are_no_further_evidence() -> None:
    a, b = runs(1, 2, effects=(0.1, 0.2), of=4), runs(1, 2)
    three, one = mean_over_parts([a] * 3, [b] * 3, draws=4000), paired_difference(a, b, draws=4000)
    assert (three["n"], three["n_groups"], three["p"]) == (60, 30, pytest.approx(one["p"]))
    for mine, theirs in (("difference_interval", "interval"), ("interval_seeds", "interval_seeds")):
        assert three[mine] == pytest.approx(one[theirs], abs=0.01)  # other draws


def test_parts_that_overlap_are_drawn_together() -> None:
    """Against a slow bootstrap over the groups of all parts; one group is in each part, one part is small."""
    generator = np.random.default_rng(5)
    whole = table(60)
    parts = [whole[whole["group"].isin([f"g{k}" for k in of])] for of in ([0, *range(1, 20)], [0, *range(10, 30)], [0])]
    parts = [part.assign(dice=generator.uniform(0, 1, len(part))) for part in parts]
    result = mean_over_parts(parts, draws=4000)
    assert (result["n"], result["n_groups"]) == (60, 30)
    by_group = [{g: rows["dice"].to_list() for g, rows in part.groupby("group")} for part in parts]
    means = []
    for _ in range(4000):
        drawn = generator.choice([f"g{k}" for k in range(30)], 30)
        of_parts = [[v for g in drawn for v in values.get(g, [])] for values in by_group]
        means.append(np.mean([np.mean(values) for values in of_parts if values]))
    assert result["interval"] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.012)


def test_a_difference_shared_by_parts_that_overlap_is_not_found_too_often() -> None:
    """No true difference; each case has its own, the same in all three parts that hold it."""
    generator = np.random.default_rng(6)
    whole, found = table(60), 0
    for _ in range(200):
        gain = pd.Series(generator.normal(0, 0.1, 60))
        parts = [whole.drop(index=generator.choice(60, 10, replace=False)) for _ in range(3)]
        better = [part.assign(dice=part["dice"] + gain) for part in parts]
        found += mean_over_parts(better, parts, draws=1)["p"] < 0.05
    assert found / 200 < 0.1
