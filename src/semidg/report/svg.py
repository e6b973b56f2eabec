"""Charts as inline SVG that follows the page: its font, its ink in light and dark, its width.

matplotlib draws text, axes and grid in sentinel colours, which become ``currentColor`` and variables of the style
sheet. Nothing in the result depends on the time or the machine, so the same numbers give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import TightLayoutEngine

#: Colours of text and lines, of the grid, and of the page behind, until the style sheet knows better.
INK, GRID, PAPER = "#010203", "#010204", "#010205"

#: Colour (Okabe and Ito; the style sheet lightens them in the dark), line style and marker of the methods in their
#: order: each tells them apart alone.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("", "5 2", "1.5 1.5", "6 1.5 1.5 1.5", "8 2 2 2 2 2", "3 1")
MARKERS = ("o", "s", "^", "D", "v", "P")

_VARIABLES = {INK: "currentColor", GRID: "var(--line)", PAPER: "var(--paper)"}
_VARIABLES |= {value: f"var(--series-{place})" for place, value in enumerate(COLOURS)}

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the font of the page
    "svg.hashsalt": "semidg",
    "text.parse_math": False,  # a name with dollars is a name
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "axes.linewidth": 0.7,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "path.simplify": True,
}


def colour(place: int) -> str:
    """Colour of the method at ``place``; they repeat after six, with line style and marker."""
    return COLOURS[place % len(COLOURS)]


def marker(place: int) -> str:
    """Marker of the method at ``place``."""
    return MARKERS[place % len(MARKERS)]


def dashes(place: int) -> tuple[int, tuple[float, ...]] | str:
    """Line style of the method at ``place``, as matplotlib wants it."""
    pattern = DASHES[place % len(DASHES)]
    return (0, tuple(float(v) for v in pattern.split())) if pattern else "-"


@contextmanager
def chart(width: float = 4.0, height: float = 2.6, grid: str = "both") -> Iterator[tuple[Figure, Axes]]:
    """An empty figure with one pair of axes, ``width`` x ``height`` inches, drawn with the settings of this module."""
    with mpl.rc_context({**mpl.rcParamsDefault, **_SETTINGS}):
        figure = Figure(figsize=(width, height), layout=TightLayoutEngine(pad=0.3))
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]
        axes.tick_params(length=2.5, width=0.7)
        yield figure, axes


def to_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """The figure as an ``<svg role="img">`` element with ``label`` for those who do not see it.

    ``prefix`` stands before each of its ids and must differ between the figures of a page; other characters than
    letters, digits, ``_`` and ``-`` become their codes. To be called within ``chart``, whose settings also hold for
    writing.
    """
    prefix = re.sub(r"[^A-Za-z0-9_-]", lambda found: f"_{ord(found.group()):x}_", prefix)
    buffer = io.StringIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's font draws the text, not matplotlib's
        # print_svg itself: savefig draws everything three times for the layout
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    size = re.search(r'viewBox="[^"]+"', text)
    assert size is not None
    body = text[text.index(">", text.index("<svg")) + 1 :].strip()
    # the style element would hold for the whole page
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", lambda tag: _tag(tag.group(), prefix), body)
    head = f'<svg class="chart" role="img" aria-label="{escape(label)}" {size.group()}>'
    return Markup(head + re.sub(r"\s*\n\s*", "\n", body))


def _tag(tag: str, prefix: str) -> str:
    """One tag with ids of this figure, the colours of the page and no font of its own."""
    tag = re.sub(r'\bid="', f'id="{prefix}-', tag)
    tag = re.sub(r'(?:xlink:)?href="#', f'href="#{prefix}-', tag).replace("url(#", f"url(#{prefix}-")
    tag = re.sub(r"font-family: [^;\"]+;? ?", "", tag)
    for drawn, value in _VARIABLES.items():
        tag = tag.replace(drawn, value)
    return tag


def swatch(place: int) -> Markup:
    """The line and marker of the method at ``place``, for a legend in HTML."""
    shapes = {
        "o": '<circle cx="16" cy="6" r="3.5"/>',
        "s": '<rect x="12.5" y="2.5" width="7" height="7"/>',
        "^": '<path d="M16 2l4 7.5h-8z"/>',
        "D": '<path d="M16 1.5l4.5 4.5-4.5 4.5-4.5-4.5z"/>',
        "v": '<path d="M16 10l4-7.5h-8z"/>',
        "P": '<path d="M14.5 2h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z"/>',
    }
    dash = DASHES[place % len(DASHES)]
    ink = _VARIABLES[colour(place)]
    return Markup(
        f'<svg class="swatch" aria-hidden="true" viewBox="0 0 32 12" fill="{ink}" stroke="{ink}">'
        f'<path d="M0 6h32" stroke-width="2"{f" stroke-dasharray={chr(34)}{dash}{chr(34)}" if dash else ""}/>'
        f"{shapes[marker(place)]}</svg>"
    )
