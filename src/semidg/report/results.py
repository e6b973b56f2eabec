"""The section with results: tables of all images, class by class and part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semidg.report import wording
from semidg.report.blocks import (
    Block,
    Cell,
    Column,
    Group,
    Section,
    Table,
    Text,
    column,
    interval_cell,
    number,
    word,
)
from semidg.report.glossary import term
from semidg.report.runs import Method, Run

_AREAS = ("dice", "iou", "precision", "sensitivity", "specificity", "area_error")
_BORDERS = ("hd", "hd95", "assd", "nsd", "boundary_f1", "hd_mm", "hd95_mm", "assd_mm", "nsd_mm")
_MOST_ROWS = 60  # parts beyond this stand in summary.json only


def results(methods: Sequence[Method]) -> Section:
    """Tables of areas, borders and lesions: all images, then by domain, class and size; a row a run and part."""
    overall, parts = _rows(methods)
    section = Section("results", "Results")
    blocks = section.blocks
    if any("planes" in run.cases.columns for method in methods for run in method.runs):
        blocks.append(Text(_VOLUMES, note=True))
    classes = _class_rows(methods)
    if len(overall) == 1:
        blocks += [*_tables(overall + parts, ""), *_class_tables(classes)]
    else:
        blocks += [*_tables(overall, ""), *_class_tables(classes)]
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


def _class_rows(methods: Sequence[Method]) -> list[_Row]:
    """Rows of all images of every run, one a foreground class, with the values of that class; none where it is one."""
    rows = []
    for method in methods:
        for run in method.runs:
            for k, name in enumerate(run.config.network.names):
                if f"dice_{k}" in run.overall:
                    own = {m: run.overall[f"{m}_{k}"] for m in _AREAS + _BORDERS if f"{m}_{k}" in run.overall}
                    own |= {key: run.overall[key] for key in ("n", "n_groups")}
                    rows.append((_run_name(method, run, len(methods)), name, own))
    return rows


def _class_tables(rows: Sequence[_Row]) -> list[Table]:
    if not rows:
        return []
    return [
        _metric_table("Class by class: how well the areas agree", rows, _AREAS, interval_of="dice", of="Class"),
        _metric_table("Class by class: how far the borders are apart", rows, _BORDERS, of="Class"),
    ]


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


def _metric_table(
    caption: str, rows: Sequence[_Row], names: Sequence[str], interval_of: str = "", of: str = "Images of"
) -> Table:
    shown = [name for name in names if any(name in block for _, _, block in rows)]
    heads, first = _heads(rows, of)
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


def _heads(rows: Sequence[_Row], of: str = "Images of") -> tuple[list[Column], Any]:
    """The leading columns, and what fills them: run and part, but for a column that says the same in every row."""
    columns = (Column("Run", None, number=False), Column(of, None, number=False))
    named = any(name for name, _, _ in rows)
    parted = not named or any(part != "all" for _, part, _ in rows)
    places = [place for place, shown in enumerate((named, parted)) if shown]
    return [columns[place] for place in places], lambda row: [word(row[place]) for place in places]


def lacking(what: str, methods: Sequence[Method]) -> Block:
    """The note in place of what a run scored by an older version does not have."""
    return Text(
        f"No {what}: the run was scored before this was measured. semidg evaluate {methods[0].lead.path} adds it.",
        note=True,
    )
