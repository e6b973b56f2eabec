"""A Markdown table of finished runs: methods side by side, seeds pooled, paired with a baseline on the same cases.

    python -m benchmarks.table runs/sup-0 runs/sup-1 runs/dual-0 runs/dual-1 --baseline supervised

Runs of one method, labelled fraction and protocol are its seeds. "METHOD, one network" is the mean over the two
networks, each scored alone: what a single network trained this way gives. Dice is the mean over seeds and cases; the
interval, and the difference to the baseline, resample groups of near-duplicates on values averaged over the seeds of a
case. "with seeds" resamples the seeds too, where there are two or more. p is Wilcoxon's, p Holm is adjusted for all
comparisons under one protocol. "detectable" is the difference that the comparison finds with 80 % power. Runs of
different protocols or held-out domains are never pooled or paired. ``--part validation`` tables what
``semidg evaluate RUN --part validation`` wrote. ``--cases FILE.csv.gz`` also writes all cases of all runs, a row a
case, run and network.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from semidg.errors import DataError, SemidgError
from semidg.evaluation.comparison import compare
from semidg.files import atomic_path

COLUMNS = (
    *("method", "protocol", "seeds", "n", "Dice %", "95 % interval", "by seed", "HD95 px", "by domain"),
    *("minus baseline", "with seeds", "p", "p Holm", "detectable"),
)


@dataclass(frozen=True)
class Run:
    """A scored run."""

    folder: Path
    method: str
    labelled: float
    seed: int
    protocol: str
    mark: str | None
    commit: str
    cases: dict[str, pd.DataFrame]  # "" the mean of the networks, ", one network" each of them alone


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--baseline", default="supervised")
    parser.add_argument("--part", default="test", choices=["test", "validation"])
    parser.add_argument("--cases", type=Path, default=None)
    options = parser.parse_args()
    try:
        runs = [load(run, options.part) for run in options.runs]
        print("\n".join(lines(runs, options.baseline)))
        if options.cases is not None:
            write_cases(runs, options.cases)
    except SemidgError as error:
        parser.error(str(error))


def load(folder: Path, part: str) -> Run:
    """The part of a run folder that the table needs."""
    scored = folder if part == "test" else folder / "parts" / part
    summary = json.loads((scored / "summary.json").read_text("utf-8"))
    cases = {"": read(scored / "cases.csv")}
    if alone := sorted((scored / "evaluation").glob(f"{summary['checkpoint']}-network_*.csv")):
        cases[", one network"] = pd.concat([read(path) for path in alone], ignore_index=True)
    target = summary.get("target")
    return Run(
        folder=folder,
        method=summary["method"],
        labelled=summary["labelled"],
        seed=summary["seed"],
        protocol=summary["protocol"] + (f", {target}" if target else ""),
        mark=summary.get("mark"),
        commit=str(json.loads((folder / "environment.json").read_text("utf-8"))["commit"]),
        cases={predictor: table.assign(run=summary["seed"]) for predictor, table in cases.items()},
    )


def write_cases(runs: list[Run], path: Path) -> None:
    """Every case of every run and predictor; the same runs give the same bytes."""
    tables = []
    for run in runs:
        for predictor, cases in run.cases.items():
            head = {"method": run.method + predictor, "labelled": run.labelled, "protocol": run.protocol}
            tables.append(cases.drop(columns="run").assign(**head, seed=run.seed, commit=run.commit))
    table = pd.concat(tables, ignore_index=True)
    first = ["method", "labelled", "protocol", "seed", "commit"]
    table = table[first + [name for name in table.columns if name not in first]]
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", compression={"method": "gzip", "mtime": 0})


def lines(runs: list[Run], baseline: str) -> Iterable[str]:
    """The table, its notes and the commits; raises DataError for runs that cannot be pooled or paired."""
    notes = list(dict.fromkeys(run.mark for run in runs if run.mark))
    rows = pool(runs)
    protocols = list(dict.fromkeys(protocol for protocol, _ in rows))
    with_baseline = [protocol for protocol, name in rows if name == baseline]
    yield f"| {' | '.join(COLUMNS)} |"
    yield f"|{'---|' * len(COLUMNS)}"
    for protocol in protocols:
        tables = {name: pd.concat(parts, ignore_index=True) for (p, name), parts in rows.items() if p == protocol}
        if with_baseline and protocol not in with_baseline:
            raise DataError(
                f"under the protocol {protocol} there is no run of {baseline}, only under "
                f"{' and '.join(with_baseline)}; runs of different protocols are not paired. Make a table of each, or "
                "add the run"
            )
        if with_baseline:
            compared = compare(tables, baseline)
        else:
            compared = pd.concat([compare({name: table}, name) for name, table in tables.items()])
        here = {run.mark for run in runs if run.protocol == protocol}
        label = protocol + "".join(f" [{i}]" for i, note in enumerate(notes, start=1) if note in here)
        for result in compared.to_dict("records"):
            name = str(result["name"])
            yield f"| {' | '.join([name, label, *cells(result, rows[protocol, name])])} |"
    for number, note in enumerate(notes, start=1):
        yield f"\n[{number}] {note}"
    yield f"\ncommits: {', '.join(sorted({run.commit for run in runs}))}"


def pool(runs: list[Run]) -> dict[tuple[str, str], list[pd.DataFrame]]:
    """The tables of the seeds of each row, (protocol, name); the fraction is named where the runs differ in it."""
    several = len({run.labelled for run in runs}) > 1
    rows: dict[tuple[str, str], list[pd.DataFrame]] = defaultdict(list)
    seen: dict[tuple[str, str, int], Path] = {}
    for run in runs:
        method = f"{run.method}, {100 * run.labelled:g} % labelled" if several else run.method
        if other := seen.get((run.protocol, method, run.seed)):
            raise DataError(
                f"{other} and {run.folder}: both {method} with seed {run.seed} under {run.protocol}; the seed tells "
                "the runs of a method apart, give one of them"
            )
        seen[run.protocol, method, run.seed] = run.folder
        for predictor, table in run.cases.items():
            rows[run.protocol, method + predictor].append(table)
    return dict(rows)


def cells(result: Mapping[Any, Any], runs: list[pd.DataFrame]) -> list[str]:
    """The cells of a row behind its protocol, from its row of ``compare`` and the tables of its seeds."""
    table = pd.concat(runs, ignore_index=True)
    difference = interval = p = adjusted = detectable = ""
    if not math.isnan(result["p"]):
        difference = f"{100 * result['difference']:+.1f} ({span(result, 'difference_', '+.1f')})"
        interval = span(result, "seeds_", "+.1f")
        p, adjusted = (f"{v:.3f}" if v >= 0.0005 else "< 0.001" for v in (result["p"], result["p_holm"]))
        detectable = number(result["detectable_difference"], ".1f")
    return [
        ", ".join(str(run["run"].iloc[0]) for run in runs),
        str(result["n"]),
        number(result["mean"], ".1f"),
        span(result, "", ".1f"),
        ", ".join(number(run["dice"].mean(), ".1f") for run in runs),
        f"{table['hd95'].mean():.1f}",
        ", ".join(f"{name} {100 * part['dice'].mean():.1f}" for name, part in table.groupby("domain")),
        *(difference, interval, p, adjusted, detectable),
    ]


def span(result: Mapping[Any, Any], key: str, style: str) -> str:
    """``low to high`` in %, or a dash where there is none."""
    low, high = result[f"{key}low"], result[f"{key}high"]
    return "-" if math.isnan(low) else f"{number(low, style)} to {number(high, style)}"


def number(value: float, style: str) -> str:
    """A fraction in %."""
    return "-" if math.isnan(value) else format(100 * value, style)


def read(path: Path) -> pd.DataFrame:
    """A table of cases."""
    return pd.read_csv(path, keep_default_na=False)


if __name__ == "__main__":
    main()
