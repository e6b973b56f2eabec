"""Pixel spacing of a data set in the folders layout: spacing.csv in its root, one line an image or a domain."""

from __future__ import annotations

import csv
import math
from collections.abc import Container, Mapping
from pathlib import Path

from semidg.data.paths import printable, resolve_inside
from semidg.errors import DataError

#: Name of the file, and its columns; docs/reference/data-formats.md describes it.
FILE = "spacing.csv"
COLUMNS = ("image", "row_mm", "column_mm")

#: mm from one pixel to the next: from row to row, from column to column.
Spacing = tuple[float, float]


def read_spacing(root: Path, images: Mapping[str, str]) -> dict[str, Spacing]:
    """The spacing of each image that spacing.csv in ``root`` knows; without the file, none.

    images: image path -> domain, POSIX and relative to ``root``; an image's own line wins over that of its domain.
    Raises DataError that names the line on a bad number, an image that the data set does not have, and a doubled one.
    """
    path = root / FILE
    if not path.exists() and not path.is_symlink():
        return {}
    known = {*images, *images.values()}
    found: dict[str, Spacing] = {}
    try:
        with resolve_inside(root, FILE).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                raise DataError(f"{path}: no column {', '.join(missing)}; its first line is {','.join(COLUMNS)}")
            for row in reader:
                try:
                    name, spacing = _line(row, root)
                    _check_name(name, known, found)
                except DataError as error:
                    raise DataError(f"{path}, line {reader.line_num}: {error}; correct or remove the line") from error
                found[name] = spacing
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct or remove it") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); correct or remove it") from error
    each = {image: found.get(image, found.get(domain)) for image, domain in images.items()}
    return {image: spacing for image, spacing in each.items() if spacing is not None}


def parse_spacing(row_mm: str, column_mm: str) -> Spacing:
    """The spacing from the text of its two cells; raises DataError unless both are finite numbers above 0."""
    try:
        spacing = float(row_mm), float(column_mm)
    except ValueError:
        spacing = 0.0, 0.0
    if not all(0 < mm < math.inf for mm in spacing):
        raise DataError(
            f"spacing {printable(row_mm)!r} x {printable(column_mm)!r}: two numbers of mm above 0 are needed"
        )
    return spacing


def _line(row: Mapping[str | None, str | None], root: Path) -> tuple[str, Spacing]:
    name, row_mm, column_mm = (row[column] for column in COLUMNS)
    if name is None or row_mm is None or column_mm is None or None in row:
        raise DataError("has another number of columns than the first line")
    resolve_inside(root, name)
    return name, parse_spacing(row_mm, column_mm)


def _check_name(name: str, known: Container[str], found: Container[str]) -> None:
    if name not in known:
        raise DataError(f"{printable(name)!r} is no image and no domain of the data set")
    if name in found:
        raise DataError(f"{printable(name)!r} stands twice")
