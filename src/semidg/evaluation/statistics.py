"""From a table of cases to means with intervals, and to paired comparisons of two runs.

Cases of one group (near-duplicates, slices of one patient) are not independent, so groups are the unit of all
resampling and testing here. A table of cases has the columns id, domain, class, group and one a metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import wilcoxon

from semidg.errors import DataError
from semidg.evaluation.metrics import METRICS

Floats = npt.NDArray[np.float64]

_CHUNK = 4_000_000  # cells of the draws x groups table held at a time


def bootstrap_interval(
    values: npt.ArrayLike, groups: npt.ArrayLike, draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values``, (n,), by the cluster bootstrap over ``groups``, (n,).

    One draw takes G of the G groups with replacement, each with all its cases, and averages over the cases drawn:
    sum_g w_g s_g / sum_g w_g n_g with w_g how often group g was drawn, s_g the sum of its values and n_g their
    number. The interval runs from the (1 - level) / 2 to the (1 + level) / 2 quantile of the draws.

    With one group there is nothing to resample: (nan, nan).
    """
    low, high = _intervals(np.asarray(values, dtype=np.float64)[:, None], np.asarray(groups), draws, seed, level)
    return float(low[0]), float(high[0])


def summarise(
    cases: pd.DataFrame,
    metrics: Sequence[str] = METRICS,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Mean, median, standard deviation and interval of each metric: overall, by domain and by class; JSON-ready.

    ``{"level", "draws", "seed", "overall": S, "by_domain": {domain: S}, "by_class": {class: S}}`` with
    ``S = {"n", "n_groups", metric: {"mean", "median", "std", "interval": [low, high]}}``. n counts rows, n_groups
    what is independent of each other. ``std`` is the sample standard deviation (n - 1); a value that does not exist
    (the std of one case, the interval of one group) is None. Raises DataError for a missing column or value.
    """
    _check(cases, metrics)

    def block(part: pd.DataFrame) -> dict[str, Any]:
        values = part[list(metrics)].to_numpy(dtype=np.float64)
        groups = part["group"].to_numpy()
        low, high = _intervals(values, groups, draws, seed, level)
        result: dict[str, Any] = {"n": len(part), "n_groups": int(pd.unique(groups).size)}
        for column, name in enumerate(metrics):
            result[name] = {
                "mean": float(values[:, column].mean()),
                "median": float(np.median(values[:, column])),
                "std": float(values[:, column].std(ddof=1)) if len(part) > 1 else None,
                "interval": _json_interval(low[column], high[column]),
            }
        return result

    def by(column: str) -> dict[str, Any]:
        return {str(name): block(part) for name, part in cases.groupby(column, sort=True)}

    return {
        "level": level,
        "draws": draws,
        "seed": seed,
        "overall": block(cases),
        "by_domain": by("domain"),
        "by_class": by("class"),
    }


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str = "dice",
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """The difference a - b of ``metric`` on the same cases; JSON-ready.

    ``{"metric", "n", "n_groups", "mean_a", "mean_b", "difference", "interval": [low, high], "level", "p"}``.
    The interval is the cluster bootstrap's over groups. p is Wilcoxon's two-sided signed-rank test on the mean
    difference of each group, because the test assumes independent pairs; 1 where no group differs. A table may hold
    several runs (seeds) of one method, every id equally often: their mean over the runs is compared, for the seeds
    of a method on one test set are no further independent cases.

    Raises DataError when the two tables do not hold the same ids.
    """
    pair = [_per_case(table, metric, name) for table, name in ((a, "first"), (b, "second"))]
    missing = pair[0].index.symmetric_difference(pair[1].index)
    if len(missing):
        examples = ", ".join(map(str, missing[:3]))
        raise DataError(f"the runs were scored on different cases: {len(missing)} ids in one only, such as {examples}")
    groups = pair[0]["group"].to_numpy()
    if (groups != pair[1]["group"].to_numpy()).any():
        raise DataError("the runs put the same cases into different groups: score both with the same index.csv")
    values = [table[metric].to_numpy(dtype=np.float64) for table in pair]
    difference = values[0] - values[1]
    of_groups = pd.Series(difference).groupby(groups).mean().to_numpy()
    # equal cases leave rounding dust in the means over runs, which a rank test would count as differences
    of_groups = np.where(np.abs(of_groups) < 1e-12, 0.0, of_groups)
    return {
        "metric": metric,
        "n": len(difference),
        "n_groups": len(of_groups),
        "mean_a": float(values[0].mean()),
        "mean_b": float(values[1].mean()),
        "difference": float(difference.mean()),
        "interval": _json_interval(*bootstrap_interval(difference, groups, draws, seed, level)),
        "level": level,
        "p": float(wilcoxon(of_groups).pvalue) if of_groups.any() else 1.0,
    }


def _intervals(values: Floats, groups: npt.NDArray[Any], draws: int, seed: int, level: float) -> tuple[Floats, Floats]:
    """Interval of the mean of each column of ``values``, (n, m): two arrays (m,). All columns share the draws."""
    if not 0 < level < 1 or draws < 1:
        raise ValueError(f"level must lie in (0, 1) and draws be positive, not {level} and {draws}")
    if len(values) == 0 or len(groups) != len(values):
        raise ValueError(f"one group a value is needed: {len(values)} values, {len(groups)} groups")
    codes, names = pd.factorize(groups)
    n_groups = len(names)
    if n_groups < 2:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing
    counts = np.bincount(codes, minlength=n_groups).astype(np.float64)
    sums = np.stack([np.bincount(codes, column, minlength=n_groups) for column in values.T], axis=1)
    generator = np.random.default_rng(seed)
    means = []
    step = max(1, _CHUNK // n_groups)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = generator.integers(n_groups, size=(rows, n_groups)) + n_groups * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * n_groups).reshape(rows, n_groups).astype(np.float64)
        means.append((weights @ sums) / (weights @ counts)[:, None])
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _check(cases: pd.DataFrame, metrics: Sequence[str]) -> None:
    needed = ["id", "domain", "class", "group", *metrics]
    if absent := [name for name in needed if name not in cases.columns]:
        raise DataError(f"the table of cases has no column {', '.join(absent)}; it needs {', '.join(needed)}")
    if cases.empty:
        raise DataError("the table of cases is empty: there is nothing to summarise")
    if bad := [name for name in needed if cases[name].isna().any()]:
        ids = ", ".join(map(str, cases.loc[cases[bad[0]].isna(), "id"].head(3)))
        raise DataError(f"column {bad[0]} of the table of cases has no value for {ids}; every case must be scored")


def _per_case(cases: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    _check(cases, [metric])
    repeats = cases["id"].value_counts()
    if repeats.nunique() > 1:
        raise DataError(f"the {name} table holds {repeats.index[0]} {repeats.iloc[0]} times, but other ids less often")
    return cases.groupby("id", sort=True).agg({metric: "mean", "group": "first"})


def _json_interval(low: float, high: float) -> list[float] | None:
    return None if np.isnan(low) else [float(low), float(high)]
