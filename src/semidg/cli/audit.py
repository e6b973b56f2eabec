"""semidg audit."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from semidg.cli.data import DataOptions
from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.config_file import load_config
from semidg.data_config import DataConfig
from semidg.errors import ConfigError

if TYPE_CHECKING:
    from semidg.experiment.audit import Audit
    from semidg.experiment.label_quality import Quality

DESCRIPTION = """Find what is wrong with a data set, and show it: files that cannot be used, masks with slips, the same
image under two labels or on both sides of a split, burnt-in markers, domains that differ.

Writes DIR/index.html, a page that opens from disk, and DIR/issues.csv. Nothing in the data set is changed, and nothing
is left out by itself: choose on the page (or write yes into the column exclude), and give the list to
`semidg split ROOT --exclude issues.csv` or to a training as `--data.split.exclude issues.csv`.

With --run or --folds, networks say which masks they did not expect (DIR/quality.csv): of a run, for the images whose
masks it did not learn from; over folds, for every mask, after as many trainings."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions(DataOptions):
    """Options of audit."""

    out: Path
    """Folder for index.html and issues.csv."""
    include_normal: bool = True
    """BUSI: also the normal class."""
    split: Path | None = None
    """Folder of split lists (of `semidg split`, or RUN/split): also find twins on two sides of it."""
    run: Path | None = None
    """A finished run that scores the masks it did not learn from."""
    folds: int | None = None
    """Train so many times, each without one part of the data, and score every mask; needs --config."""
    config: str | None = None
    """With --folds: preset or YAML file to train with."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks of --run and --folds run."""


def audit(arguments: Sequence[str]) -> int:
    """Look at everything, write list and page, print a summary."""
    options = parse("audit", AuditOptions, arguments, DESCRIPTION)
    data = _check(options)
    from semidg.config import TrainerConfig
    from semidg.experiment.audit import audit as look
    from semidg.experiment.audit import write_issues
    from semidg.experiment.audit.quality import with_quality, write_quality
    from semidg.experiment.device import set_threads
    from semidg.experiment.run import Stopped
    from semidg.report.audit_page import write_audit_page

    set_threads(TrainerConfig())
    with Bars() as bars:
        found = look(
            data, options.classes, split=options.split, progress=lambda d, t: bars.report("looking at files", d, t)
        )
        try:
            scores = _scores(options, found, bars)
        except Stopped as stop:
            print(f"semidg: stopped in {stop.run} after step {stop.step}; the same call goes on", file=sys.stderr)
            return 128 + stop.signal
    if scores:
        found = with_quality(found, scores)
        write_quality(found, scores, options.out / "quality.csv")
    write_issues(found.issues, options.out / "issues.csv")
    write_audit_page(found, options.out / "index.html")
    _print(found, scores, options.out)
    return 0


def _check(options: AuditOptions) -> DataConfig:
    """Refuse what cannot go well, before the files are read."""
    data = options.data_config()
    if options.run is not None and options.folds is not None:
        raise ConfigError("--run and --folds: give one of them")
    if (options.folds is None) != (options.config is None):
        raise ConfigError("--folds and --config belong together: --folds 5 --config busi-lite")
    if options.folds is not None and options.folds < 2:
        raise ConfigError(f"--folds {options.folds}: at least 2 are needed")
    if options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"--out {options.out}: is a file; give a folder")
    if _marked(options.out / "issues.csv"):
        raise ConfigError(f"{options.out}: issues.csv in it holds marks of yours; choose another folder with --out")
    return data


def _marked(path: Path) -> bool:
    """Whether an older list holds a choice of the user that writing would lose, or is no such list."""
    if not path.exists():
        return False
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return any((row.get("exclude") or "").strip() for row in csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return True


def _scores(options: AuditOptions, found: Audit, bars: Bars) -> list[Quality]:
    from semidg.experiment.device import choose_device
    from semidg.experiment.label_quality import score_by_folds, score_with_run

    if options.run is not None:
        return score_with_run(options.run, found.index, choose_device(options.device), bars.report)
    if options.folds is None or options.config is None:
        return []
    config = load_config(options.config)
    if config.network.classes != options.classes:
        raise ConfigError(f"{options.config}: network.classes is {config.network.classes}, --classes {options.classes}")
    folder = options.out / "folds"
    return score_by_folds(config, found.index, options.folds, folder, choose_device(options.device), bars.report)


def _print(found: Audit, scores: Sequence[Quality], out: Path) -> None:
    from semidg.experiment.audit import KINDS
    from semidg.experiment.audit.issues import counts

    masks = sum(record.labelled for record in found.index.records)
    unusable = found.images - len(found.index.records)
    print(f"{found.index.root}: {found.images} images, {masks} with a usable mask, {unusable} that cannot be used")
    for kind, number in counts(found.issues).items():
        print(f"  {number:>5}  {KINDS[kind].severity:<8} {kind}")
    if not found.issues:
        print("  nothing found")
    if scores:
        print(f"{out / 'quality.csv'}: the scores of {len(scores)} of {masks} masks")
    print(f"{out / 'issues.csv'}: {len(found.issues)} findings")
    what = "all of them with pictures, and the choice of what to leave out; " if found.issues else ""
    print(f"{out / 'index.html'}: {what}open it in a browser")
