"""The arithmetic of a figure, with clocks that the tests set."""

from __future__ import annotations

import itertools
import time

import pytest
from benchmarks.evaluation import exponent
from benchmarks.figure import Figure, alternate, figure
from benchmarks.memory import against, slope
from benchmarks.training import over_neighbours


def test_a_figure_is_median_and_quartiles() -> None:
    found = figure("x", [5.0, 1.0, 4.0, 2.0, 3.0], unit="s")
    assert (found.q25, found.median, found.q75, found.unit) == (1.5, 3.0, 4.5, "s")
    alone = figure("x", [2.0])
    assert (alone.q25, alone.median, alone.q75) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("median", "target", "at_most", "reached"),
    [(1.0, 1.0, True, True), (1.1, 1.0, True, False), (1.0, 1.0, False, True), (0.9, 1.0, False, False)],
)
def test_a_target_counts_on_its_side(median: float, target: float, at_most: bool, reached: bool) -> None:
    assert Figure("x", median, 0, 9, target=target, at_most=at_most).reached is reached
    assert Figure("x", median, 0, 9).reached is None


def test_alternation_turns_the_order_round_and_divides_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, []
    durations = {"ours": itertools.cycle([3.0, 6.0]), "other": itertools.cycle([2.0, 1.0])}

    def run(name: str) -> None:
        nonlocal now
        calls.append(name)
        now += next(durations[name])

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    ratios, ours, other = alternate(lambda: run("ours"), lambda: run("other"), 3)
    assert calls == ["ours", "other", "other", "ours", "ours", "other", "other", "ours"]
    assert (ours, other) == ([6.0, 3.0, 6.0], [1.0, 2.0, 1.0])  # the warm-up took the first of each
    assert ratios == [6.0, 1.5, 6.0]


def test_a_machine_that_slows_down_steadily_moves_no_ratio_to_its_neighbours() -> None:
    def pace(k: int) -> float:
        return 1 + 0.1 * k  # of the k-th thing that runs: ours, other, ours, other, ...

    ours, others = [1.2 * pace(2 * k) for k in range(6)], [pace(2 * k + 1) for k in range(6)]
    assert over_neighbours(ours, others) == pytest.approx([1.2] * 5)


def test_an_exponent_is_found_again() -> None:
    counts = [10, 20, 50]
    assert exponent(counts, [3e-4 * n**1.7 for n in counts]) == pytest.approx(1.7)


def test_growth_is_the_slope_and_mapped_files_are_taken_off() -> None:
    assert slope([1, 2, 4], [5.0, 7.0, 11.0]) == pytest.approx(2)
    points = [{"peak": 700 + 0.06 * n, "mapped": 100 + 0.05 * n} for n in (500, 1000, 4000)]
    figures = {f.name: f for f in against("training, images", (500, 1000, 4000), points, 1000)}
    assert figures["training, images: growth of the peak"].median == pytest.approx(60)
    assert figures["training, images: growth without the mapped files"].median == pytest.approx(10)
    assert figures["training, images: peak at 500"].median == pytest.approx(730)
    elsewhere = against("x", (1, 2), [{"peak": 1.0, "mapped": None}, {"peak": 2.0, "mapped": None}], 1)
    assert [f.name for f in elsewhere] == ["x: growth of the peak", "x: peak at 1"]
