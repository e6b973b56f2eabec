"""What a report is made of: sections of texts, tables, charts and cases, which the template writes down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from semidg.report.gallery import Case
from semidg.report.glossary import METRIC_TERMS, OTHER_TERMS, term


@dataclass(frozen=True)
class Cell:
    """A cell: its text, a second line in small, and what the column is sorted by (None goes last)."""

    text: str
    small: str = ""
    key: float | str | None = None


@dataclass(frozen=True)
class Column:
    """A column: its heading, the glossary entry it links to, and whether it holds numbers."""

    heading: str
    entry: str | None = None
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each of its columns."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    explain: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph; a note is set apart."""

    kind: ClassVar[str] = "text"
    text: str
    note: bool = False


@dataclass(frozen=True)
class Figure:
    """One chart with its title and how to read it."""

    title: str
    svg: Markup
    caption: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts side by side; ``explain`` holds for all, ``legend`` shows which method is which."""

    kind: ClassVar[str] = "charts"
    figures: tuple[Figure, ...]
    explain: str = ""
    small: bool = False


@dataclass(frozen=True)
class Gallery:
    """The cases with their pictures; ``legend``: name and colour of each class, where there are several."""

    kind: ClassVar[str] = "gallery"
    cases: tuple[Case, ...]
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Folded:
    """Long text under a heading that opens it."""

    kind: ClassVar[str] = "folded"
    title: str
    text: str


@dataclass(frozen=True)
class Group:
    """Tables under a heading that opens them."""

    kind: ClassVar[str] = "group"
    title: str
    tables: tuple[Table, ...]


Block = Table | Text | Charts | Gallery | Folded | Group


@dataclass
class Section:
    """A section with its anchor; blocks are added in the order of the page."""

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)


def word(text: str, small: str = "") -> Cell:
    """A cell of text."""
    return Cell(text, small, text)


def number(value: float | None, factor: float = 1, decimals: int = 1, interval: Sequence[float] | None = None) -> Cell:
    """A cell with a number, its interval in small; a dash where there is none. Sorted by the number."""
    if value is None or math.isnan(value):
        return Cell("–")
    small = "" if interval is None else " to ".join(f"{factor * end:.{decimals}f}" for end in interval)
    return Cell(f"{factor * value:.{decimals}f}", small, factor * value)


def interval_cell(interval: Sequence[float] | None, factor: float = 1, decimals: int = 1, sign: bool = False) -> Cell:
    """A cell with an interval, sorted by its lower end; a dash where there is none."""
    if interval is None or any(end is None or math.isnan(end) for end in interval):
        return Cell("–")
    low, high = (f"{factor * end:{'+' if sign else ''}.{decimals}f}" for end in interval)
    return Cell(f"{low} to {high}", "", factor * interval[0])


def column(name: str, heading: str | None = None) -> Column:
    """The column of a quantity that the glossary knows."""
    known = name in METRIC_TERMS or name in OTHER_TERMS
    return Column(heading or term(name).heading, name if known else None)
