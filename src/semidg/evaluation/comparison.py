"""Comparison of methods scored on the same cases: paired differences, the choice of the seed, several comparisons.

The unit of all resampling and testing is the group, as in ``statistics``. A table of cases may hold several runs
(training seeds) of a method, told apart by its column ``run``, every case equally often in each; without the column
the runs of a case are only averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import wilcoxon

from semidg.errors import DataError
from semidg.evaluation.statistics import (
    DRAWS,
    Floats,
    check_cases,
    detectable_difference,
    json_interval,
    quantile_interval,
    resampled_sums,
)

_DUST = 1e-12  # rounding in means over runs of equal values, which a rank test would count as differences
_COLUMNS = (
    *("name", "metric", "n", "n_groups", "runs", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "seeds_low", "seeds_high"),
    *("p", "p_holm", "detectable_difference"),
)


def compare(
    tables: Mapping[str, pd.DataFrame],
    baseline: str,
    metrics: Sequence[str] = ("dice",),
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Every table against ``tables[baseline]`` on the same cases: one row a name and metric, nan where nothing is.

    Columns: name, metric, n (cases), n_groups, runs; mean, low, high (of the values averaged over runs, with their
    interval); difference, difference_low, difference_high, seeds_low, seeds_high, p, detectable_difference (of name
    minus baseline, as in ``paired_difference``); p_holm, Holm's adjustment over all comparisons of this table, which
    are its names other than the baseline times its metrics.

    Raises DataError for a baseline that is not there and for what ``paired_difference`` refuses.
    """
    if baseline not in tables:
        raise DataError(f"no table is called {baseline}, the baseline; there are {', '.join(tables)}")
    scores = {name: _scores(table, metrics, name) for name, table in tables.items()}
    rows = []
    for name, score in scores.items():
        paired = _paired(score, scores[baseline], draws, seed, level)
        for metric, d in zip(metrics, paired, strict=True):
            low, high = d["interval_a"] or (None, None)
            row = {"name": name, "metric": metric, "n": d["n"], "n_groups": d["n_groups"], "runs": score.n_runs}
            row |= {"mean": d["mean_a"], "low": low, "high": high}
            for key, interval in (("difference", d["interval"]), ("seeds", d["interval_seeds"])):
                row[f"{key}_low"], row[f"{key}_high"] = interval or (None, None)
            row |= {key: d[key] for key in ("difference", "p", "detectable_difference")}
            rows.append(row)
    table = pd.DataFrame(rows, columns=[*_COLUMNS]).astype(dict.fromkeys(_COLUMNS[5:], np.float64))
    others = table["name"] != baseline
    table.loc[~others, [*_COLUMNS[8:]]] = np.nan
    table.loc[others, "p_holm"] = holm(table.loc[others, "p"].to_numpy())
    return table


def paired_difference(
    a: pd.DataFrame,
    b: pd.DataFrame,
    metric: str = "dice",
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """The difference a - b of ``metric`` on the same cases; JSON-ready.

    ``{"metric", "n", "n_groups", "mean_a", "mean_b", "interval_a", "difference", "interval", "interval_seeds",
    "level", "p", "detectable_difference"}``. The values of a case are averaged over the runs of a table, for the
    seeds of a method on one test set are no further independent cases.

    interval: of the difference, by the cluster bootstrap over groups; for the runs at hand, not for new seeds.

    interval_seeds: also over the choice of the seeds; None unless both tables name at least two runs. One draw of
    the pigeonhole bootstrap (Owen, Annals of Applied Statistics 1, 2007) takes G of the G groups and, apart, R of the
    R runs with replacement; a case counts with the product of both frequencies. Where both tables have the same
    values of ``run`` these are paired: a run is drawn for both. Else each table draws its own. With R runs the draws
    show only (R - 1) / R of the variance between runs, so with two or three the interval is rough, and too narrow
    rather than too wide where the seeds differ.

    p: Wilcoxon's two-sided signed-rank test on the mean difference of each group, because the test assumes
    independent pairs; 1 where no group differs.

    detectable_difference: what this comparison could have found, from the standard error of the difference.

    Raises DataError when the two tables do not hold the same ids in the same groups, or a table does not hold each id
    equally often in each run.
    """
    scores = [_scores(table, [metric], name) for table, name in ((a, "the first table"), (b, "the second table"))]
    (result,) = _paired(scores[0], scores[1], draws, seed, level)
    return {"metric": metric, **result}


def mean_over_parts(
    parts: Sequence[pd.DataFrame],
    baseline: Sequence[pd.DataFrame] | None = None,
    metric: str = "dice",
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """The mean of ``metric`` over test parts, each with the same weight however many cases it has; JSON-ready.

    ``{"n", "n_groups", "mean", "interval", "difference", "difference_interval", "interval_seeds", "p"}``, the last four
    None without ``baseline``, which holds a table of the same cases for each part. Where no group is in two parts
    (held-out domains) each has draws of groups of its own, as in ``paired_difference``, and a draw of the result is the
    mean of theirs; else (validation parts of several trainings) a group is drawn for all parts at once, and a part with
    no case in a draw is left out of that draw. Where all parts have the same runs, a run is drawn for all of them: a
    seed draws much the same labels and weights whatever the part. n: cases of all parts, each once. p: Wilcoxon's test
    on the difference of each group, a mean over the parts that have it.

    Raises DataError for what ``paired_difference`` refuses.
    """
    scores = [_scores(table, [metric], f"part {i}") for i, table in enumerate(parts, 1)]
    others = [_scores(table, [metric], f"the baseline of part {i}") for i, table in enumerate(baseline or parts, 1)]
    every = _shared_groups(scores)
    alike = len({(a.runs, b.runs) for a, b in zip(scores, others, strict=True)}) == 1
    values, gains, crossed, of_groups = [], [], [], []
    for i, (a, b) in enumerate(zip(scores, others, strict=True)):
        _require_same_cases(a, b)
        difference = a.mean - b.mean
        amounts = np.concatenate([np.ones((len(a.ids), 1)), a.mean, difference], axis=1)
        of_part = seed + i if every is None else seed
        sums = resampled_sums(*_among(every, amounts, a.groups), draws, of_part)
        values.append(_ratio(sums[:, 1], sums[:, 0]))
        gains.append(_ratio(sums[:, 2], sums[:, 0]))
        crossed.append(_crossed_draws(a, b, draws, of_part, every, seed if alike else of_part))
        of_groups.append(pd.Series(difference[:, 0]).groupby(a.groups).mean())

    def interval(of_parts: Sequence[Floats]) -> list[float] | None:
        drawn = np.stack(of_parts)
        if every is not None:
            drawn = np.ma.masked_invalid(drawn)
        return json_interval(*quantile_interval(np.ma.filled(drawn.mean(axis=0), np.nan), level))

    seeds = [each[:, 0] for each in crossed if each is not None]
    together = pd.concat(of_groups)
    differences = (together if every is None else together.groupby(level=0).mean()).to_numpy()
    differences = np.where(np.abs(differences) < _DUST, 0.0, differences)
    result: dict[str, Any] = {
        "n": len({case for a in scores for case in zip(a.ids, a.groups, strict=True)}),
        "n_groups": len(differences),
        "mean": float(np.mean([a.mean.mean() for a in scores])),
        "interval": interval(values),
    } | dict.fromkeys(("difference", "difference_interval", "interval_seeds", "p"))
    if baseline is not None:
        gain = [a.mean.mean() - b.mean.mean() for a, b in zip(scores, others, strict=True)]
        result["difference"] = float(np.mean(gain))
        result["difference_interval"] = interval(gains)
        result["interval_seeds"] = interval(seeds) if len(seeds) == len(scores) else None
        result["p"] = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    return result


def holm(p: npt.ArrayLike) -> Floats:
    """Holm's step-down adjustment of the p values of a family, (m,): (m,), in the same order.

    With p_(1) <= ... <= p_(m): adjusted_(i) = min(1, max over j <= i of (m - j + 1) p_(j)). Rejecting what is at most
    alpha keeps the probability of any false rejection within alpha, whatever the dependence of the tests (Holm,
    Scandinavian Journal of Statistics 6, 1979). Raises ValueError for a value outside [0, 1].
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values must be a list of numbers in [0, 1], not {values}")
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(np.arange(len(values), 0, -1) * values[order])
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class _Scores:
    name: str
    ids: pd.Index[Any]
    groups: npt.NDArray[Any]  # (n,)
    values: Floats  # (n, R, m), R = 1 where runs are not told apart
    runs: tuple[Any, ...]  # the R names, none where runs are not told apart
    n_runs: int

    @property
    def mean(self) -> Floats:
        """(n, m), over the runs."""
        return np.asarray(self.values.mean(axis=1))


def _scores(cases: pd.DataFrame, metrics: Sequence[str], name: str) -> _Scores:
    named = "run" in cases.columns
    check_cases(cases, [*metrics, *(["run"] if named else [])])
    run = cases["run"] if named else pd.Series(0, index=cases.index, name="run")
    cells = cases.groupby(["id", run], sort=True)
    repeats = cells.size().unstack(fill_value=0)
    counts = repeats.to_numpy(dtype=np.int64)
    if counts.min() != counts.max():
        few, many = (
            f"{repeats.index[i]}{f' in run {repeats.columns[r]}' if named else ''} {counts[i, r]} times"
            for i, r in (np.argwhere(counts == extreme)[0] for extreme in (counts.min(), counts.max()))
        )
        raise DataError(f"{name} holds {few}, but {many}: every case is needed equally often")
    of_id = cases.groupby("id", sort=True)["group"]
    groups = of_id.first()
    if (unclear := of_id.nunique() > 1).any():
        raise DataError(f"{name} puts {groups.index[unclear][0]} into different groups")
    return _Scores(
        name=name,
        ids=groups.index,
        groups=groups.to_numpy(),
        values=cells[[*metrics]].mean().to_numpy(dtype=np.float64).reshape(*counts.shape, len(metrics)),
        runs=tuple(repeats.columns) if named else (),
        n_runs=counts.shape[1] if named else int(counts[0, 0]),
    )


def _paired(a: _Scores, b: _Scores, draws: int, seed: int, level: float) -> list[dict[str, Any]]:
    """What ``paired_difference`` returns, but for the metric: one entry a metric, all from the same draws."""
    _require_same_cases(a, b)
    n, _, m = a.values.shape
    difference = a.mean - b.mean
    one = np.ones((n, 1))
    sums = resampled_sums(np.concatenate([one, a.mean, difference], axis=1), a.groups, draws, seed)
    means = sums[:, 1:] / sums[:, :1]
    low, high = quantile_interval(means, level)
    seeds = _crossed_draws(a, b, draws, seed)
    seeds_low, seeds_high = quantile_interval(seeds, level) if seeds is not None else 2 * (np.full(m, np.nan),)
    of_groups = pd.DataFrame(difference).groupby(a.groups).mean().to_numpy()
    of_groups = np.where(np.abs(of_groups) < _DUST, 0.0, of_groups)
    results = []
    for i in range(m):
        smallest = detectable_difference(difference[:, i], a.groups, paired=True)
        results.append(
            {
                "n": n,
                "n_groups": len(of_groups),
                "mean_a": float(a.mean[:, i].mean()),
                "mean_b": float(b.mean[:, i].mean()),
                "interval_a": json_interval(low[i], high[i]),
                "difference": float(difference[:, i].mean()),
                "interval": json_interval(low[m + i], high[m + i]),
                "interval_seeds": json_interval(seeds_low[i], seeds_high[i]),
                "level": level,
                "p": float(wilcoxon(of_groups[:, i]).pvalue) if of_groups[:, i].any() else 1.0,
                "detectable_difference": None if np.isnan(smallest) else smallest,
            }
        )
    return results


def _require_same_cases(a: _Scores, b: _Scores) -> None:
    missing = a.ids.symmetric_difference(b.ids)
    if len(missing):
        examples = ", ".join(map(str, missing[:3]))
        raise DataError(
            f"{a.name} and {b.name} were scored on different cases: {len(missing)} ids in one only, such as {examples}"
        )
    if (a.groups != b.groups).any():
        raise DataError(
            f"{a.name} and {b.name} put the same cases into different groups: score both with the same index.csv"
        )


def _shared_groups(parts: Sequence[_Scores]) -> npt.NDArray[Any] | None:
    """The groups of all parts, where one is in two of them; None where they have none in common."""
    of_parts = [set(part.groups) for part in parts]
    every = sorted(set().union(*of_parts))
    return None if len(every) == sum(map(len, of_parts)) else np.array(every)


def _among(
    every: npt.NDArray[Any] | None, amounts: Floats, groups: npt.NDArray[Any]
) -> tuple[Floats, npt.NDArray[Any]]:
    """The amounts of a part behind a row of zeros for each group of ``every``: all parts draw from the same groups."""
    if every is None:
        return amounts, groups
    return np.concatenate([np.zeros((len(every), amounts.shape[1])), amounts]), np.concatenate([every, groups])


def _ratio(sums: Floats, counts: Floats) -> Floats:
    """nan where nothing is counted."""
    result = np.full(np.broadcast_shapes(sums.shape, counts.shape), np.nan)
    np.divide(sums, counts, out=result, where=counts > 0)
    return result


def _crossed_draws(
    a: _Scores,
    b: _Scores,
    draws: int,
    seed: int,
    every: npt.NDArray[Any] | None = None,
    runs_seed: int | None = None,
) -> Floats | None:
    """Differences in the draws of the pigeonhole bootstrap over groups and runs, (draws, m); None for lack of runs.

    Groups are drawn as for the plain interval, from ``every`` if given; runs from a generator of their own, of
    ``runs_seed``, by default ``seed``.
    """
    if min(len(a.runs), len(b.runs)) < 2:
        return None
    generator = np.random.default_rng([seed if runs_seed is None else runs_seed, 1])
    terms = [a.values - b.values] if a.runs == b.runs else [a.values, -b.values]
    result = np.zeros((draws, a.values.shape[2]))
    for term in terms:
        n, runs, m = term.shape
        amounts = np.concatenate([np.ones((n, 1)), term.reshape(n, runs * m)], axis=1)
        sums = resampled_sums(*_among(every, amounts, a.groups), draws, seed)  # the same groups for both terms
        means = _ratio(sums[:, 1:], sums[:, :1]).reshape(draws, runs, m)
        drawn = generator.multinomial(runs, np.full(runs, 1 / runs), size=draws) / runs
        result += (drawn[:, :, None] * means).sum(axis=1)
    return result
