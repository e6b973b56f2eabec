"""The Multi-Centre, Multi-Vendor & Multi-Disease Cardiac Segmentation Challenge (M&Ms, 2020) as downloaded.

``Training``, ``Validation`` and ``Testing`` with ``CODE/CODE_sa.nii.gz``, a short-axis stack at several times, and
``CODE_sa_gt.nii.gz``; a table in the root gives vendor, end-diastole and end-systole. A vendor is a domain, a patient a
group. Only these two times have masks; cases in a folder ``Unlabeled`` have none, whatever lies beside them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from semidg.data.frames import Axis, Orientation, in_planes
from semidg.data.images import stem
from semidg.data.paths import Problems, list_images, require_classes
from semidg.data.tables import read_table
from semidg.errors import DataError
from semidg.types import Record

#: Columns of the table of the challenge.
COLUMNS = ("External code", "Vendor", "ED", "ES")

_PARTS = ("Training", "Validation", "Testing")
_TABLE = re.compile(r".*m&ms.*dataset.*information.*\.csv", re.IGNORECASE)
_IMAGE, _MASK = "_sa", "_sa_gt"
_CLASSES = "background, left ventricle, myocardium, right ventricle"


class _Case(NamedTuple):
    line: int
    vendor: str
    times: tuple[int, int]


def find_root(folder: Path) -> Path | None:
    """``folder`` if it holds the table and at least one of the three folders."""
    return folder if _tables(folder) and any((folder / part).is_dir() for part in _PARTS) else None


def find_records(
    root: Path,
    problems: Problems,
    classes: int,
    axis: Axis = "auto",
    all_times: bool = False,
    orientation: Orientation = "stored",
    excluded: Container[str] = (),
) -> list[Record]:
    """Records of the slices of both times, in natural order; with ``all_times`` those of the others too, unlabelled.

    Files and lines that do not fit go to ``problems``. Raises DataError for no table or two, or too few ``classes``.
    """
    require_classes(root, 4, classes, _CLASSES)
    tables = _tables(root)
    if len(tables) != 1:
        raise DataError(f"{root}: holds {len(tables)} tables called like that of M&Ms; keep one")
    cases = _read_cases(tables[0], problems)
    images, masks = _files(root, problems)
    records: list[Record] = []
    for code, path in images.items():
        if code not in cases:
            problems.add("file that cannot be used", f"{path}: {tables[0].name} has no line for {code}")
            continue
        case = cases[code]
        given = () if "Unlabeled" in PurePosixPath(path).parts or code not in masks else (masks[code],)
        record = Record(code, path, given, case.vendor, "", code, 0, 0)
        across: Axis = "z" if axis == "auto" and orientation == "stored" else axis  # the stack, wherever it turns to
        planes = in_planes(root, [record], problems, across, orientation, excluded=excluded)
        if planes == [record]:  # a bad file that is left out
            records.append(record)
            continue
        there = {_time_of(plane) for plane in planes}
        if planes and (missing := set(case.times) - there):
            text = f"{path} has no time {min(missing)}; it has 0 to {max(there)}"
            problems.add("row that cannot be used", f"{tables[0].name}, line {case.line}: {text}")
            continue
        records += [plane for plane in planes if _time_of(plane) in case.times]
        if all_times:
            records += [replace(plane, masks=()) for plane in planes if _time_of(plane) not in case.times]
    return records


def _files(root: Path, problems: Problems) -> tuple[dict[str, str], dict[str, str]]:
    """(images, masks): code of a case -> path."""
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    for part in _PARTS:
        if not (root / part).is_dir():
            continue
        for path in list_images(root, root / part, problems, recursive=True):
            name = stem(path.rpartition("/")[2])
            kind, found = (_MASK, masks) if name.endswith(_MASK) else (_IMAGE, images)
            code = name.removesuffix(kind)
            if name != code and code in found:
                problems.add("name that is not unique", f"{found[code]} and {path}", path)
            elif name != code:
                found[code] = path
    for code in masks.keys() - images.keys():
        problems.add("mask without image", masks[code])
    return images, masks


def _time_of(record: Record) -> int:
    """The time of a plane; that of a file with one time is 0."""
    return (record.frame.time if record.frame else None) or 0


def _tables(folder: Path) -> list[Path]:
    return sorted(
        child for child in folder.iterdir() if _TABLE.fullmatch(child.name) and not child.name.startswith(".")
    )


def _read_cases(path: Path, problems: Problems) -> dict[str, _Case]:
    cases: dict[str, _Case] = {}
    for line, row in read_table(path, COLUMNS, COLUMNS, problems):
        where = f"{path.name}, line {line}"
        code = row["External code"].strip()
        try:
            case = _Case(line, _vendor(row), (_time(row, "ED"), _time(row, "ES")))
        except DataError as error:
            problems.add("row that cannot be used", f"{where}: {error}")
            continue
        if not code or code in cases:
            why = f"{code!r} already stands in line {cases[code].line}" if code else "no External code"
            problems.add("row that cannot be used", f"{where}: {why}")
        else:
            cases[code] = case
    return cases


def _vendor(row: Mapping[str, str]) -> str:
    if not (vendor := row["Vendor"].strip()):
        raise DataError("no Vendor")
    return vendor


def _time(row: Mapping[str, str], column: str) -> int:
    """A time, counted from 0; a table that passed through a spreadsheet may say 9.0."""
    text = row[column].strip().removesuffix(".0")
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise DataError(f"{column} {row[column]!r}: the number of a time, from 0, is needed")
    return int(text)
