"""The figure of a comparison: Dice against the labelled fraction, or arm by arm where there is one fraction.

Arms are told apart by colour (Okabe and Ito), line style, marker and a label at the line itself.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from semidg.report.comparison_rows import Row
from semidg.report.svg import colour, dashes, marker

_INK, _GRID = "#222222", "#dddddd"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in any script
    "svg.hashsalt": "semidg",
    "text.parse_math": False,  # a name with dollars is a name
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
}
_COLUMNS = 2  # panels side by side
_DODGE = 0.028  # between arms at one fraction, as a part of the axis
_GAP = 0.065  # between labels, as a part of the height


def dice_figure(rows: Sequence[Row], means: Sequence[Row]) -> bytes:
    """A stand-alone SVG: a panel for each protocol and held-out domain, behind the mean over those if there is one.

    A point is the mean over seeds and cases with its 95 % interval over the cases, a hollow one a seed. Networks alone
    are not drawn. The same rows give the same bytes.
    """
    shown = [row for row in (*means, *rows) if not row.one_network]
    places = {arm: place for place, arm in enumerate(dict.fromkeys(row.arm for row in rows))}
    panels: dict[tuple[str, str], list[Row]] = {}
    for row in shown:
        target = f"mean of {len(row.targets)} held-out domains" if row.targets else row.target or ""
        panels.setdefault((row.protocol, target), []).append(row)
    with mpl.rc_context({**mpl.rcParamsDefault, **_SETTINGS}):
        across = min(_COLUMNS, len(panels))
        down = math.ceil(len(panels) / across)
        lines = len({row.labelled for row in shown}) > 1
        height = 3.2 if lines else 0.9 + 0.32 * len(places)
        figure = Figure(figsize=(5.2 * across, height * down), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis, ((protocol, target), of_panel) in zip(axes, panels.items(), strict=False):
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(f"{protocol}{f', {target}' if target else ''}", loc="left")
            (_curves if lines else _dots)(axis, of_panel, places)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # the reader's font draws the text
            FigureCanvasSVG(figure)
            figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue().encode()


def _curves(axis: Axes, rows: Sequence[Row], places: dict[str, int]) -> None:
    """A line an arm over the labelled fraction, on a logarithmic axis."""
    fractions = sorted({100 * row.labelled for row in rows})
    reach = math.log10(fractions[-1] / fractions[0]) or 1.0
    ends: list[tuple[float, str, int]] = []
    for arm, place in places.items():
        of_arm = sorted((row for row in rows if row.arm == arm), key=lambda row: row.labelled)
        if not of_arm:
            continue
        x = [100 * row.labelled * 10 ** (_DODGE * reach * _beside(row, rows, places)) for row in of_arm]
        y = [100 * row.dice for row in of_arm]
        axis.plot(x, y, color=colour(place), ls=dashes(place), lw=1.4, marker=marker(place), ms=5, zorder=3)
        for at, row in zip(x, of_arm, strict=True):
            axis.plot([at, at], [100 * row.low, 100 * row.high], color=colour(place), lw=1.0, alpha=0.7)
            seeds = [100 * value for value in row.by_seed]
            axis.scatter([at] * len(seeds), seeds, s=9, facecolor="none", edgecolor=colour(place), lw=0.7, zorder=2)
        ends.append((y[-1], arm, place))
        if x[-1] < fractions[-1] * 0.8:  # a line that ends early leads the eye to its label
            axis.plot([x[-1], fractions[-1] * 10 ** (0.08 * reach)], [y[-1], y[-1]], color=_GRID, lw=0.7, zorder=1)
    axis.set_xscale("log")
    axis.set_xticks(fractions, [f"{value:g}" for value in fractions])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(axis="y")
    axis.set(xlabel="labelled, % of the training images", ylabel="Dice, %")
    low, high = axis.get_ylim()
    for at, (_, arm, place) in zip(_apart([end[0] for end in ends], _GAP * (high - low)), ends, strict=True):
        axis.annotate(
            _short(arm),
            (1.02, (at - low) / (high - low)),
            xycoords="axes fraction",
            color=colour(place),
            va="center",
            annotation_clip=False,
        )


def _beside(row: Row, rows: Sequence[Row], places: dict[str, int]) -> float:
    """The place of a row among those at its fraction, 0 in the middle."""
    here = sorted(places[other.arm] for other in rows if other.labelled == row.labelled)
    return here.index(places[row.arm]) - (len(here) - 1) / 2


def _dots(axis: Axes, rows: Sequence[Row], places: dict[str, int]) -> None:
    """A row an arm: mean, interval and seeds."""
    for y, row in enumerate(rows):
        place = places[row.arm]
        axis.plot([100 * row.low, 100 * row.high], [y, y], color=colour(place), lw=1.6)
        axis.plot([100 * row.dice], [y], marker=marker(place), ms=7, color=colour(place), zorder=3)
        seeds = [100 * value for value in row.by_seed]
        axis.scatter(seeds, [y] * len(seeds), s=16, facecolor="white", edgecolor=colour(place), lw=0.9, zorder=4)
    axis.set_yticks(range(len(rows)), [_short(row.arm) for row in rows])
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set_color(colour(places[row.arm]))
    axis.set(ylim=(len(rows) - 0.4, -0.6), xlabel=f"Dice, %, with {100 * rows[0].labelled:g} % labelled")
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as it takes to stand ``gap`` apart, in their order."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, dtype=float)[order]
    for _ in range(200):
        close = np.diff(placed) < gap - 1e-9
        if not close.any():
            break
        for i in np.flatnonzero(close):
            middle = (placed[i] + placed[i + 1]) / 2
            placed[i], placed[i + 1] = middle - gap / 2, middle + gap / 2
    result = np.empty_like(placed)
    result[order] = placed
    return [float(value) for value in result]


def _short(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
