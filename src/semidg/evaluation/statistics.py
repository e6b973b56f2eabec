"""From a table of cases to means with intervals, by stratum.

Cases of one group (near-duplicates, slices of one patient) are not independent, so groups are the unit of all
resampling here. A table of cases has the columns id, domain, class, group and one a metric.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from semidg.errors import DataError
from semidg.evaluation.metrics import LESION_COUNTS, METRICS, MM_METRICS

Floats = npt.NDArray[np.float64]

#: What ``summarise`` takes where nothing else is asked for, as far as the table has it.
SUMMARISED: tuple[str, ...] = (*METRICS, "area_bias", *MM_METRICS)

#: Lesion sizes, as fractions of the scored pixels: none 0, small < SMALL_BELOW <= medium < LARGE_FROM <= large.
SIZES: tuple[str, ...] = ("none", "small", "medium", "large")
SMALL_BELOW = 0.02
LARGE_FROM = 0.10

#: The detectable difference is found with probability POWER by a two-sided test at SIGNIFICANCE.
POWER = 0.8
SIGNIFICANCE = 0.05

#: Draws of a bootstrap: the ends of an interval then vary by some 0.03 of its half width with the draws.
DRAWS = 10_000

_CHUNK = 4_000_000  # cells of the draws x groups table held at a time


def bootstrap_interval(
    values: npt.ArrayLike, groups: npt.ArrayLike, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean of ``values``, (n,), by the cluster bootstrap over ``groups``, (n,).

    One draw takes G of the G groups with replacement, each with all its cases, and averages over the cases drawn:
    sum_g w_g s_g / sum_g w_g n_g with w_g how often group g was drawn, s_g the sum of its values and n_g their
    number. The interval runs from the (1 - level) / 2 to the (1 + level) / 2 quantile of the draws.

    With one group there is nothing to resample: (nan, nan).
    """
    column = np.asarray(values, dtype=np.float64)
    sums = resampled_sums(np.stack([np.ones_like(column), column], axis=1), np.asarray(groups), draws, seed)
    low, high = quantile_interval(sums[:, 1] / sums[:, 0], level)
    return float(low), float(high)


def resampled_sums(amounts: Floats, groups: npt.NDArray[Any], draws: int, seed: int) -> Floats:
    """Sums of each column of ``amounts``, (n, m), over the cases of each draw of the cluster bootstrap: (draws, m).

    All columns share the draws, so a ratio of two columns of the result is a ratio within one draw; a column of ones
    gives the number of cases drawn. The draws depend on the seed and on the order in which groups first appear, not
    on their names. With one group all values are nan.
    """
    if draws < 1:
        raise ValueError(f"draws must be positive, not {draws}")
    if len(amounts) == 0 or len(groups) != len(amounts):
        raise ValueError(f"one group a value is needed: {len(amounts)} values, {len(groups)} groups")
    sums = _group_sums(amounts, groups)
    n_groups = len(sums)
    if n_groups < 2:
        return np.full((draws, amounts.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK // n_groups)
    parts = []
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = generator.integers(n_groups, size=(rows, n_groups)) + n_groups * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * n_groups).reshape(rows, n_groups).astype(np.float64)
        parts.append(weights @ sums)
    return np.concatenate(parts)


def quantile_interval(statistics: Floats, level: float) -> tuple[Floats, Floats]:
    """The (1 - level) / 2 and (1 + level) / 2 quantiles of the draws of ``statistics``, (draws, ...): two (...)."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), not {level}")
    low, high = np.quantile(statistics, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def standard_error(values: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Cluster-robust standard error of the mean m of ``values``, (n,), by ``groups``, (n,); nan with one group.

    SE = sqrt( G / (G - 1) * sum_g (s_g - n_g m)^2 ) / n with s_g the sum of the values of group g and n_g their
    number: the linearised error of a ratio of sums over G independent groups. With groups of one case it is
    std / sqrt(n). But for G / (G - 1), it is the standard deviation of the draws of ``bootstrap_interval``.
    """
    column = np.asarray(values, dtype=np.float64)
    sums = _group_sums(np.stack([np.ones_like(column), column], axis=1), np.asarray(groups))
    n_groups = len(sums)
    if n_groups < 2:
        return float("nan")
    residuals = sums[:, 1] - sums[:, 0] * column.mean()
    return float(np.sqrt(n_groups / (n_groups - 1) * np.square(residuals).sum()) / len(column))


def detectable_difference(values: npt.ArrayLike, groups: npt.ArrayLike, *, paired: bool) -> float:
    """The true difference of means that a two-sided test at 5 % finds with 80 % power; nan with one group.

    (z_0.975 + z_0.8) SE = 2.80 SE, SE the standard error of the difference, by the normal approximation (good from
    some 30 groups on). ``paired``: values, (n,), are the differences of two methods on the same cases, SE is
    ``standard_error`` of their mean. Not paired: values are the scores of one method, and the other method is scored
    on other cases, as many and as variable, so SE = sqrt(2) times the standard error of the mean.
    """
    error = standard_error(values, groups) * (1.0 if paired else np.sqrt(2.0))
    return float((norm.ppf(1 - SIGNIFICANCE / 2) + norm.ppf(POWER)) * error)


def summarise(
    cases: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Mean, median, standard deviation and interval of each metric, overall and by stratum; JSON-ready.

    ``{"level", "draws", "seed", "detectable_difference": {"metric", "value", "power", "paired": false},
    "overall": S, "by_domain": {domain: S}, "by_class": {class: S}, "by_size": {size: S}}`` with
    ``S = {"n", "n_groups", metric: {"mean", "median", "std", "interval": [low, high]}, ..., "lesions": L}``,
    ``L = {"true", "found", "missed", "false", "sensitivity": R, "precision": R, "false_per_image": R}`` and
    ``R = {"value", "interval"}``, a ratio of sums over the cases.

    metrics: None takes those of SUMMARISED that the table has, for all classes and for each (``dice_1``). The
    detectable difference is that of dice, or of the first metric. by_size is there if the table has the column area, in
    [0, 1], and holds the sizes that occur, in the order of SIZES; lesions if it has LESION_COUNTS.

    n counts rows, n_groups what is independent of each other. ``std`` is the sample standard deviation (n - 1); a
    value that does not exist (the std of one case, the interval of one group, a ratio over 0) is None. Draws in which
    the denominator of a ratio is 0 are left out of its interval. Raises DataError for a missing column or value.
    """
    if metrics is None:
        metrics = [name for name in SUMMARISED if name in cases.columns] + class_metrics(cases.columns)
    if not metrics:
        raise DataError(f"the table of cases has no metric to summarise; it needs one of {', '.join(SUMMARISED)}")
    counted = [*LESION_COUNTS] if any(name in cases.columns for name in LESION_COUNTS) else []
    sized = ["area"] if "area" in cases.columns else []
    check_cases(cases, [*metrics, *counted, *sized])

    def block(part: pd.DataFrame) -> dict[str, Any]:
        amounts = part[[*metrics, *counted]].to_numpy(dtype=np.float64)
        amounts = np.concatenate([np.ones((len(part), 1)), amounts], axis=1)
        groups = part["group"].to_numpy()
        sums = resampled_sums(amounts, groups, draws, seed)
        result: dict[str, Any] = {"n": len(part), "n_groups": int(pd.unique(groups).size)}
        for name, values, drawn in zip(metrics, amounts.T[1:], sums.T[1:], strict=False):
            result[name] = {
                "mean": float(values.mean()),
                "median": float(np.median(values)),
                "std": float(values.std(ddof=1)) if len(part) > 1 else None,
                "interval": json_interval(*quantile_interval(drawn / sums[:, 0], level)),
            }
        if counted:
            keep = [0, *range(1 + len(metrics), amounts.shape[1])]
            result["lesions"] = _lesions(_group_sums(amounts[:, keep], groups), sums[:, keep], level)
        return result

    def by(column: str) -> dict[str, Any]:
        return {str(name): block(part) for name, part in cases.groupby(column, sort=True)}

    def by_size() -> dict[str, Any]:
        sizes = _sizes(cases)
        return {name: block(cases[sizes == name]) for name in SIZES if (sizes == name).any()}

    metric = "dice" if "dice" in metrics else metrics[0]
    smallest = detectable_difference(cases[metric], cases["group"], paired=False)
    return {
        "level": level,
        "draws": draws,
        "seed": seed,
        "detectable_difference": {
            "metric": metric,
            "value": None if np.isnan(smallest) else smallest,
            "power": POWER,
            "paired": False,
        },
        "overall": block(cases),
        "by_domain": by("domain"),
        "by_class": by("class"),
        **({"by_size": by_size()} if sized else {}),
    }


def class_metrics(columns: Iterable[str], metrics: Sequence[str] = SUMMARISED) -> list[str]:
    """Those of the columns that hold one of ``metrics`` of a single class: ``dice_1``, ``dice_2``, ..."""
    found = (re.fullmatch(r"(.+)_(\d+)", name) for name in columns)
    return [match[0] for match in found if match is not None and match[1] in metrics]


def check_cases(cases: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Raises DataError unless ``cases`` has rows, the columns of a table of cases and ``metrics``, and no gaps."""
    needed = ["id", "domain", "class", "group", *metrics]
    if absent := [name for name in needed if name not in cases.columns]:
        raise DataError(f"the table of cases has no column {', '.join(absent)}; it needs {', '.join(needed)}")
    if cases.empty:
        raise DataError("the table of cases is empty: there is nothing to summarise")
    if bad := [name for name in needed if cases[name].isna().any()]:
        ids = ", ".join(map(str, cases.loc[cases[bad[0]].isna(), "id"].head(3)))
        raise DataError(f"column {bad[0]} of the table of cases has no value for {ids}; every case must be scored")


def json_interval(low: float | Floats, high: float | Floats) -> list[float] | None:
    """``[low, high]``, or None where there is no interval (nan)."""
    return None if np.isnan(low) else [float(low), float(high)]


def _group_sums(amounts: Floats, groups: npt.NDArray[Any]) -> Floats:
    """Sum of each column of ``amounts``, (n, m), in each of the G groups, in the order they appear: (G, m)."""
    codes, names = pd.factorize(groups)
    return np.stack([np.bincount(codes, column, minlength=len(names)) for column in amounts.T], axis=1)


def _lesions(of_groups: Floats, sums: Floats, level: float) -> dict[str, Any]:
    """The block of lesions from images, true, found and false lesions: of each group, (G, 4), and draw, (draws, 4).

    Where no or all of them count, every draw says so: then Wilson's interval of that share, of as many as there are
    groups that have some. A mean of none at all has no interval.
    """
    totals = of_groups.sum(axis=0)
    _, true, found, false = (round(total) for total in totals)

    def ratio(above: int, below: Sequence[int]) -> dict[str, Any]:
        whole = totals[below].sum()
        if not whole:
            return {"value": None, "interval": None}
        if len(of_groups) > 1 and below == [0] and totals[above] == 0:
            return {"value": 0.0, "interval": None}
        if len(of_groups) > 1 and below != [0] and totals[above] in (0, whole):
            n = int((of_groups[:, below].sum(axis=1) > 0).sum())
            certain = n / (n + float(norm.ppf((1 + level) / 2)) ** 2)
            interval = [certain, 1.0] if totals[above] else [0.0, 1 - certain]
            return {"value": float(totals[above] / whole), "interval": interval}
        denominators = sums[:, below].sum(axis=1)
        defined = denominators > 0  # none where there is one group, for its draws are nan
        ends = quantile_interval(sums[defined, above] / denominators[defined], level) if defined.any() else None
        return {"value": float(totals[above] / whole), "interval": ends and json_interval(*ends)}

    return {
        "true": true,
        "found": found,
        "missed": true - found,
        "false": false,
        "sensitivity": ratio(2, [1]),
        "precision": ratio(2, [2, 3]),
        "false_per_image": ratio(3, [0]),
    }


def _sizes(cases: pd.DataFrame) -> npt.NDArray[np.str_]:
    """The size of each case by its column area: names of SIZES, (n,)."""
    area = cases["area"].to_numpy(dtype=np.float64)
    if wrong := cases.loc[(area < 0) | (area > 1), "id"].head(1).tolist():
        raise DataError(f"area of {wrong[0]} is outside 0 to 1: it is the fraction of scored pixels that are true")
    return np.asarray(SIZES)[np.where(area > 0, 1 + np.digitize(area, [SMALL_BELOW, LARGE_FROM]), 0)]
