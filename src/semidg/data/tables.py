"""Reading the tables that a user writes: CSV in UTF-8, checked line by line, all problems listed together."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from semidg.data.paths import Problems, printable
from semidg.errors import DataError


def read_table(
    path: Path, required: Sequence[str], known: Collection[str], problems: Problems
) -> list[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of each row of a comma-separated file; blank lines are passed over.

    Every known column is there, empty where the file has none; other columns are there under their own names. A row
    with another number of cells than the heading goes to ``problems``. Raises DataError that names the file if it
    cannot be read, is no CSV file in UTF-8, lacks a required column, has one twice, or one that looks like a misspelt
    known one.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            heading = [cell.strip() for cell in next(reader, [])]
            _check_heading(path, heading, required, known)
            rows: list[tuple[int, dict[str, str]]] = []
            for cells in reader:
                if not any(cells):
                    continue
                if len(cells) != len(heading):
                    text = f"{path.name}, line {reader.line_num}: {len(cells)} cells, the heading has {len(heading)}"
                    problems.add("row that cannot be used", text)
                    continue
                row = dict.fromkeys(known, "") | dict(zip(heading, cells, strict=True))
                rows.append((reader.line_num, row))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct its path or permissions") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); save it as CSV, UTF-8, with commas") from error
    return rows


def _check_heading(path: Path, heading: list[str], required: Sequence[str], known: Collection[str]) -> None:
    if not any(heading):
        raise DataError(f"{path}: is empty; its first line names the columns: {','.join(required)}")
    wrong = [f"no column {name}" for name in required if name not in heading]
    wrong += [f"column {name} twice" for name in sorted(known) if heading.count(name) > 1]
    for name in heading:
        near = difflib.get_close_matches(name.lower(), known, 1, cutoff=0.8)
        if name not in known and near and near[0] not in heading:
            wrong.append(f"column {printable(name)!r}: is {near[0]!r} meant?")
    if wrong:
        other = next((sep for sep in (";", "\t") if any(sep in name for name in heading)), None)
        hint = f"; separate the cells by commas, not by {other!r}" if other and len(heading) == 1 else ""
        raise DataError(f"{path}: {'; '.join(wrong)}; the heading is {printable(','.join(heading)[:200])!r}{hint}")
