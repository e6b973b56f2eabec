"""Differences at the borders, of the published cases, are those that docs/results.md prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import borders

ROOT = Path(__file__).parents[2]
PARTS = ["--known", "docs/results/busi-parts", "--part", "validation", "--labelled", "0.35"]


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (
            ["dual_level", "supervised"],
            "boundary F1 {boundary_f1}, {boundary_f1_low} to {boundary_f1_high}, with seeds",
        ),
        (["crosslight", "dual_level"], "in NSD {nsd} ({nsd_low} to {nsd_high}; with seeds"),
        (
            ["fixmatch", "supervised", "--alone"],
            "{dice} above one supervised network** ({dice_low} to {dice_high}; with",
        ),
        (["fixmatch, strong labelled views", "fixmatch", *PARTS], "NSD {nsd} ({nsd_low} to {nsd_high}; one seed; Dice"),
        (["fixmatch, 6000 steps", "fixmatch", *PARTS], "NSD {nsd}, {nsd_low} to {nsd_high}: `python"),
        (["crosslight", "supervised", "--alone"], "are {dice} above it ({dice_low} to {dice_high}; with seeds"),
    ],
)
def test_differences_are_those_of_the_page(
    arguments: list[str], phrase: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["borders", *arguments])
    borders.main()
    values = {}
    for metric, *numbers in re.findall(r"^(\w+): (\S+) \((\S+) to ([^\s;)]+)", capsys.readouterr().out, re.M):
        plain = numbers[0].removeprefix("+")
        values |= {metric: plain, f"{metric}_low": numbers[1], f"{metric}_high": numbers[2]}
    text = " ".join((ROOT / "docs" / "results.md").read_text("utf-8").split())
    assert phrase.format(**values) in text
