"""index.csv: the records of a data set as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semidg.data.csv_layout import join_masks, parse_ignore, parse_rules, parse_slice_mm, parse_vote, split_masks
from semidg.data.layouts import locate
from semidg.data.paths import printable, resolve_inside
from semidg.data.roots import roots_of
from semidg.data.spacing import parse_spacing
from semidg.errors import DataError
from semidg.files import atomic_path
from semidg.types import Frame, Record

#: Columns of index.csv. Several masks are joined by ";"; a ";" or "\" in a name has a "\" before it.
COLUMNS = ("id", "image", "masks", "domain", "class", "group", "width", "height")

#: Two more columns, there if the pixel spacing of an image is known; both cells are empty where it is not.
SPACING_COLUMNS = ("row_mm", "column_mm")

#: Three more, there if a record is a plane of a file or takes the vote of raters: ``z17``; mm; ``yes`` or empty.
FRAME_COLUMNS = ("frame", "slice_mm", "vote")

#: One more, there if a value in the masks is of pixels that are not known: that value.
IGNORE_COLUMN = "ignore"

#: One more, there if the values of masks have a meaning of their own: the rules (``mask_values.py``).
VALUES_COLUMN = "mask_values"

#: One more, there if a record is a slice of a DICOM series: the first file of that series.
SERIES_COLUMN = "series"


@dataclass(frozen=True)
class Index:
    """A data set: all its images, with what is known of them.

    root: the folder that the paths of the records start from; for BUSI the folder that holds ``benign``, even where
    the folder above it was given; for several roots the folder that holds them. layout: its name; ``several`` for
    several roots, ``csv`` for a table, or an index.csv of another layout. skipped: one line for each problem passed
    over because of ``skip_bad``. excluded: ids left out by the user's list. framed: images at whose edge the mask
    is foreground; counted where the index is made, not where it is read.
    """

    root: Path
    layout: str
    records: tuple[Record, ...]
    skipped: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    framed: int = 0

    @property
    def doubt(self) -> str:
        """What to tell the user of masks that look inverted, empty where they do not."""
        masks = sum(record.labelled for record in self.records)
        if self.framed <= masks / 2:
            return ""
        return (
            f"{self.framed} of {masks} masks mark the edge of the image: where 0 is the foreground, say so with "
            "data.mask_values, '0:1,*:0' say"
        )


def write_index(index: Index, path: Path) -> None:
    """Write index.csv (UTF-8), complete or not at all; raises SemidgError if it cannot be written.

    Its columns are COLUMNS, SPACING_COLUMNS if a record has a spacing, FRAME_COLUMNS if one has any of these, and
    IGNORE_COLUMN if one has a value to ignore, SERIES_COLUMN if one is a slice of a series, and VALUES_COLUMN if one
    has rules for the values of its masks.
    """
    spaced = any(record.spacing for record in index.records)
    framed = any(r.frame is not None or r.slice_mm is not None or r.vote for r in index.records)
    ignoring = any(r.ignore is not None for r in index.records)
    serial = any(r.series for r in index.records)
    ruled = any(r.mask_values for r in index.records)
    with atomic_path(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # CRLF as in RFC 4180: a lone CR in a name is quoted then
        more = (*(SPACING_COLUMNS if spaced else ()), *(FRAME_COLUMNS if framed else ()))
        more += (*((IGNORE_COLUMN,) if ignoring else ()), *((SERIES_COLUMN,) if serial else ()))
        more += (VALUES_COLUMN,) if ruled else ()
        writer.writerow((*COLUMNS, *more))
        for r in index.records:
            masks = join_masks(r.masks)
            spacing = (r.spacing or ("", "")) if spaced else ()
            row = (r.id, r.image, masks, r.domain, r.class_name, r.group, r.width, r.height, *spacing)
            plane = (r.frame or "", r.slice_mm or "", "yes" if r.vote else "") if framed else ()
            unknown = ("" if r.ignore is None else r.ignore,) if ignoring else ()
            last = (*((r.series,) if serial else ()), *((r.mask_values,) if ruled else ()))
            writer.writerow((*row, *plane, *unknown, *last))


def read_index(path: Path, root: Path, more_roots: Sequence[Path] = (), layout: str = "auto") -> Index:
    """Read an index.csv and check that its paths stay below ``root``; the image files themselves are not opened.

    layout: as in ``data`` of the configuration. Paths start from the root of the layout, or from ``root`` itself where
    the first image lies there. With ``more_roots`` they start from the common folder, and each must lie in one of the
    roots. Raises DataError
    that names the row on a missing column, a bad number, a doubled id or a path that leaves the root.
    """
    inside: list[Path] = []
    if more_roots:
        located, inside = roots_of(Path(root), more_roots)
        layout = "several"
    else:
        try:
            located, layout = locate(Path(root), layout, guess=False)
        except DataError:
            if not Path(root).is_dir():
                raise
            located, layout = Path(root), "csv"
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
            columns = tuple(rows[0]) if rows else ()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it with `semidg index`") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); make it again with `semidg index`") from error
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        what = f"the column(s) {', '.join(missing)} are missing" if rows else "no image is listed"
        raise DataError(f"{path}: {what}; make it again with `semidg index`")
    if not more_roots and not _holds(located, rows[0]) and _holds(Path(root), rows[0]):
        located, layout = Path(root), "csv"  # the folder of a table, which holds a data set too
    records: list[Record] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        try:
            record = _record(row, located)
            _require_inside(located, record, inside)
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"{path}, image {number}: {error}; correct it or make the index again") from error
        if record.id in seen:
            raise DataError(f"{path}, image {number}: the id {printable(record.id)!r} stands twice; remove one")
        seen.add(record.id)
        records.append(record)
    return Index(located, layout, tuple(records))


def _holds(root: Path, row: dict[str, str]) -> bool:
    try:
        return (root / (row["image"] or "")).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _require_inside(root: Path, record: Record, roots: Sequence[Path]) -> None:
    """Raise DataError if a file of the record lies in none of ``roots``, if there are any."""
    for relative in (record.image, *record.masks, *filter(None, [record.series])) if roots else ():
        if not any((root / relative).is_relative_to(base) for base in roots):
            raise DataError(f"{printable(relative)}: lies in none of data.root and data.more_roots")


def _record(row: dict[str, str], root: Path) -> Record:
    if None in row or None in row.values():
        raise DataError("has another number of columns than the heading")
    masks = split_masks(row["masks"])
    series = row.get(SERIES_COLUMN, "")
    for relative in (row["image"], *masks, *filter(None, [series])):
        resolve_inside(root, relative)
    width, height = int(row["width"]), int(row["height"])
    if not row["id"] or width < 1 or height < 1:
        raise DataError(f"id {row['id']!r} of size {width} x {height}: an id and a size above 0 are needed")
    cells = [row.get(column, "") for column in SPACING_COLUMNS]
    spacing = parse_spacing(*cells) if any(cells) else None
    group = row["group"] or row["id"]
    frame, slice_mm, vote = (row.get(column, "") for column in FRAME_COLUMNS)
    return Record(
        row["id"],
        row["image"],
        masks,
        row["domain"],
        row["class"],
        group,
        width,
        height,
        spacing,
        Frame.parse(frame) if frame else None,
        parse_slice_mm(slice_mm),
        parse_vote(vote),
        parse_ignore(row.get(IGNORE_COLUMN, "")),
        series,
        parse_rules(row.get(VALUES_COLUMN, ""), row.get(IGNORE_COLUMN, "")),
    )
