"""Differences of two arms of a published comparison in any metric: what docs/results.md says of borders.

    python -m benchmarks.borders ARM BASELINE [--known FOLDER ...] [--metrics nsd boundary_f1] [--part validation]

Paired over the seeds that both have, with the intervals of ``semidg compare``. --alone: the networks of the baseline
each by itself, their mean; --labelled: the fraction, 0.25 if it is not said.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from semidg.evaluation.comparison import compare

_KNOWN = [Path("docs/results/busi-main"), Path("docs/results/busi-methods")]


def cases(files: list[Path], arm: str, labelled: float, alone: bool, metrics: list[str]) -> pd.DataFrame:
    """The published cases of an arm, a row a case and seed."""
    every = pd.concat(pd.read_csv(file, keep_default_na=False) for file in files)
    own = every[(every["arm"] == arm) & ((every["labelled"] - labelled).abs() < 1e-6)]
    own = own[(own["predictor"] != "mean") == alone].rename(columns={"seed": "run"})
    if own.empty:
        raise SystemExit(
            f"no published cases of {arm} at {labelled:g}; there are {', '.join(sorted(set(every['arm'])))}"
        )
    return own.groupby(["id", "domain", "class", "group", "run"], as_index=False)[metrics].mean()


def main() -> None:
    """Print a line for each metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm")
    parser.add_argument("baseline")
    parser.add_argument("--known", type=Path, nargs="+", default=_KNOWN)
    parser.add_argument("--metrics", nargs="+", default=["dice", "nsd", "boundary_f1"])
    parser.add_argument("--labelled", type=float, default=0.25)
    parser.add_argument("--alone", action="store_true", help="networks of the baseline each by itself")
    parser.add_argument("--seeds", type=int, nargs="+", help="of those that both have; default: all")
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    given = parser.parse_args()
    files = [folder / f"cases{'' if given.part == 'test' else '-validation'}.csv.gz" for folder in given.known]
    tables = {
        given.arm: cases(files, given.arm, given.labelled, False, given.metrics),
        f"{given.baseline} ": cases(files, given.baseline, given.labelled, given.alone, given.metrics),
    }
    seeds = set.intersection(*(set(table["run"]) for table in tables.values()))
    seeds &= set(given.seeds or seeds)
    tables = {name: table[table["run"].isin(seeds)] for name, table in tables.items()}
    rows = compare(tables, f"{given.baseline} ", given.metrics)
    for row in rows[rows["name"] == given.arm].to_dict("records"):
        ends = [
            100 * row[key] for key in ("difference", "difference_low", "difference_high", "seeds_low", "seeds_high")
        ]
        text = "{:+.1f} ({:+.1f} to {:+.1f}".format(*ends[:3])
        text += "; with seeds {:+.1f} to {:+.1f})".format(*ends[3:]) if len(seeds) > 1 else ")"
        print(f"{row['metric']}: {text}, p {row['p']:.4f}, seeds {', '.join(map(str, sorted(seeds)))}")


if __name__ == "__main__":
    main()
