"""Corners of the comparison: rounding is no difference, seeds of some parts only, runs drawn apart from groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from comparison_support import make_cases
from semidg.evaluation.comparison import mean_over_parts, paired_difference

N = 20


def runs(*values: float | Sequence[float], domain: str = "delta") -> pd.DataFrame:
    """One run a value (or values, one a case): cases in groups of their own."""
    tables = [make_cases(np.broadcast_to(v, N), domain).assign(run=r) for r, v in enumerate(values)]
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("gained", [0, N - 2])
def test_rounding_of_a_mean_over_runs_is_no_difference(gained: int) -> None:
    """The mean of 0.1, 0.2 and 0.3 is not 0.2 to the last bit: in all groups, or in some beside true differences."""
    gain = np.where(np.arange(N) < gained, np.linspace(-0.04, 0.08, N), 0)
    a = runs(*(value + gain for value in (0.1, 0.2, 0.3)))
    b = runs(0.2)
    assert 0 < abs(np.mean([0.1, 0.2, 0.3]) - 0.2) < 1e-15
    expected = wilcoxon(gain).pvalue if gained else 1
    assert paired_difference(a, b, draws=10)["p"] == pytest.approx(expected)
    assert mean_over_parts([a], [b], draws=10)["p"] == pytest.approx(expected)
    parts = [[a, a.assign(group="of alpha " + a["group"])], [b, b.assign(group="of alpha " + b["group"])]]
    assert mean_over_parts(*parts, draws=10)["p"] == pytest.approx(wilcoxon([*gain, *gain]).pvalue if gained else 1)


def test_a_mean_over_parts_has_an_interval_over_seeds_only_where_every_part_has_seeds() -> None:
    two, one = ((runs(*values), runs(*values, domain="alpha")) for values in ((0.6, 0.7), (0.6,)))
    base = runs(0.5, 0.5), runs(0.5, 0.5, domain="alpha")
    for parts, known in (((two[0], two[1]), True), ((two[0], one[1]), False), ((one[0], two[1]), False)):
        result = mean_over_parts(parts, base, draws=100)
        assert (result["interval_seeds"] is not None) == known
        assert result["difference_interval"] is not None
    assert mean_over_parts(two, (base[0], runs(0.5, domain="alpha")), draws=100)["interval_seeds"] is None


def test_runs_are_drawn_apart_from_groups() -> None:
    """Two groups with effects of -0.1 and 0.1, two runs with the same.

    Drawn apart, all four draws are of the better one in 1 / 16 of the cases: fewer than the tenth beyond an 80 %
    interval, whose ends are 0.1 then. From one stream of random numbers the better run comes with the better group,
    the four agree in 1 / 8 and the ends are 0.2.
    """
    cases = make_cases([0.4, 0.6])
    a = pd.concat([cases.assign(run=run, dice=cases["dice"] + e) for run, e in enumerate((0.1, -0.1))])
    b = pd.concat([cases.assign(run=run, dice=0.5) for run in (0, 1)])
    for seed in range(3):
        for result in (
            paired_difference(a, b, level=0.8, seed=seed),
            mean_over_parts([a], [b], level=0.8, seed=seed),
        ):
            assert result["interval_seeds"] == pytest.approx([-0.1, 0.1])
