"""The rows of a comparison: arms side by side, seeds pooled, paired with the baseline on the same cases.

Only runs of one protocol, held-out domain and labelled fraction are pooled or paired.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from semidg.errors import DataError
from semidg.evaluation.comparison import compare, holm, mean_over_parts
from semidg.experiment.grid import Cell
from semidg.report.comparison_runs import Scored

NAN = float("nan")
#: Columns of a table of cases that a row averages, as far as the table has them.
AVERAGED = ("hd95", "nsd", "boundary_f1")
_DIFFERENCE = ("difference", "difference_low", "difference_high", "seeds_low", "seeds_high", "p")


@dataclass(frozen=True)
class Row:
    """A row of the table. Dice, its intervals and differences are fractions, distances pixels; NaN is no value.

    low, high: of the mean over seeds and cases, over the draw of the cases. difference: from the baseline, paired.
    seeds_low, seeds_high: of the difference, also over the choice of the seeds.
    """

    arm: str
    one_network: bool
    protocol: str
    mark: str | None
    target: str | None
    labelled: float
    seeds: tuple[int, ...]
    n: int
    n_groups: int
    dice: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    means: Mapping[str, float]
    by_domain: Mapping[str, float]
    is_baseline: bool = False
    difference: float = NAN
    difference_low: float = NAN
    difference_high: float = NAN
    seeds_low: float = NAN
    seeds_high: float = NAN
    p: float = NAN
    p_holm: float = NAN
    detectable: float = NAN
    paired_seeds: tuple[int, ...] = field(default=())
    """The seeds that both this row and the baseline have: the difference is over these alone."""
    note: str | None = None
    """Why there is no difference, where there is a baseline."""
    targets: tuple[str, ...] = field(default=())
    """The held-out domains over which the row is a mean; empty for a row of one."""
    by_class: Mapping[str, float] = field(default_factory=dict)
    """Mean Dice by the name of the class; empty where there is but one foreground class."""

    @property
    def name(self) -> str:
        """As shown."""
        return f"{self.arm}, one network" if self.one_network else self.arm


def rows(runs: Sequence[Scored], baseline: str) -> list[Row]:
    """A row an arm, and one for its networks alone, in each group; Holm over a protocol and held-out domain.

    Of an arm in a group, the runs count whose cases most of its runs have (of equally many, those of its first run): a
    note names the others.
    """
    groups: dict[tuple[str, str | None, float], list[Scored]] = {}
    order = {(run.protocol, run.cell.target): i for i, run in reversed([*enumerate(runs)])}
    runs, notes = _of_the_same_cases(runs)
    for run in sorted(runs, key=lambda run: (order[run.protocol, run.cell.target], run.cell.labelled)):
        groups.setdefault((run.protocol, run.cell.target, run.cell.labelled), []).append(run)
    arms = list(dict.fromkeys(run.cell.arm for run in runs))
    found = [
        replace(row, note="; ".join(filter(None, (notes.get(_key(row)), row.note))) or None)
        for group in groups.values()
        for row in _group(group, arms, baseline)
    ]
    return _adjusted(found, lambda row: (row.protocol, row.target))


def mean_rows(runs: Sequence[Scored], baseline: str) -> list[Row]:
    """A row an arm: the mean over the held-out domains of a protocol, by the seeds that are done at all of them.

    Arms that lack a domain, and protocols with fewer than two, have none.
    """
    found: list[Row] = []
    runs, _ = _of_the_same_cases(runs)
    for protocol, labelled in dict.fromkeys((run.protocol, run.cell.labelled) for run in runs):
        here = [run for run in runs if (run.protocol, run.cell.labelled) == (protocol, labelled)]
        targets = [t for t in dict.fromkeys(run.cell.target for run in here) if t is not None]
        if len(targets) < 2:
            continue
        arms = {arm: _by_seed_and_target(here, arm, targets) for arm in dict.fromkeys(run.cell.arm for run in here)}
        arms = {arm: seeds for arm, seeds in arms.items() if seeds}
        for arm, seeds in arms.items():
            against = arms.get(baseline) if arm != baseline else None
            found.append(_mean_row(here[0], labelled, arm, targets, seeds, against, arm == baseline))
    return _adjusted(found, lambda row: row.protocol)


def _key(of: Cell | Row) -> tuple[str, str | None, float]:
    return of.arm, of.target, of.labelled


def _of_the_same_cases(runs: Sequence[Scored]) -> tuple[list[Scored], dict[Any, str]]:
    """The runs without those of an arm that were scored on other cases than most, and a note on these."""
    arms: dict[Any, list[tuple[Scored, frozenset[Any]]]] = {}
    for run in runs:
        table = run.cases["mean"]
        cases = frozenset(zip(table["id"], table["group"], strict=True))
        arms.setdefault((run.protocol, *_key(run.cell)), []).append((run, cases))
    left, notes = set(), {}
    for of_arm in arms.values():
        (usual, _), *_ = Counter(cases for _, cases in of_arm).most_common()
        odd = [run for run, cases in of_arm if cases != usual]
        if odd:
            seeds = f"seed{'s' * (len(odd) > 1)} {', '.join(str(run.cell.seed) for run in odd)}"
            notes[_key(odd[0].cell)] = (
                f"{odd[0].cell.arm}: {seeds} left out, scored on other cases than its other seeds: the data, groups or "
                f"split were others; to make one anew, delete its folder ({odd[0].cell.name})"
            )
            left |= {id(run) for run in odd}
    return [run for run in runs if id(run) not in left], notes


def _group(runs: Sequence[Scored], arms: Sequence[str], baseline: str) -> list[Row]:
    tables: dict[tuple[str, bool], list[Scored]] = {}
    for arm in arms:
        of_arm = [run for run in runs if run.cell.arm == arm]
        for one_network in (False, True):
            having = [run for run in of_arm if run.table(one_network) is not None]
            if having:
                tables[arm, one_network] = having
    against = tables.get((baseline, False), [])
    found = []
    for (arm, one_network), of_row in tables.items():
        table = _pooled(of_row, one_network)
        is_baseline = (arm, one_network) == (baseline, False)
        result, note = compare({"arm": table}, "arm").to_dict("records")[0], None
        # seeds draw the labelled images: a mean over other seeds is one over other labels
        common = [] if is_baseline else [s for s in _seeds(of_row) if s in _seeds(against)]
        difference: Mapping[Any, Any] = {}
        if common:
            pair = (
                _pooled([run for run in of if run.cell.seed in common], one_network and of is of_row)
                for of in (of_row, against)
            )
            try:
                difference = compare(dict(zip(("arm", "baseline"), pair, strict=True)), "baseline").to_dict("records")[
                    0
                ]
            except DataError as error:
                note = f"{arm} is not paired with {baseline}: {error}"
        elif against and not is_baseline:
            note = f"{arm} is not paired with {baseline}: no seed has both"
        row = Row(
            arm=arm,
            one_network=one_network,
            protocol=of_row[0].protocol,
            mark=of_row[0].mark,
            target=of_row[0].cell.target,
            labelled=of_row[0].cell.labelled,
            seeds=_seeds(of_row),
            n=int(result["n"]),
            n_groups=int(result["n_groups"]),
            dice=float(result["mean"]),
            low=float(result["low"]),
            high=float(result["high"]),
            by_seed=tuple(float(t["dice"].mean()) for run in of_row if (t := run.table(one_network)) is not None),
            means={name: float(table[name].mean()) for name in AVERAGED if name in table},
            by_domain={str(name): float(values.mean()) for name, values in table.groupby("domain")["dice"]},
            by_class=_by_class(of_row[0].cell, [table]),
            is_baseline=is_baseline,
            note=note,
        )
        if difference:
            values = {key: float(difference[key]) for key in _DIFFERENCE}
            values["detectable"] = float(difference["detectable_difference"])
            row = replace(row, paired_seeds=tuple(common), **values)  # type: ignore[arg-type]
        found.append(row)
    return found


def _by_class(cell: Cell, tables: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Mean Dice of each foreground class, of several tables with the same weight; empty where there is but one."""
    names = {f"dice_{k}": name for k, name in enumerate(cell.config.network.names)}
    return {
        name: sum(float(table[key].mean()) for table in tables) / len(tables)
        for key, name in names.items()
        if all(key in table for table in tables)
    }


def _seeds(runs: Sequence[Scored]) -> tuple[int, ...]:
    return tuple(run.cell.seed for run in runs)


def _pooled(runs: Sequence[Scored], one_network: bool) -> pd.DataFrame:
    return pd.concat([table for run in runs if (table := run.table(one_network)) is not None], ignore_index=True)


def _by_seed_and_target(runs: Sequence[Scored], arm: str, targets: Sequence[str]) -> dict[int, list[Scored]]:
    """Seed -> its run at each target; only seeds that have all."""
    found: dict[int, list[Scored]] = {}
    of_arm = {(run.cell.seed, run.cell.target): run for run in runs if run.cell.arm == arm}
    for seed in dict.fromkeys(seed for seed, _ in of_arm):
        of_seed = [of_arm[seed, target] for target in targets if (seed, target) in of_arm]
        if len(of_seed) == len(targets):
            found[seed] = of_seed
    return found


def _mean_row(
    example: Scored,
    labelled: float,
    arm: str,
    targets: Sequence[str],
    seeds: Mapping[int, Sequence[Scored]],
    against: Mapping[int, Sequence[Scored]] | None,
    is_baseline: bool,
) -> Row:
    def by_target(of: Mapping[int, Sequence[Scored]]) -> list[pd.DataFrame]:
        return [_pooled([runs[i] for runs in of.values()], False) for i in range(len(targets))]

    tables = by_target(seeds)
    result, note, difference = mean_over_parts(tables), None, None
    common = [seed for seed in seeds if against and seed in against]
    if against and common:
        try:
            mine, theirs = (by_target({s: of[s] for s in common}) for of in (seeds, against))
            difference = mean_over_parts(mine, theirs)
        except DataError as error:
            note = f"{arm}, mean over targets, is not paired: {error}"
    elif against:
        note = f"{arm}, mean over targets, is not paired: no seed has both"
    low, high = result["interval"] or (NAN, NAN)
    row = Row(
        arm=arm,
        one_network=False,
        protocol=example.protocol,
        mark=example.mark,
        target=None,
        labelled=labelled,
        seeds=tuple(seeds),
        n=result["n"],
        n_groups=result["n_groups"],
        dice=result["mean"],
        low=low,
        high=high,
        by_seed=tuple(
            sum(float(run.cases["mean"]["dice"].mean()) for run in runs) / len(runs) for runs in seeds.values()
        ),
        means={
            name: sum(float(table[name].mean()) for table in tables) / len(tables)
            for name in AVERAGED
            if all(name in table for table in tables)
        },
        by_domain={target: float(table["dice"].mean()) for target, table in zip(targets, tables, strict=True)},
        by_class=_by_class(example.cell, tables),
        is_baseline=is_baseline,
        note=note,
        targets=tuple(targets),
    )
    if difference is None:
        return row
    difference_low, difference_high = difference["difference_interval"] or (NAN, NAN)
    seeds_low, seeds_high = difference["interval_seeds"] or (NAN, NAN)
    return replace(
        row,
        paired_seeds=tuple(common),
        difference=difference["difference"],
        difference_low=difference_low,
        difference_high=difference_high,
        seeds_low=seeds_low,
        seeds_high=seeds_high,
        p=difference["p"],
    )


def _adjusted(found: Sequence[Row], family: Any) -> list[Row]:
    """The rows with Holm's p over each family."""
    families: dict[Any, list[int]] = {}
    for i, row in enumerate(found):
        if not math.isnan(row.p):
            families.setdefault(family(row), []).append(i)
    result = list(found)
    for places in families.values():
        for i, p in zip(places, holm([found[i].p for i in places]), strict=True):
            result[i] = replace(result[i], p_holm=float(p))
    return result
