"""The tables of docs/results.md come out of the cases beside them, by the files of benchmarks/comparisons."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pandas as pd
import pytest

from semidg.experiment.compare import Part
from semidg.experiment.comparison_file import load_comparison
from semidg.experiment.grid import expand
from semidg.experiment.known import read_known, take_over
from semidg.report.comparison_files import write_tables

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"


def printed(name: str, arm: str) -> set[str]:
    """The numbers of the rows of an arm, with or without a word in brackets, in the section of docs/results.md that
    links to the cases ``name``."""
    sections = re.split(r"^##+ ", (ROOT / "docs" / "results.md").read_text("utf-8"), flags=re.MULTILINE)
    lines = "".join(section for section in sections if f"](results/{name})" in section).splitlines()
    rows = [line for line in lines if re.match(rf"\| {re.escape(arm)}( \(.*\))? \|", line)]
    return set(re.findall(r"\d+\.\d", " ".join(rows)))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("busi-main", "test"),
        ("busi-methods", "test"),
        ("busi-length", "validation"),
        ("busi-tuning", "validation"),
        ("busi-strong-views", "test"),
        ("busi-strong-views", "validation"),
        ("phantom-scanners", "test"),
    ],
)
def test_every_published_run_is_taken_over_and_makes_a_printed_row(name: str, part: Part, tmp_path: Path) -> None:
    comparison = load_comparison(ROOT / "benchmarks" / "comparisons" / f"{name}.yaml")
    cells = expand(comparison)
    known = read_known([RESULTS / name], part)
    taken = take_over(known, cells, tmp_path, part)
    assert len(taken) == len(known)  # each run is of the comparison whose name its folder has
    write_tables(comparison.name, comparison.against, cells, tmp_path, part)
    table = pd.read_csv(tmp_path / ("table.csv" if part == "test" else f"table-{part}.csv"))
    arms = {cell.arm for cell in taken}
    assert arms <= set(table["arm"])
    of_pairs = table[table["arm"].isin(arms) & (table["predictor"] == "mean")]
    for arm, rows in of_pairs.groupby("arm"):
        numbers = {f"{100 * dice:.1f}" for dice in rows["dice"]}
        assert numbers <= printed(name, str(arm)), arm


def test_no_published_file_names_a_place_of_a_machine() -> None:
    for path in RESULTS.rglob("*.gz"):
        text = gzip.decompress(path.read_bytes()).decode()
        assert not re.search(r"/(home|work|tmp|root|mnt)/", text), path
