"""The section that compares methods on the same cases: differences with intervals, as charts and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from semidg.errors import SemidgError
from semidg.evaluation.comparison import compare, holm
from semidg.evaluation.metrics import HIGHER_IS_BETTER
from semidg.report import charts
from semidg.report.blocks import Cell, Charts, Column, Figure, Section, Table, Text, column, interval_cell, number, word
from semidg.report.glossary import METRIC_TERMS, term
from semidg.report.runs import Method, why_not_paired

_COMPARED = ("dice", "nsd", "hd95")  # one of the area, one of the border, one of the farthest mistake


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
    metrics = [name for name in _COMPARED if all(name in method.lead.cases.columns for method in paired)]
    try:
        table, notes = _against(paired, metrics)
    except SemidgError as error:
        section.blocks.append(Text(f"The runs cannot be compared: {error}.", note=True))
        return section, None
    section.blocks += [Text(note, note=True) for note in notes]
    if set(table["name"]) == {baseline.name}:
        return section, None
    places = {method.name: place for place, method in enumerate(methods)}
    section.blocks += [_forests(table, metrics, places, baseline.name), _comparison_table(table, places)]
    names = baseline.lead.config.network.names
    own = {f"dice_{k}": f"Dice of {name}, %" for k, name in enumerate(names) if k and len(names) > 2}
    if own and all(key in method.lead.cases.columns for key in own for method in paired):
        section.blocks.append(_comparison_table(_against(paired, [*own])[0], places, own))
    return section, table


def _against(methods: Sequence[Method], metrics: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """``compare`` of each method with the first over the seeds that both have: seeds draw the labelled images, and a
    mean over other seeds is one over other labels. Also notes on the seeds left out."""
    baseline, *others = methods
    found, notes = [compare({baseline.name: _pooled(baseline)}, baseline.name, metrics)], []
    for method in others:
        seeds = [[run.config.seed for run in each.runs] for each in (method, baseline)]
        common: list[int] | None = None
        if all(len(set(own)) == len(own) for own in seeds) and set(seeds[0]) != set(seeds[1]):
            common = sorted({*seeds[0]} & {*seeds[1]})
            if not common:
                notes.append(f"{method.name} is not compared case by case: {baseline.name} has none of its seeds.")
                continue
            listed = f"seed{'s' * (len(common) > 1)} {', '.join(map(str, common))}"
            notes.append(
                f"{method.name} is compared with {baseline.name} over {listed} alone, which both have; "
                "its mean is over them too."
            )
        rows = compare({each.name: _pooled(each, common) for each in (method, baseline)}, baseline.name, metrics)
        found.append(rows[rows["name"] == method.name])
    table = pd.concat(found, ignore_index=True)
    compared = table["name"] != baseline.name
    table.loc[compared, "p_holm"] = holm(table.loc[compared, "p"].to_numpy())
    return table, notes


def _pooled(method: Method, seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """The cases of the runs, of ``seeds`` alone if given, called by their seeds, so that two methods pair those."""
    runs = [run for run in method.runs if seeds is None or run.config.seed in seeds]
    if len({run.config.seed for run in runs}) < len(runs):
        return method.table()
    return pd.concat([run.cases.assign(run=run.config.seed) for run in runs], ignore_index=True)


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


def _comparison_table(
    table: pd.DataFrame, places: Mapping[str, int], of_classes: Mapping[str, str] | None = None
) -> Table:
    """of_classes: what the Dice of a class is called, by its column."""
    headings = of_classes or {}
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
        factor = 100 if row["metric"] in headings else term(row["metric"]).factor
        difference = row["difference"]
        p = row["p_holm"]
        body.append(
            (
                Cell(row["name"], "", places[row["name"]]),
                word(headings.get(row["metric"]) or term(row["metric"]).heading),
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
    caption = "Paired comparison" + (", class by class" if of_classes else "")
    return Table(caption, columns, tuple(body), explain)


def _cut(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
