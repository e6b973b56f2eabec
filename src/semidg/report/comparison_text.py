"""The table of a comparison as Markdown, CSV, LaTeX and for a terminal: one list of rows, four dresses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from semidg.experiment.compare import Part
from semidg.report.comparison_rows import Row

ABOUT = (
    'Dice is the mean over seeds and cases. "ARM, one network" is the mean over the networks, each scored alone: what '
    "a single network trained this way gives. The 95 % interval, and that of the difference, resample groups of "
    'near-duplicates on values averaged over the seeds of a case; "with seeds" resamples the seeds too, where there '
    "are two or more. p is Wilcoxon's; p Holm is adjusted for all comparisons under one protocol and held-out domain. "
    '"detectable" is the difference that the comparison finds with 80 % power. Differences are to the baseline at the '
    "same protocol, held-out domain and labelled fraction, on the same cases and over the seeds that both have."
)

_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
}


def frame(rows: Sequence[Row], baseline: str) -> pd.DataFrame:
    """The table as text, with all columns but a protocol that is the same for all rows."""
    classes = any(row.by_class for row in rows)
    table = pd.DataFrame([_cells(row, baseline, classes) for row in rows])
    return table if table["protocol"].nunique() > 1 else table.drop(columns="protocol")


def mean_heading(part: Part) -> str:
    """Over the means of ``mean_rows``."""
    if part == "test":
        return "Mean over the held-out domains, each with the same weight"
    return f"Mean over the {part} parts of the trainings, which share images and have the same weight each"


def markdown(rows: Sequence[Row], means: Sequence[Row], baseline: str, made: str, part: Part = "test") -> str:
    """The means over held-out domains if there are any, the table, and what is to be said of both."""
    marks = list(dict.fromkeys(row.mark for row in rows if row.mark))
    lines = []
    if means:
        lines += [f"{mean_heading(part)}:", ""]
        lines += [*_markdown_table(means, baseline, marks), "", "Each held-out domain:", ""]
    lines += _markdown_table(rows, baseline, marks)
    for number, mark in enumerate(marks, start=1):
        lines += ["", f"[{number}] {mark}"]
    for note in dict.fromkeys(row.note for row in (*rows, *means) if row.note):
        lines += ["", note]
    return "\n".join([*lines, "", ABOUT, "", made, ""])


def csv_table(rows: Sequence[Row], means: Sequence[Row]) -> str:
    """A row a row of the table: fractions and pixels, lists separated by blanks, empty where there is no value."""
    records = []
    for row in (*rows, *means):
        records.append(
            {
                "arm": row.arm,
                "predictor": "one network" if row.one_network else "mean",
                "protocol": row.protocol,
                "target": f"mean of {' '.join(row.targets)}" if row.targets else row.target or "",
                "labelled": row.labelled,
                "seeds": " ".join(map(str, row.seeds)),
                "n": row.n,
                "n_groups": row.n_groups,
                "dice": row.dice,
                "dice_low": row.low,
                "dice_high": row.high,
                "dice_by_seed": " ".join(f"{value:.6f}" for value in row.by_seed),
                **{name: row.means.get(name) for name in ("hd95", "nsd", "boundary_f1")},
                **{f"dice of {name}": value for name, value in row.by_class.items()},
                "baseline": row.is_baseline,
                "paired_seeds": " ".join(map(str, row.paired_seeds)),
                **{key: getattr(row, key) for key in ("difference", "difference_low", "difference_high")},
                **{key: getattr(row, key) for key in ("seeds_low", "seeds_high", "p", "p_holm", "detectable")},
            }
        )
    return pd.DataFrame(records).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def latex(rows: Sequence[Row], means: Sequence[Row], baseline: str, title: str) -> str:
    """A ``table`` for the package booktabs: one block a protocol, held-out domain and labelled fraction."""
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(title)}: mean Dice with its 95\\,\\% interval, difference to {latex_text(baseline)} "
        "on the same cases.}",
        "\\begin{tabular}{llrlrrlr}",
        "\\toprule",
        "Arm & Seeds & $n$ & Dice, \\% & HD95, px & NSD, \\% & Difference & $p_\\mathrm{Holm}$ \\\\",
    ]
    block = None
    for row in (*rows, *means):
        heading = (row.protocol, row.target, row.targets, row.labelled)
        if heading != block:
            block = heading
            lines += ["\\midrule", f"\\multicolumn{{8}}{{l}}{{{latex_text(_heading(row))}}} \\\\"]
        cells = [
            latex_text(row.name),
            ", ".join(map(str, row.seeds)),
            str(row.n),
            f"{_percent(row.dice)} ({_span(row)})",
            f"{row.means.get('hd95', math.nan):.1f}",
            _percent(row.means.get("nsd", math.nan)),
            _latex_difference(row),
            latex_text(_p(row.p_holm)),
        ]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def terminal(rows: Sequence[Row], means: Sequence[Row]) -> str:
    """What fits a terminal; networks alone are in the files."""
    records = [
        {
            "arm": row.arm,
            "labelled": f"{100 * row.labelled:g} %",
            "target": _target(row) or "-",
            "seeds": len(row.seeds),
            "n": row.n,
            "Dice %": _percent(row.dice),
            "95 % interval": _span(row),
            "HD95": f"{row.means.get('hd95', math.nan):.1f}",
            "difference": _difference(row),
            "p Holm": _p(row.p_holm),
        }
        for row in (*rows, *means)
        if not row.one_network
    ]
    table = pd.DataFrame(records)
    if len(table) and (table["target"] == "-").all():
        table = table.drop(columns="target")
    return table.to_string(index=False) if len(table) else "no run is done yet"


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(c, c) for c in text)


def _cells(row: Row, baseline: str, classes: bool) -> dict[str, str]:
    return {
        "arm": row.name,
        "protocol": row.protocol + (f", {_target(row)}" if _target(row) else ""),
        "labelled": f"{100 * row.labelled:g} %",
        "seeds": ", ".join(map(str, row.seeds)),
        "n": str(row.n),
        "Dice %": _percent(row.dice),
        "95 % interval": _span(row),
        f"minus {baseline}": _difference(row),
        "with seeds": "" if math.isnan(row.difference) else _span(row, "seeds_", "+.1f"),
        "p Holm": _p(row.p_holm),
        "by seed": ", ".join(map(_percent, row.by_seed)),
        "HD95 px": f"{row.means.get('hd95', math.nan):.1f}",
        "NSD %": _percent(row.means.get("nsd", math.nan)),
        "by domain": ", ".join(f"{name} {_percent(value)}" for name, value in row.by_domain.items()),
        **({"by class": ", ".join(f"{name} {_percent(v)}" for name, v in row.by_class.items())} if classes else {}),
        "p": _p(row.p),
        "detectable": "" if math.isnan(row.detectable) else _percent(row.detectable),
    }


def _markdown_table(rows: Sequence[Row], baseline: str, marks: Sequence[str]) -> Iterator[str]:
    table: Mapping[str, Any] | None = None
    classes = any(row.by_class for row in rows)
    for row in rows:
        cells = _cells(row, baseline, classes)
        if row.mark in marks:
            cells["protocol"] += f" [{marks.index(row.mark) + 1}]"
        if table is None:
            table = cells
            yield f"| {' | '.join(map(_plain, cells))} |"
            yield f"|{'---|' * len(cells)}"
        yield f"| {' | '.join(map(_plain, cells.values()))} |"


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _heading(row: Row) -> str:
    target = f", {_target(row)}" if _target(row) else ""
    return f"{row.protocol}{target}, {100 * row.labelled:g} % labelled"


def _target(row: Row) -> str:
    return f"mean of {len(row.targets)} targets" if row.targets else row.target or ""


def _difference(row: Row) -> str:
    if math.isnan(row.difference):
        return ""
    some = "" if row.paired_seeds == row.seeds else f", seed{_s(row)} {', '.join(map(str, row.paired_seeds))} only"
    return f"{_signed(row.difference)} ({_span(row, 'difference_', '+.1f')}{some})"


def _s(row: Row) -> str:
    return "s" * (len(row.paired_seeds) > 1)


def _latex_difference(row: Row) -> str:
    if math.isnan(row.difference):
        return ""
    value, low, high = (f"${_signed(v)}$" for v in (row.difference, row.difference_low, row.difference_high))
    return value if math.isnan(row.difference_low) else f"{value} ({low} to {high})"


def _span(row: Row, key: str = "", style: str = ".1f") -> str:
    low, high = getattr(row, f"{key}low"), getattr(row, f"{key}high")
    return "-" if math.isnan(low) else f"{format(100 * low, style)} to {format(100 * high, style)}"


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}"


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}" if value >= 0.0005 else "< 0.001"
