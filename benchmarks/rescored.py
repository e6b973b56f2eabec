"""What the benchmarks that score trained runs again have in common: a table of cases that grows, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

METRICS = ["dice", "nsd", "boundary_f1", "hd95"]


def arm_of(run: Path) -> str:
    """The arm of a run of a comparison, as its folder is called."""
    return run.name.partition("_labelled-")[0]


def read_cases(path: Path) -> pd.DataFrame:
    """The table; empty where there is none yet."""
    return pd.read_csv(path, keep_default_na=False) if path.exists() else pd.DataFrame()


def holds(cases: pd.DataFrame, **row: object) -> bool:
    """Whether a row of these values is there."""
    return bool(len(cases)) and bool((cases[list(row)] == pd.Series(row)).all(axis=1).any())


def write_cases(cases: pd.DataFrame, path: Path) -> None:
    """The table, the same bytes for the same cases."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cases.to_csv(path, index=False, float_format="%.5f", compression={"method": "gzip", "mtime": 0})


def span(interval: Sequence[float] | None) -> str:
    """``+1.0 to +2.0`` in points of a hundred, a dash for none."""
    return "-" if interval is None else "{:+.1f} to {:+.1f}".format(*(100 * value for value in interval))


def gain(found: Mapping[str, Any]) -> str:
    """The difference of ``mean_over_parts`` with its interval."""
    return f"{100 * found['difference']:+.1f} ({span(found['difference_interval'])})"
