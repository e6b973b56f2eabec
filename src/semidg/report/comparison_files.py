"""What a comparison folder shows: tables, cases, figure and page, written again after every finished run."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from semidg.experiment.compare import Part
from semidg.experiment.grid import Cell
from semidg.experiment.known import write_runs
from semidg.files import write_bytes, write_text
from semidg.report.comparison_figure import dice_figure
from semidg.report.comparison_rows import mean_rows, rows
from semidg.report.comparison_runs import Scored, read_scored
from semidg.report.comparison_text import ABOUT, csv_table, frame, latex, markdown, mean_heading, terminal
from semidg.report.page import write_page

_FIRST = ("arm", "predictor", "labelled", "protocol", "target", "seed", "commit")


def write_tables(title: str, baseline: str, cells: Sequence[Cell], out: Path, part: Part) -> str:
    """Write the files of a part from the runs that are scored on it; returns the table for a terminal.

    table.md, table.csv, table.tex, cases.csv.gz, runs.json.gz, dice-by-labelled.svg and index.html, for the validation
    part with ``-validation`` in their names. The same runs give the same bytes. Where no run is scored on the part
    nothing is written.
    """
    runs = read_scored(cells, out, part)
    if not runs:
        return "no run is done yet"
    table, means = rows(runs, baseline), mean_rows(runs, baseline)
    ending = "" if part == "test" else f"-{part}"
    made = made_with(runs, len(cells))
    text = f"# {title}: {part} part\n\n{markdown(table, means, baseline, made, part)}"
    write_text(out / f"table{ending}.md", text)
    write_text(out / f"table{ending}.csv", csv_table(table, means))
    write_text(out / f"table{ending}.tex", latex(table, means, baseline, f"{title}, {part} part"))
    write_cases(runs, out / f"cases{ending}.csv.gz")
    write_runs(cells, out, part)
    figure = out / f"dice-by-labelled{ending}.svg"
    write_bytes(figure, dice_figure(table, means))
    tables = [(f"Scores of the {part} part", frame(table, baseline))]
    if means:
        tables.insert(0, (mean_heading(part), frame(means, baseline)))
    said = [*dict.fromkeys(row.mark for row in table if row.mark)]
    said += dict.fromkeys(row.note for row in (*table, *means) if row.note)
    caption = "Mean Dice with its 95 % interval over the cases; a hollow point is a seed"
    links = {"every case": f"cases{ending}.csv.gz", "configuration": "comparison.yaml"}
    details = {"runs": made} | {what: Markup('<a href="{0}">{0}</a>').format(name) for what, name in links.items()}
    page = out / f"index{ending}.html"
    write_page(page, f"{title}: {part} part", "\n\n".join([*said, ABOUT]), tables, [(caption, figure)], details)
    return terminal(table, means)


def made_with(runs: Sequence[Scored], planned: int) -> str:
    """How many runs there are, and on what they depend beyond the configuration, where it differs each with a count."""
    parts = [f"{len(runs)} of {planned} runs"]
    for name in ("commit", "threads", "device", "precision"):
        values = pd.Series([str(run.environment.get(name) or "unknown") for run in runs]).value_counts()
        shown = [value if len(values) == 1 else f"{value} ({count} runs)" for value, count in values.items()]
        parts.append(f"{name} {', '.join(map(str, shown))}")
    return "; ".join(parts) + "."


def write_cases(runs: Sequence[Scored], path: Path) -> None:
    """Every case of every run and predictor, a row each."""
    tables = []
    for run in runs:
        cell = run.cell
        head: dict[str, Any] = {
            "arm": cell.arm,
            "labelled": cell.labelled,
            "protocol": run.protocol,
            "target": cell.target or "",
        }
        head |= {"seed": cell.seed, "commit": run.environment.get("commit") or ""}
        tables += [table.assign(**head, predictor=predictor) for predictor, table in run.cases.items()]
    table = pd.concat(tables, ignore_index=True)
    table = table[[*_FIRST, *(name for name in table.columns if name not in _FIRST)]]
    text = table.to_csv(index=False, float_format="%.6f", lineterminator="\n")
    write_bytes(path, gzip.compress(text.encode(), mtime=0))  # neither time nor name of a file within
