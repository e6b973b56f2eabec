"""semidg demo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semidg.cli.options import parse
from semidg.cli.progress import Bars


@dataclass(frozen=True)
class DemoOptions:
    """Options of demo."""

    out: Path = Path("demo")
    """Folder to make: data, run folders, comparison.png, index.html, report.html."""
    seed: int = 0
    """Of phantom, split, labelled draw and training."""
    steps: int | None = None
    """Training steps of each method; default: those of the preset phantom."""
    images: int = 40
    """Images a scanner."""


def demo(arguments: Sequence[str]) -> int:
    """Run the demo and print its table."""
    options = parse(
        "demo",
        DemoOptions,
        arguments,
        "Simulate four scanners, train on three with few labels - once on the labels alone, once with the unlabelled "
        "images too (dual_level) - and compare both on the fourth, which neither has seen.",
    )
    from semidg.experiment.run import Stopped
    from semidg.report.demo import METHODS, run_demo

    try:
        with Bars() as bars:
            listeners = {method: Watch(bars, method) for method in METHODS}
            table = run_demo(options.out, options.seed, options.steps, options.images, bars.report, listeners)
    except Stopped as stop:
        print(f"semidg: stopped; delete {options.out} to make the demo anew", file=sys.stderr)
        return 128 + stop.signal
    print("on the scanner that neither has seen:")
    print(table.to_string(index=False, float_format="{:.1f}".format))
    print(f"look at {options.out / 'comparison.png'}, open {options.out / 'index.html'}")
    print(f"and, for every number, error and picture of both runs, {options.out / 'report.html'}")
    return 0


class Watch:
    """A training's view of the bars, under a title of its own."""

    def __init__(self, bars: Bars, title: str) -> None:
        self.bars, self.title = bars, title

    def begin(self, step: int, total: int) -> None:
        """A new bar."""
        self.bars.title = f"training {self.title}"
        self.bars.begin(step, total)

    def step(self, step: int) -> None:
        """A step is done."""
        self.bars.step(step)

    def row(self, row: dict[str, float]) -> None:
        """The losses."""
        self.bars.row(row)
