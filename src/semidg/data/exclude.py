"""The list of images that a user leaves out: an issues.csv of `semidg audit` with marks, or any table like it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from semidg.data.paths import printable
from semidg.errors import DataError

#: What may stand in the column ``exclude``: the image of the row is left out, its twin, or both.
MARKS = ("yes", "other", "both")
_NOT = ("", "no")


def read_exclusions(path: Path) -> tuple[str, ...]:
    """The ids marked in a table with the columns ``id``, ``exclude`` and, for the marks other and both, ``other``.

    Sorted, each once. Nothing is left out by itself: a row without a mark stays. Raises DataError that names the row
    on a missing column, a mark that is none, and a mark on a row without an id; and where no row is marked.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            missing = [column for column in ("id", "exclude") if column not in (reader.fieldnames or ())]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); `semidg audit` writes issues.csv") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); save it as one") from error
    if missing:
        raise DataError(f"{path}: the column(s) {', '.join(missing)} are missing; `semidg audit` writes such a table")
    found: set[str] = set()
    for number, row in enumerate(rows, start=1):
        mark = (row["exclude"] or "").strip().lower()
        if mark in _NOT:
            continue
        ids = {"yes": [row["id"]], "other": [row.get("other")], "both": [row["id"], row.get("other")]}.get(mark)
        if ids is None:
            raise DataError(
                f"{path}, row {number}: exclude = {printable(mark)!r}; write {', '.join(MARKS)}, or nothing"
            )
        if not all(ids):
            raise DataError(
                f"{path}, row {number}: exclude = {mark}, but the row names no such image; mark another row"
            )
        found.update(name for name in ids if name)
    if not found:
        raise DataError(f"{path}: no row is marked; write yes into the column exclude of what is to be left out")
    return tuple(sorted(found))


def refuse_unknown(excluded: Iterable[str], known: Iterable[str], path: Path) -> None:
    """Raise DataError that lists the ids that the data set does not have."""
    unknown = sorted({*excluded} - {*known})
    if unknown:
        shown = ", ".join(printable(name) for name in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"{path}: {len(unknown)} image(s) to be left out are not in the data set: {shown}; "
            "audit the same data set again, or correct the column id"
        )
