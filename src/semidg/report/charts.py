"""The charts of a report: each takes tables or numbers and returns inline SVG (``svg.to_svg``).

Methods are told apart by colour, line style and marker together; ``place`` is a method's place in the report. Every
function takes ``prefix``, which stands before the ids of its figure, and ``label``, what the chart shows in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from semidg.report.svg import INK, PAPER, chart, colour, dashes, marker, to_svg

Floats = npt.NDArray[np.float64]

_POINTS = 250  # points of a line, and of a box's cloud, so that a page stays small however long the run was


class Line(NamedTuple):
    """A line of a chart: ``x`` and ``y`` of one length, NaN where there is no value."""

    place: int
    x: Floats
    y: Floats


class Interval(NamedTuple):
    """A row of a forest plot: the value, its interval and the wider one over seeds; NaN where there is none."""

    place: int
    name: str
    value: float
    low: float
    high: float
    seeds_low: float = float("nan")
    seeds_high: float = float("nan")


def course(lines: Sequence[Line], label: str, prefix: str, *, percent: bool = False) -> Markup:
    """A quantity over the training steps; lines longer than 250 points are averaged over equal stretches."""
    with chart(3.6, 2.1) as (figure, axes):
        for line in lines:
            known = np.isfinite(line.y)
            x, y = _thinned(line.x[known], line.y[known] * (100 if percent else 1))
            few = marker(line.place) if len(x) <= 25 else None
            axes.plot(x, y, color=colour(line.place), ls=dashes(line.place), lw=1.3, marker=few, ms=3.5)
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        return to_svg(figure, prefix, label)


def boxes(values: Mapping[str, Mapping[int, Floats]], label: str, prefix: str, axis: str) -> Markup:
    """Every value as a point with a box: category -> place of the method -> values in %, from top to bottom.

    The box spans the quartiles with the median as its line, the diamond is the mean, whiskers reach the 5th and 95th
    percentile. Of more than 250 values the points shown are every k-th by rank.
    """
    rows = [(name, place, each) for name, group in values.items() for place, each in group.items() if each.size]
    with chart(4.4, 0.75 + 0.36 * len(rows) + 0.08 * len(values), grid="x") as (figure, axes):
        generator = np.random.default_rng(0)  # moves points sideways, nothing else
        ticks: list[float] = []
        y = 0.0
        for name in values:
            begin = y
            for _, place, each in (row for row in rows if row[0] == name):
                _box(axes, y, np.sort(each), place, generator)
                y += 1
            ticks.append((begin + y - 1) / 2)
            y += 0.3
        axes.set_yticks(ticks, [f"{_short(name)}\nn = {max(v.size for v in values[name].values())}" for name in values])
        axes.set(xlim=(-2, 102), ylim=(y - 0.6, -0.7), xlabel=axis)
        axes.tick_params(axis="y", length=0)
        return to_svg(figure, prefix, label)


def over_area(tables: Mapping[int, pd.DataFrame], label: str, prefix: str) -> Markup:
    """Dice in % over the true area in % of the image, on a logarithmic axis; images without foreground are left out."""
    with chart(4.4, 3.0) as (figure, axes):
        for place, table in tables.items():
            shown = table[table["area"] > 0]
            _points(axes, 100 * shown["area"].to_numpy(float), 100 * shown["dice"].to_numpy(float), place)
        for border in (2, 10):
            axes.axvline(border, color=INK, lw=0.7, ls=":")
        axes.set(xscale="log", ylim=(-3, 103), xlabel="true area, % of the image", ylabel="Dice, %")
        _plain_log(axes, "x")
        return to_svg(figure, prefix, label)


def area_agreement(tables: Mapping[int, pd.DataFrame], label: str, prefix: str) -> Markup:
    """Predicted over true area in % of the image, both logarithmic, with the line of agreement.

    The predicted area comes from ``area`` and ``area_bias`` = (P - T) / max(P, T); where nothing was predicted the
    point is a cross at the lower edge, and images without foreground are left out.
    """
    with chart(4.4, 3.2) as (figure, axes):
        both = pd.concat(tables.values())
        true, predicted = predicted_area(both)
        true_areas = true[true > 0]
        known = np.concatenate([true_areas, predicted[predicted > 0]])
        low, high = (known.min() / 1.5, known.max() * 1.5) if known.size else (0.1, 100.0)
        axes.plot([low, high], [low, high], color=INK, lw=0.8)
        for place, table in tables.items():
            true, predicted = predicted_area(table)
            drawn = predicted > 0
            _points(axes, true[drawn], predicted[drawn], place)
            axes.scatter(true[~drawn], np.full((~drawn).sum(), low), marker="x", s=22, color=colour(place), lw=1.2)
        left = true_areas.min() / 1.5 if true_areas.size else low
        axes.set(xscale="log", yscale="log", xlim=(left, high), ylim=(low / 1.15, high))
        axes.set(xlabel="true area, % of the image", ylabel="predicted area, %")
        _plain_log(axes, "x")
        _plain_log(axes, "y")
        return to_svg(figure, prefix, label)


def predicted_area(cases: pd.DataFrame) -> tuple[Floats, Floats]:
    """True and predicted area in % of the image, of the cases with foreground: two arrays.

    With b = (P - T) / max(P, T): P = T / (1 - b) where b >= 0, else P = T (1 + b).
    """
    shown = cases[cases["area"] > 0]
    true = 100 * shown["area"].to_numpy(float)
    bias = shown["area_bias"].to_numpy(float)
    larger = true / np.maximum(1 - bias, 1e-9)
    return true, np.where(bias >= 0, larger, true * (1 + bias))


def forest(rows: Sequence[Interval], label: str, prefix: str, axis: str) -> Markup:
    """Differences from the baseline with their intervals, a row a method; the thin line also covers the seeds."""
    with chart(4.4, 0.75 + 0.42 * len(rows), grid="x") as (figure, axes):
        axes.axvline(0, color=INK, lw=1.0)
        for y, row in enumerate(rows):
            axes.plot([row.seeds_low, row.seeds_high], [y, y], color=colour(row.place), lw=1.0, marker="|", ms=7)
            axes.plot([row.low, row.high], [y, y], color=colour(row.place), lw=3.2, solid_capstyle="butt")
            axes.plot([row.value], [y], marker=marker(row.place), ms=7, color=colour(row.place), mec=PAPER)
        axes.set_yticks(range(len(rows)), [_short(row.name) for row in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel=axis)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        reach = max(abs(v) for v in axes.get_xlim())  # no difference in the middle
        axes.set_xlim(-reach, reach)
        return to_svg(figure, prefix, label)


def reliability(
    curves: Sequence[tuple[int, bool, Sequence[Mapping[str, Any]]]], label: str, prefix: str, *, least: float = 0.5
) -> Markup:
    """How often pixels of a stated confidence are right: (place, calibrated, bins of summary.json) each.

    A calibrated curve is solid and filled, one before calibration dashed and hollow; the size of a point is the share
    of pixels of its bin. Bins without pixels are left out.
    """
    with chart(4.0, 3.4) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=INK, lw=0.8)
        for place, calibrated, bins in curves:
            full = [b for b in bins if b["weight"] and b["accuracy"] is not None]
            x, y = (100 * np.array([b[key] for b in full], float) for key in ("confidence", "accuracy"))
            least = min([least, *x / 100, *y / 100])
            size = 14 + 90 * np.sqrt(np.array([b["weight"] for b in full], float))
            line = "-" if calibrated else "--"
            axes.plot(x, y, color=colour(place), ls=line, lw=1.3)
            face = colour(place) if calibrated else PAPER
            axes.scatter(x, y, s=size, marker=marker(place), facecolor=face, edgecolor=colour(place), lw=1.2, zorder=3)
        start = 100 * max(0.0, np.floor(10 * least) / 10)
        axes.set(xlim=(start - 2, 102), ylim=(start - 2, 102), xlabel="stated confidence, %", ylabel="pixels right, %")
        return to_svg(figure, prefix, label)


def expected_real(tables: Mapping[int, pd.DataFrame], label: str, prefix: str) -> Markup:
    """Real over expected Dice of every image, both in %, with the line on which they agree."""
    with chart(4.0, 3.4) as (figure, axes):
        axes.plot([0, 100], [0, 100], color=INK, lw=0.8)
        for place, table in tables.items():
            _points(axes, 100 * table["expected_dice"].to_numpy(float), 100 * table["dice"].to_numpy(float), place)
        axes.set(xlim=(-3, 103), ylim=(-3, 103), xlabel="Dice the model expects, %", ylabel="real Dice, %")
        return to_svg(figure, prefix, label)


def risk_coverage(curves: Sequence[tuple[int, Mapping[str, Any], Floats]], label: str, prefix: str) -> Markup:
    """Mean Dice of the images kept when the least certain ones go to a person: (place, risk_coverage, Dice) each.

    With one curve the random order (a level line) and the best possible one (by the real Dice) are drawn beside it.
    """
    with chart(4.4, 3.0) as (figure, axes):
        for place, curve, dice in curves:
            x, y = _thinned(100 * np.array(curve["coverage"], float), 100 * np.array(curve["dice"], float))
            axes.plot(x, y, color=colour(place), ls=dashes(place), lw=1.6, label="by the model's certainty")
            if len(curves) == 1:
                best = np.cumsum(np.sort(dice)[::-1]) / np.arange(1, dice.size + 1)
                share = 100 * np.arange(1, dice.size + 1) / dice.size
                axes.plot(*_thinned(share, 100 * best), color=INK, ls="--", lw=1.0, label="best possible order")
                axes.axhline(100 * float(dice.mean()), color=INK, ls=":", lw=1.2, label="at random")
        if len(curves) == 1:
            axes.legend(frameon=False, loc="best", fontsize=8.5)
        axes.set(xlim=(103, 0), xlabel="images kept, %", ylabel="mean Dice of those, %")
        return to_svg(figure, prefix, label)


def _box(axes: Axes, y: float, values: Floats, place: int, generator: np.random.Generator) -> None:
    shown = values if values.size <= _POINTS else values[np.linspace(0, values.size - 1, _POINTS).round().astype(int)]
    spread = generator.uniform(-0.3, 0.3, shown.size)
    axes.scatter(shown, y + spread, s=11, marker=marker(place), color=colour(place), alpha=0.6, lw=0)
    line = {"color": INK, "linewidth": 1.1}
    axes.boxplot(
        values,
        positions=[y],
        orientation="horizontal",
        widths=0.62,
        whis=(5, 95),
        showfliers=False,
        manage_ticks=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops=line | {"linewidth": 2.0},
    )
    axes.plot([values.mean()], [y], marker="D", ms=4.5, color=INK, mec=PAPER, mew=0.8, zorder=4)


def _points(axes: Axes, x: Floats, y: Floats, place: int) -> None:
    axes.scatter(x, y, s=17, marker=marker(place), color=colour(place), alpha=0.65, lw=0)


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most 250 points: means over equal stretches of neighbours."""
    if len(x) <= _POINTS:
        return x, y
    stretch = np.arange(len(x)) * _POINTS // len(x)
    counts = np.bincount(stretch)
    return np.bincount(stretch, x) / counts, np.bincount(stretch, y) / counts


def _plain_log(axes: Axes, which: str) -> None:
    """Ticks of a logarithmic axis as plain numbers, 1, 2 and 5 of each decade."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _short(name: str, length: int = 22) -> str:
    name = " ".join(name.split()) or "(none)"
    return name if len(name) <= length else f"{name[: length - 1]}…"
