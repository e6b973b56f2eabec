"""One HTML file with everything in it: opens from disk, needs no network, prints."""

from __future__ import annotations

import base64
import io
import math
import mimetypes
import numbers
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from semidg.errors import RunError
from semidg.files import write_bytes


def write_page(
    path: Path,
    title: str,
    summary: str,
    tables: Sequence[tuple[str, pd.DataFrame]],
    figures: Sequence[tuple[str, Path]],
    details: dict[str, str],
) -> None:
    """Write a self-contained HTML page to ``path``; the file appears whole or not at all.

    ``summary`` is plain text, an empty line begins a new paragraph. ``tables`` are (caption, table); the index is
    shown only where it has a name; floats get three decimals, or one in a column that reaches 10, and a missing value
    a dash. ``figures`` are (caption, PNG, JPEG or SVG file), embedded. ``details`` are named facts such as the command
    and the versions, shown at the end. All text is escaped. Raises RunError that names a picture that cannot be read.
    """
    text = (
        environment()
        .get_template("page.html.jinja")
        .render(
            title=title,
            paragraphs=[part.strip() for part in summary.split("\n\n") if part.strip()],
            tables=[_table(caption, table) for caption, table in tables],
            figures=[{"caption": caption, **_picture(picture)} for caption, picture in figures],
            details=details,
        )
    )
    write_bytes(path, text.encode("utf-8"))


def environment() -> Environment:
    """The templates of the pages; all text is escaped."""
    return Environment(
        loader=PackageLoader("semidg.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _table(caption: str, table: pd.DataFrame) -> dict[str, Any]:
    """What the template needs: the heading and, for each cell, its text and whether it is a number."""
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    columns = [table.iloc[:, place].tolist() for place in range(table.shape[1])]
    numeric = [all(_is_number(value) for value in column) for column in columns]
    return {
        "caption": caption,
        "columns": list(zip(map(_heading, table.columns), numeric, strict=True)),
        "rows": [
            list(zip(row, numeric, strict=True)) for row in zip(*(_texts(column) for column in columns), strict=True)
        ],
    }


def _heading(name: Hashable) -> str:
    return " · ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def _texts(column: Sequence[object]) -> list[str]:
    """The cells of one column; all its floats get the same number of decimals."""
    floats = [value for value in column if isinstance(value, float) and math.isfinite(value)]
    decimals = 1 if any(abs(value) >= 10 for value in floats) else 3
    return [_text(value, decimals) for value in column]


def _text(value: object, decimals: int) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        # a p value of 1e-9 must not read as 0
        return f"{value:.1e}" if 0 < abs(value) < 0.5 * 10**-decimals else f"{value:.{decimals}f}"
    return str(value)


def _picture(path: Path) -> dict[str, Any]:
    """``source``, a data URI, and ``width`` in CSS pixels (1/96 inch) where the file states its resolution."""
    kind = mimetypes.guess_type(path.name)[0]
    if kind not in {"image/png", "image/jpeg", "image/svg+xml"}:
        raise RunError(f"{path}: only PNG, JPEG and SVG pictures can stand in a page")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read for the page ({error.strerror})") from error
    width = None
    if kind != "image/svg+xml":
        try:
            with Image.open(io.BytesIO(data)) as image:
                if dots := image.info.get("dpi"):
                    width = round(image.width * 96 / dots[0])
        except OSError as error:
            raise RunError(f"{path}: not a readable picture") from error
    return {"source": f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}", "width": width}
