"""The CSV layout: a table of the user's, one line an image, its paths relative to the folder of the table.

The columns are those of index.csv, of which only ``image`` is needed: an index.csv is such a table too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from semidg.data.images import stem
from semidg.data.paths import Problems, resolve_inside
from semidg.data.spacing import parse_spacing
from semidg.data.tables import read_table
from semidg.errors import DataError
from semidg.mask_values import parse_mask_values
from semidg.types import Frame, Record

#: Columns with a meaning; ``mask`` and ``masks`` are one. Others are passed over.
COLUMNS = (
    *("image", "id", "mask", "masks", "domain", "class", "group"),
    *("row_mm", "column_mm", "frame", "slice_mm", "vote", "series", "ignore", "mask_values"),
)

_VOTES = {"": False, "no": False, "yes": True}


def find_records(path: Path, problems: Problems) -> list[Record]:
    """Records without size, in the order of the lines; ``group`` is empty where the table gives none.

    Without a column ``domain`` all images are of one domain, called like the table.

    A line that does not fit goes to ``problems``, with its number: a missing file, a path that leaves the folder, a
    doubled image or id, a bad number. Raises DataError if the file is no such table.
    """
    rows = read_table(path, ("image",), COLUMNS, problems)
    if not rows and not problems:
        raise DataError(f"{path}: no image is listed; write one line an image")
    named = {column for column in ("domain", "mask", "masks") if any(row[column] for _, row in rows)}
    if {"mask", "masks"} <= named:
        raise DataError(f"{path}: has a column mask and a column masks; keep one of the two")
    records: list[Record] = []
    seen: dict[tuple[str, object], int] = {}
    for line, row in rows:
        where = f"{path.name}, line {line}"
        try:
            record = _record(path.parent, row, None if "domain" in named else path.stem)
            _refuse_twice(record, line, seen)
        except (DataError, ValueError) as error:
            problems.add("row that cannot be used", f"{where}: {error}")
            continue
        records.append(record)
    return records


def join_masks(masks: tuple[str, ...]) -> str:
    """Mask files as one cell: joined by ";", with a "\\" before a ";" or "\\" of a name."""
    return ";".join(mask.replace("\\", "\\\\").replace(";", "\\;") for mask in masks)


def split_masks(cell: str) -> tuple[str, ...]:
    """The mask files of a cell, as ``join_masks`` wrote it."""
    parts, current, letters = [], "", iter(cell)
    for letter in letters:
        if letter == "\\":
            current += next(letters, "")
        elif letter == ";":
            parts.append(current)
            current = ""
        else:
            current += letter
    return tuple(part for part in (*parts, current) if part)


def parse_vote(cell: str) -> bool:
    """The cell ``vote``: ``yes``, or ``no`` or nothing; raises DataError."""
    if cell not in _VOTES:
        raise DataError(f"vote {cell!r}: yes, or nothing, is needed")
    return _VOTES[cell]


def parse_slice_mm(cell: str) -> float | None:
    """The cell ``slice_mm``: mm above 0, or nothing; raises DataError."""
    if not cell:
        return None
    try:
        mm = float(cell)
    except ValueError:
        mm = 0.0
    if not 0 < mm < math.inf:
        raise DataError(f"slice_mm {cell!r}: a number of mm above 0 is needed")
    return mm


def _record(root: Path, row: Mapping[str, str], domain: str | None) -> Record:
    image = PurePosixPath(row["image"]).as_posix() if row["image"] else ""
    masks = split_masks(row["mask"] or row["masks"])
    windows = "\\" in row["image"] + row["mask"] + row["masks"]
    series = row["series"] if row["frame"] else ""
    for relative in (image, *masks, *filter(None, [series])):
        drive = windows and ":" in row["image"][1:2]
        whole = "it relative to the folder of the table, " if drive else "its folders "
        _require_file(root, relative, f"; write {whole}with /" if windows else "")
    if not (row["domain"] or domain):
        raise DataError("no domain, where other lines have one")
    frame = Frame.parse(row["frame"]) if row["frame"] else None
    return Record(
        row["id"] or stem(image) + (f"/{frame}" if frame and not series else ""),
        image,
        masks,
        row["domain"] or domain or "",
        row["class"],
        row["group"],
        0,
        0,
        parse_spacing(row["row_mm"], row["column_mm"]) if row["row_mm"] or row["column_mm"] else None,
        frame,
        parse_slice_mm(row["slice_mm"]),
        parse_vote(row["vote"]),
        parse_ignore(row["ignore"]),
        series,
        parse_rules(row["mask_values"], row["ignore"]),
    )


def parse_rules(text: str, ignore: str) -> str:
    """The cell ``mask_values``, checked; raises ValueError, as where the row has a value to ignore beside it."""
    if text:
        parse_mask_values(text)
        if ignore:
            raise ValueError(f"mask_values {text!r} beside ignore {ignore!r}; write {ignore}:ignore into mask_values")
    return text


def parse_ignore(text: str) -> int | None:
    """The value in masks of pixels that are not known, empty for none; raises ValueError."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"ignore {text!r}: a number of 0 or more is needed")
    return int(text)


def _refuse_twice(record: Record, line: int, seen: dict[tuple[str, object], int]) -> None:
    """Note image and id of a line in ``seen``; raise DataError if one of them stood in a line before."""
    image = record.image + (f", frame {record.frame}," if record.frame else "")
    other = seen.get(("whole" if record.frame else "frames", record.image))
    if other is not None:
        raise DataError(f"the image {record.image} stands whole and with a frame, here and in line {other}")
    seen.setdefault(("frames" if record.frame else "whole", record.image), line)
    keys: dict[tuple[str, object], str] = {
        ("image", (record.image, record.frame)): f"the image {image}",
        ("id", record.id): f"the id {record.id!r}",
    }
    for key, name in keys.items():
        if key in seen:
            raise DataError(f"{name} already stands in line {seen[key]}")
    seen.update(dict.fromkeys(keys, line))


def _require_file(root: Path, relative: str, hint: str) -> None:
    try:
        relative.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{relative!r}: a path that is no UTF-8") from error
    path = resolve_inside(root, relative)
    try:
        found = path.is_file()
    except OSError as error:  # a name that is too long
        raise DataError(f"{relative}: not a usable path ({error.strerror})") from error
    if not found:
        raise DataError(f"{relative}: there is no such file{hint}")
