"""The sections with results: tables of all images and part by part, and the paired comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from semidg.errors import SemidgError
from semidg.evaluation.comparison import compare
from semidg.evaluation.metrics import HIGHER_IS_BETTER
from semidg.report import charts, wording
from semidg.report.blocks import (
    Block,
    Cell,
    Charts,
    Column,
    Figure,
    Group,
    Section,
    Table,
    Text,
    column,
    interval_cell,
    number,
    word,
)
from semidg.report.glossary import METRIC_TERMS, term
from semidg.report.runs import Method, Run, why_not_paired

_AREAS = ("dice", "iou", "precision", "sensitivity", "specificity", "area_error")
_BORDERS = ("hd", "hd95", "assd", "nsd", "boundary_f1", "hd_mm", "hd95_mm", "assd_mm", "nsd_mm")
_COMPARED = ("dice", "nsd", "hd95")  # one of the area, one of the border, one of the farthest mistake
_MOST_ROWS = 60  # parts beyond this stand in summary.json only


def results(methods: Sequence[Method]) -> Section:
    """Tables of areas, borders and lesions: all images, then by domain, class and size; a row a run and part."""
    overall, parts = _rows(methods)
    section = Section("results", "Results")
    blocks = section.blocks
    if any("planes" in run.cases.columns for method in methods for run in method.runs):
        blocks.append(Text(_VOLUMES, note=True))
    if len(overall) == 1:
        blocks += _tables(overall + parts, "")
    else:
        blocks += _tables(overall, "")
        if parts:
            blocks.append(Group("Results by domain, class and size", tuple(_tables(parts, ", part by part"))))
    if not any("lesions" in block for _, _, block in overall):
        blocks.append(lacking("lesions found and missed", methods))
    if not any("by_size" in run.summary["result"] for method in methods for run in method.runs):
        blocks.append(lacking("results by lesion size", methods))
    smallest = methods[0].lead.summary["result"].get("detectable_difference") or {}
    if smallest.get("value") is not None:
        blocks.append(
            Text(
                f"Another method scored on as many other images would have to differ by about "
                f"{100 * smallest['value']:.1f} Dice points to be told apart with {100 * smallest['power']:.0f} % "
                "probability; on the same images less is enough (paired comparison)."
            )
        )
    return section


def comparison(methods: Sequence[Method]) -> tuple[Section, pd.DataFrame | None]:
    """Every method against the first on the same cases; also the table, None where nothing can be paired."""
    baseline = methods[0]
    section = Section("comparison", f"Compared with {baseline.name}")
    paired = [baseline]
    for method in methods[1:]:
        reason = next((why for run in method.runs if (why := why_not_paired(baseline.lead, run))), None)
        if reason:
            section.blocks.append(Text(f"{method.name} is not compared case by case: {reason}.", note=True))
        else:
            paired.append(method)
    if len(paired) < 2:
        return section, None
    tables = {method.name: _by_seed(method) for method in paired}
    metrics = [name for name in _COMPARED if all(name in table.columns for table in tables.values())]
    try:
        table = compare(tables, baseline.name, metrics)
    except SemidgError as error:
        section.blocks.append(Text(f"The runs cannot be compared: {error}.", note=True))
        return section, None
    places = {method.name: place for place, method in enumerate(methods)}
    section.blocks += [_forests(table, metrics, places, baseline.name), _comparison_table(table, places)]
    return section, table


_VOLUMES = (
    "Volumes were scored, each as a whole and in three dimensions: where this page gives the score of an image, it is "
    "that of a volume, and a pixel is a voxel."
)

_Row = tuple[str, str, dict[str, Any]]  # run, part, block of the summary


def _tables(rows: Sequence[_Row], of: str) -> list[Table]:
    tables = [_metric_table(f"How well the areas agree{of}", rows, _AREAS, interval_of="dice")]
    if any(name in block for name in _BORDERS for _, _, block in rows):
        tables.append(_metric_table(f"How far the borders are apart{of}", rows, _BORDERS))
    if any("lesions" in block for _, _, block in rows):
        tables.append(_lesion_table(f"Lesions found and missed{of}", rows))
    return tables


def _rows(methods: Sequence[Method]) -> tuple[list[_Row], list[_Row]]:
    """Rows of all images of every run, and rows part by part."""
    runs = [(_run_name(method, run, len(methods)), run) for method in methods for run in method.runs]
    rows = [(name, "all", run.overall) for name, run in runs]
    parts = [
        (name, f"{what} {part}" if part else f"{what} not named", block)
        for key, what in (("by_domain", "domain"), ("by_class", "class"), ("by_size", "size"))
        for name, run in runs
        if key in wording.strata(run.summary["result"])
        for part, block in run.summary["result"][key].items()
    ]
    order = {part: place for place, part in enumerate(dict.fromkeys(part for _, part, _ in parts))}
    parts.sort(key=lambda row: order[row[1]])
    return rows, parts[:_MOST_ROWS]


def _run_name(method: Method, run: Run, methods: int) -> str:
    if len(method.runs) > 1:
        return f"{method.name}, seed {run.config.seed}"
    return method.name if methods > 1 else ""


def _metric_table(caption: str, rows: Sequence[_Row], names: Sequence[str], interval_of: str = "") -> Table:
    shown = [name for name in names if any(name in block for _, _, block in rows)]
    heads, first = _heads(rows)
    columns = [*heads, column("group", "Images, groups")]
    for name in shown:
        columns.append(column(name))
        if name == interval_of:
            columns.append(column("interval"))
    body = []
    for row in rows:
        block = row[2]
        cells = [
            *first(row),
            Cell(str(block["n"]), f"{block['n_groups']} group{'s' * (block['n_groups'] != 1)}", block["n"]),
        ]
        for name in shown:
            value, factor = block.get(name) or {}, term(name).factor
            interval = value.get("interval")
            cells.append(number(value.get("mean"), factor, interval=None if name == interval_of else interval))
            if name == interval_of:
                cells.append(interval_cell(interval, factor))
        body.append(tuple(cells))
    explain = "Means over images, the 95 % interval of each in small. Click a heading to sort, ? to read what it means."
    return Table(caption, tuple(columns), tuple(body), explain)


def _lesion_table(caption: str, rows: Sequence[_Row]) -> Table:
    heads, first = _heads(rows)
    names = ("Lesions", "Found", "Missed", "False")
    columns = [*heads, *(column("lesion", name) for name in names)]
    columns += [column("lesion", name) for name in ("Sensitivity, %", "Precision, %", "False an image")]
    body = []
    for row in rows:
        block = row[2].get("lesions")
        if block is None:
            continue
        cells = [*first(row), *(number(block[key], decimals=0) for key in ("true", "found", "missed", "false"))]
        for key, factor, decimals in (("sensitivity", 100, 1), ("precision", 100, 1), ("false_per_image", 1, 2)):
            cells.append(number(block[key]["value"], factor, decimals, block[key]["interval"]))
        body.append(tuple(cells))
    explain = "Whole lesions, not pixels: what was seen at all, and what was seen that is not there."
    return Table(caption, tuple(columns), tuple(body), explain)


def _heads(rows: Sequence[_Row]) -> tuple[list[Column], Any]:
    """The leading columns, and what fills them: run and part, but for a column that says the same in every row."""
    columns = (Column("Run", None, number=False), Column("Images of", None, number=False))
    named = any(name for name, _, _ in rows)
    parted = not named or any(part != "all" for _, part, _ in rows)
    places = [place for place, shown in enumerate((named, parted)) if shown]
    return [columns[place] for place in places], lambda row: [word(row[place]) for place in places]


def _by_seed(method: Method) -> pd.DataFrame:
    """The pooled table whose runs are called by their seeds, so that two methods pair the seeds they share."""
    seeds = [run.config.seed for run in method.runs]
    if len(set(seeds)) < len(seeds):
        return method.table()
    return pd.concat([r.cases.assign(run=seed) for r, seed in zip(method.runs, seeds, strict=True)], ignore_index=True)


def _forests(table: pd.DataFrame, metrics: Sequence[str], places: Mapping[str, int], baseline: str) -> Charts:
    figures = []
    for metric in metrics:
        factor = METRIC_TERMS[metric].factor
        rows = [
            charts.Interval(places[row["name"]], row["name"], *(factor * row[key] for key in _ENDS))
            for row in table[(table["metric"] == metric) & (table["name"] != baseline)].to_dict("records")
        ]
        unit = "points" if factor == 100 else "px"
        better = "right is better" if HIGHER_IS_BETTER[metric] else "left is better"
        name = METRIC_TERMS[metric].name
        label = f"Forest plot of the differences in {name} from {baseline}, {unit}"
        svg = charts.forest(
            rows, label, f"forest-{metric}", f"{name} minus that of {_cut(baseline)}, {unit} ({better})"
        )
        figures.append(Figure(f"Difference in {name}", svg))
    return Charts(
        tuple(figures),
        "The mark is the mean difference on the same images, the thick line its 95 % interval over "
        "groups of images. A thick "
        "line that crosses the vertical one at 0 means: not told apart. The thin line, where there is "
        "one, also covers the choice of the seeds; with two or three seeds it is rough.",
    )


_ENDS = ("difference", "difference_low", "difference_high", "seeds_low", "seeds_high")


def _comparison_table(table: pd.DataFrame, places: Mapping[str, int]) -> Table:
    columns = (
        *(Column(name, None, number=False) for name in ("Method", "Measure")),
        *(Column("Runs"), Column("Images"), Column("Mean"), column("interval"), Column("Difference")),
        *(
            column("interval", "95 % interval of it"),
            Column("with the seeds"),
            column("holm"),
            column("detectable", "Detectable"),
        ),
    )
    body = []
    for row in table.to_dict("records"):
        factor = term(row["metric"]).factor
        difference = row["difference"]
        p = row["p_holm"]
        body.append(
            (
                Cell(row["name"], "", places[row["name"]]),
                word(term(row["metric"]).heading),
                number(row["runs"], decimals=0),
                number(row["n"], decimals=0),
                number(row["mean"], factor),
                interval_cell([row["low"], row["high"]], factor),
                Cell("baseline")
                if pd.isna(difference)
                else Cell(f"{factor * difference:+.1f}", "", factor * difference),
                interval_cell([row["difference_low"], row["difference_high"]], factor, sign=True),
                interval_cell([row["seeds_low"], row["seeds_high"]], factor, sign=True),
                Cell("–") if pd.isna(p) else Cell(f"{p:.1e}" if p < 0.001 else f"{p:.3f}", "", p),
                number(row["detectable_difference"], factor),
            )
        )
    explain = "Values of an image are averaged over the runs of a method first: seeds are no further images."
    return Table("Paired comparison", columns, tuple(body), explain)


def lacking(what: str, methods: Sequence[Method]) -> Block:
    """The note in place of what a run scored by an older version does not have."""
    return Text(
        f"No {what}: the run was scored before this was measured. semidg evaluate {methods[0].lead.path} adds it.",
        note=True,
    )


def _cut(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
