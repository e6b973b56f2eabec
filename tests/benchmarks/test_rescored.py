"""The table of a benchmark that scores runs again goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from benchmarks.rescored import arm_of, gain, holds, read_cases, span, write_cases


def test_what_is_written_is_held_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cases.csv.gz"
    assert not holds(read_cases(path), arm="a", target="", seed=0)
    rows = [("a", "", 0, 0.25, "x"), ("a", "north", 1, 0.5, "y")]
    write_cases(pd.DataFrame(rows, columns=["arm", "target", "seed", "labelled", "id"]), path)
    first, cases = path.read_bytes(), read_cases(path)
    assert holds(cases, arm="a", target="", seed=0, labelled=0.25)
    assert holds(cases, arm="a", target="north", seed=1)
    assert not holds(cases, arm="a", target="north", seed=0)  # each value stands somewhere, but in no row together
    assert not holds(cases, arm="b", target="", seed=0)
    write_cases(cases, path)
    assert path.read_bytes() == first


def test_an_arm_is_that_of_the_folder() -> None:
    assert arm_of(Path("out/runs/epl-weight-0.3_labelled-0.25_seed-1")) == "epl-weight-0.3"


def test_numbers_are_points_of_a_hundred() -> None:
    assert span(None) == "-"
    assert gain({"difference": 0.0123, "difference_interval": [-0.001, 0.02]}) == "+1.2 (-0.1 to +2.0)"
