"""semidg report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.errors import ConfigError


@dataclass(frozen=True)
class ReportOptions:
    """Options of report."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run folders that have been evaluated, or results of a run on other data or of an adapted model (`semidg
    evaluate RUN --data FOLDER`); those that differ in their seed alone count as one method."""
    out: Path | None = None
    """HTML file to write; default for one run: RUN/report.html."""
    baseline: str | None = None
    """Method or run folder that the others are compared with; default: the first run."""
    root: Path | None = None
    """Where the data set is now, if it has moved; the pictures are made from it."""
    gallery: int = 2
    """Cases shown of each kind: best, median, worst, most over-confident; 0 for no pictures."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run for the pictures."""


def report(arguments: Sequence[str]) -> int:
    """Write the page, print where it is and what it says in a paragraph."""
    description = (
        "One self-contained HTML page of a run, or of several compared: results, errors, confidence, pictures."
    )
    options = parse("report", ReportOptions, arguments, description)
    if not options.runs:
        raise ConfigError("nothing to report on; give evaluated run folders: semidg report RUN")
    if options.out is None and len(options.runs) > 1:
        raise ConfigError("--out is not set; say where the page of several runs goes: --out comparison.html")
    from semidg.config import TrainerConfig
    from semidg.experiment.device import choose_device, set_threads
    from semidg.report.report import write_report

    out = options.out or options.runs[0] / "report.html"
    set_threads(TrainerConfig())
    with Bars() as bars:
        summary = write_report(
            options.runs,
            out,
            baseline=options.baseline,
            root=options.root,
            gallery=options.gallery,
            device=choose_device(options.device),
            progress=bars.report,
        )
    print(summary)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, one file, opens in any browser")
    return 0
