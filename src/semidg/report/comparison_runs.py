"""The scored runs of a comparison, read from their folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from semidg.errors import RunError
from semidg.experiment.cases import TEXTS
from semidg.experiment.compare import Part, run_folder, scores_folder, status
from semidg.experiment.grid import Cell
from semidg.files import read_json


@dataclass(frozen=True)
class Scored:
    """A scored run of the grid; ``cases`` holds the table of each predictor: mean, network_0, ..."""

    cell: Cell
    protocol: str
    mark: str | None
    environment: Mapping[str, Any]
    cases: Mapping[str, pd.DataFrame]

    def table(self, one_network: bool) -> pd.DataFrame | None:
        """The cases of the mean of the networks, or of each network alone; None where there is but one."""
        alone = [table for name, table in self.cases.items() if name != "mean"]
        if one_network:
            return pd.concat(alone, ignore_index=True).assign(run=self.cell.seed) if len(alone) > 1 else None
        return self.cases["mean"].assign(run=self.cell.seed)


def read_scored(cells: Sequence[Cell], out: Path, part: Part) -> list[Scored]:
    """The runs of the grid that are trained to the end and scored on the part."""
    found = []
    for cell in cells:
        if status(cell, out, part).state != "done":
            continue
        run = run_folder(out, cell)
        folder = scores_folder(run, part)
        summary = read_json(folder / "summary.json")
        chosen = folder / "evaluation"
        cases = {"mean": _read(folder / "cases.csv")}
        for path in sorted(chosen.glob(f"{summary.get('checkpoint')}-network_*.csv")):
            cases[path.stem.partition("-")[2]] = _read(path)
        found.append(
            Scored(cell, str(summary["protocol"]), summary.get("mark"), read_json(run / "environment.json"), cases)
        )
    return found


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(TEXTS, str))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); score the run again with semidg evaluate") from error
    if missing := [name for name in ("id", "domain", "class", "group", "dice") if name not in table]:
        raise RunError(f"{path}: has no column {missing[0]}; score the run again with semidg evaluate")
    return table
