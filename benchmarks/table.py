"""A Markdown table of finished runs: methods side by side, seeds pooled, paired with a baseline on the same cases.

    python -m benchmarks.table runs/sup-0 runs/sup-1 runs/dual-0 runs/dual-1 --baseline supervised

Runs of one method are its seeds. Dice is the mean over seeds of the mean over cases; the interval and the difference to
the baseline resample groups of near-duplicates, on values averaged over the seeds of a case.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import pandas as pd

from semidg.evaluation.statistics import bootstrap_interval, paired_difference


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--baseline", default="supervised")
    options = parser.parse_args()
    cases: dict[str, list[pd.DataFrame]] = defaultdict(list)
    seeds: dict[str, list[int]] = defaultdict(list)
    commits: set[str] = set()
    for run in options.runs:
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        cases[summary["method"]].append(pd.read_csv(run / "cases.csv", keep_default_na=False))
        seeds[summary["method"]].append(summary["seed"])
        commits.add(str(json.loads((run / "environment.json").read_text("utf-8"))["commit"]))
    pooled = {method: pd.concat(tables, ignore_index=True) for method, tables in cases.items()}
    print("| method | seeds | n | Dice % | 95 % interval | by seed | HD95 px | Dice by domain | minus baseline | p |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for method, table in pooled.items():
        mean = table.groupby("id").agg({"dice": "mean", "group": "first"})
        low, high = bootstrap_interval(mean["dice"].to_numpy(), mean["group"].to_numpy())
        domains = ", ".join(f"{name} {100 * part['dice'].mean():.1f}" for name, part in table.groupby("domain"))
        single = ", ".join(f"{100 * t['dice'].mean():.1f}" for t in cases[method])
        difference, p = "", ""
        if method != options.baseline and options.baseline in pooled:
            d = paired_difference(table, pooled[options.baseline])
            below, above = (100 * v for v in d["interval"])
            difference, p = f"{100 * d['difference']:+.1f} ({below:+.1f} to {above:+.1f})", f"{d['p']:.3f}"
        print(
            f"| {method} | {', '.join(map(str, seeds[method]))} | {len(mean)} | {100 * table['dice'].mean():.1f} | "
            f"{100 * low:.1f} - {100 * high:.1f} | {single} | {table['hd95'].mean():.1f} | {domains} | {difference} | "
            f"{p} |"
        )
    print(f"\ncommits: {', '.join(sorted(commits))}")


if __name__ == "__main__":
    main()
