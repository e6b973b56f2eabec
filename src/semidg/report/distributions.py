"""The section with every image: Dice by domain, class and size, and over the area of the lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from semidg.evaluation.statistics import LARGE_FROM, SIZES, SMALL_BELOW
from semidg.report import charts, wording
from semidg.report.blocks import Charts, Figure, Section
from semidg.report.results import lacking
from semidg.report.runs import Method

_MOST_PARTS = 60  # boxes of one chart


def distributions(methods: Sequence[Method]) -> Section:
    """Dice of every image by domain, class and size, and over the area of the lesion."""
    section = Section("distributions", "Every image")
    tables = {place: method.lead.cases for place, method in enumerate(methods)}
    figures = []
    for key, what in wording.strata(methods[0].lead.summary["result"]).items():
        if key == "by_size":
            continue
        groups = {place: table[what].to_numpy() for place, table in tables.items()}
        figures.append(_boxes(tables, groups, what))
    with_area = {place: table for place, table in tables.items() if "area" in table.columns}
    if with_area:
        figures.append(_boxes(with_area, {place: size_names(table) for place, table in with_area.items()}, "size"))
    if not figures:
        figures.append(_boxes(tables, {place: np.full(len(t), "all images") for place, t in tables.items()}, "image"))
    section.blocks.append(
        Charts(
            tuple(figures),
            "Each small mark is an image, of the first run of each method. The box holds the middle "
            "half, its thick line is "
            "the median, the diamond the mean, and the whiskers reach from the 5th to the 95th "
            "percentile. Look for images near 0 %: the mean hides them.",
        )
    )
    if not with_area:
        section.blocks.append(lacking("Dice against lesion area", methods))
        return section
    label = "Scatter plot of Dice over the true area of each image"
    scatter = [Figure("Dice by lesion area", charts.over_area(with_area, label, "dice-area"), _OVER_AREA)]
    biased = {place: table for place, table in with_area.items() if "area_bias" in table.columns}
    if biased:
        label = "Scatter plot of predicted over true area of each image"
        scatter.append(Figure("Predicted and true area", charts.area_agreement(biased, label, "areas"), _AGREEMENT))
    section.blocks.append(Charts(tuple(scatter)))
    return section


_OVER_AREA = (
    "Small lesions lie at the left. Dotted lines part small, medium and large. A miss costs a small "
    "lesion as much Dice as a large one, but a border that is off by a pixel costs it more."
)
_AGREEMENT = (
    "On the line both areas are the same, above it too much was marked, below it too little. A cross at "
    "the lower edge: nothing was marked. Equal areas may lie in different places."
)


def size_names(cases: pd.DataFrame) -> npt.NDArray[np.str_]:
    """none, small, medium or large for each case, by its true area."""
    borders = [np.nextafter(0, 1), SMALL_BELOW, LARGE_FROM]
    names: npt.NDArray[np.str_] = np.asarray(SIZES)[np.digitize(cases["area"].to_numpy(float), borders)]
    return names


def _boxes(tables: Mapping[int, pd.DataFrame], groups: Mapping[int, Any], what: str) -> Figure:
    """One chart of Dice by a division of the images, largest part first."""
    counts: dict[str, int] = {}
    for names in groups.values():
        for name, n in zip(*np.unique(names.astype(str), return_counts=True), strict=True):
            counts[str(name)] = max(counts.get(str(name), 0), int(n))
    order = [s for s in SIZES if s in counts] if what == "size" else sorted(counts, key=lambda k: (-counts[k], k))
    dice = {place: 100 * table["dice"].to_numpy(float) for place, table in tables.items()}
    values = {
        name: {place: dice[place][groups[place].astype(str) == name] for place in tables}
        for name in order[:_MOST_PARTS]
    }
    label = f"Box plots of Dice by {what}: {', '.join(order[:8])}"
    return Figure(f"Dice by {what}", charts.boxes(values, label, f"boxes-{what}", "Dice, %"))
