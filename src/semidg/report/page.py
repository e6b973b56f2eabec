"""One HTML file with everything in it: opens from disk, needs no network, prints."""

from __future__ import annotations

import base64
import math
import mimetypes
import numbers
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from semidg.errors import RunError
from semidg.report.figures import write_atomic


def write_page(  # noqa: PLR0917 - the order of the page
    path: Path,
    title: str,
    summary: str,
    tables: Sequence[tuple[str, pd.DataFrame]],
    figures: Sequence[tuple[str, Path]],
    details: dict[str, str],
) -> None:
    """Write a self-contained HTML page to ``path``; the file appears whole or not at all.

    ``summary`` is plain text, an empty line begins a new paragraph. ``tables`` are (caption, table); the index is
    shown only where it has a name; floats get three decimals, one from 10 on, and a missing value a dash. ``figures``
    are (caption, PNG, JPEG or SVG file), embedded. ``details`` are named facts such as the command and the versions,
    shown at the end. All text is escaped. Raises RunError that names a picture that cannot be read.
    """
    environment = Environment(
        loader=PackageLoader("semidg.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        title=title,
        paragraphs=[part.strip() for part in summary.split("\n\n") if part.strip()],
        tables=[_table(caption, table) for caption, table in tables],
        figures=[(caption, _data_uri(picture)) for caption, picture in figures],
        details=details,
    )
    write_atomic(path, text.encode("utf-8"))


def _table(caption: str, table: pd.DataFrame) -> dict[str, Any]:
    """What the template needs: the heading and, for each cell, its text and whether it is a number."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    columns = [
        table[name].tolist() if table.columns.is_unique else table.iloc[:, i].tolist()
        for i, name in enumerate(table.columns)
    ]
    numeric = [all(_is_number(value) for value in column) for column in columns]
    return {
        "caption": caption,
        "columns": list(zip(map(_heading, table.columns), numeric, strict=True)),
        "rows": [
            [(_cell(value), is_number) for value, is_number in zip(row, numeric, strict=True)]
            for row in zip(*columns, strict=True)
        ],
    }


def _heading(name: Hashable) -> str:
    return " · ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def _cell(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
    return str(value)


def _data_uri(picture: Path) -> str:
    kind = mimetypes.guess_type(picture.name)[0]
    if kind not in {"image/png", "image/jpeg", "image/svg+xml"}:
        raise RunError(f"{picture}: only PNG, JPEG and SVG pictures can stand in a page")
    try:
        data = picture.read_bytes()
    except OSError as error:
        raise RunError(f"{picture}: cannot be read for the page ({error.strerror})") from error
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
