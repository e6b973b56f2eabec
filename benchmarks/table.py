"""A Markdown table of finished runs: methods side by side, seeds pooled, paired with a baseline on the same cases.

    python -m benchmarks.table runs/sup-0 runs/sup-1 runs/dual-0 runs/dual-1 --baseline supervised

Runs of one method are its seeds. "METHOD, one network" is the mean over the two networks, each scored alone: what a
single network trained this way gives. Dice is the mean over seeds and cases; the interval, and the difference to
the baseline, resample groups of near-duplicates on values averaged over the seeds of a case. ``--part validation``
tables what ``semidg evaluate RUN --part validation`` wrote.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import pandas as pd

from semidg.evaluation.statistics import bootstrap_interval, paired_difference

COLUMNS = ("method", "seeds", "n", "Dice %", "95 % interval", "by seed", "HD95 px", "by domain", "minus baseline", "p")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--baseline", default="supervised")
    parser.add_argument("--part", default="test", choices=["test", "validation"])
    options = parser.parse_args()
    cases: dict[str, list[pd.DataFrame]] = defaultdict(list)
    seeds: dict[str, list[int]] = defaultdict(list)
    commits: set[str] = set()
    for run in options.runs:
        folder = run if options.part == "test" else run / "parts" / options.part
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        method, checkpoint = summary["method"], summary["checkpoint"]
        cases[method].append(read(folder / "cases.csv"))
        alone = sorted((folder / "evaluation").glob(f"{checkpoint}-network_*.csv"))
        if alone:
            cases[f"{method}, one network"].append(pd.concat([read(path) for path in alone], ignore_index=True))
        for name in (method, f"{method}, one network"):
            seeds[name].append(summary["seed"])
        commits.add(str(json.loads((run / "environment.json").read_text("utf-8"))["commit"]))
    pooled = {method: pd.concat(tables, ignore_index=True) for method, tables in cases.items()}
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for method, table in pooled.items():
        difference = p = ""
        if method != options.baseline and options.baseline in pooled:
            d = paired_difference(table, pooled[options.baseline])
            below, above = (100 * v for v in d["interval"])
            difference, p = f"{100 * d['difference']:+.1f} ({below:+.1f} to {above:+.1f})", f"{d['p']:.3f}"
        print(f"| {' | '.join([method, *cells(table, cases[method], seeds[method]), difference, p])} |")
    print(f"\ncommits: {', '.join(sorted(commits))}")


def cells(table: pd.DataFrame, runs: list[pd.DataFrame], seeds: list[int]) -> list[str]:
    """The cells of a method between its name and the difference."""
    mean = table.groupby("id").agg({"dice": "mean", "group": "first"})
    low, high = bootstrap_interval(mean["dice"].to_numpy(), mean["group"].to_numpy())
    return [
        ", ".join(map(str, seeds)),
        str(len(mean)),
        f"{100 * table['dice'].mean():.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        ", ".join(f"{100 * run['dice'].mean():.1f}" for run in runs),
        f"{table['hd95'].mean():.1f}",
        ", ".join(f"{name} {100 * part['dice'].mean():.1f}" for name, part in table.groupby("domain")),
    ]


def read(path: Path) -> pd.DataFrame:
    """A table of cases."""
    return pd.read_csv(path, keep_default_na=False)


if __name__ == "__main__":
    main()
