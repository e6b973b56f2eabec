"""A data set on disk -> one Record an image -> index.csv, whatever its layout."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semidg.data import busi, folders
from semidg.data.duplicates import near_duplicate_groups, thumbnail
from semidg.data.exclude import read_exclusions, refuse_unknown
from semidg.data.images import read_image, read_mask
from semidg.data.paths import Problems, cpu_threads, printable, resolve_inside
from semidg.data.spacing import parse_spacing
from semidg.data.styles import find_styles, style_features
from semidg.errors import DataError
from semidg.files import atomic_path
from semidg.types import Frame, Record

#: Columns of index.csv. Several masks are joined by ";"; a ";" or "\" in a name has a "\" before it.
COLUMNS = ("id", "image", "masks", "domain", "class", "group", "width", "height")

#: Two more columns, there if the pixel spacing of an image is known; both cells are empty where it is not.
SPACING_COLUMNS = ("row_mm", "column_mm")

#: Three more, there if a record is a plane of a file or takes the vote of raters: ``z17``; mm; ``yes`` or empty.
FRAME_COLUMNS = ("frame", "slice_mm", "vote")

_VOTES = {"": False, "no": False, "yes": True}


@dataclass(frozen=True)
class Index:
    """A data set: all its images, with what is known of them.

    root: the folder that the paths of the records start from; for BUSI the folder that holds ``benign``, even where
    the folder above it was given. layout: ``busi`` or ``folders``; ``csv`` for an index.csv of another layout.
    skipped: one line for each problem passed over because of ``skip_bad``. excluded: ids left out by the user's list.
    """

    root: Path
    layout: str
    records: tuple[Record, ...]
    skipped: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class _Checked(NamedTuple):
    """What the look at one record found: the thumbnail and the size of its image, what its style is derived from if
    that was asked for, and its problems (kind, line)."""

    thumbnail: NDArray[np.uint8] | None
    features: NDArray[np.float64] | None
    size: tuple[int, int]
    problems: list[tuple[str, str]]


def build_index(
    root: Path,
    layout: str = "auto",
    include_normal: bool = False,
    similarity: float = 0.95,
    skip_bad: bool = False,
    *,
    classes: int = 2,
    domains: str = "layout",
    exclude: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Index the data set at ``root``: every file is decoded and checked, near-duplicates get one group.

    layout: ``auto``, ``busi`` or ``folders``. similarity: normalised cross-correlation above which two images are
    near-duplicates. skip_bad: leave a record with a problem out and note it in ``Index.skipped``, in place of the
    error. classes: how many values a mask may hold. domains: ``layout``, or ``styles:K`` for K derived acquisition
    styles (``data/styles.py``) in place of the domains of the layout. exclude: a table of images to leave out
    (``data/exclude.py``); groups and styles are made with them, so that those of the others stay as they are, and
    their files may be bad. progress: called with (images done, all).
    Raises DataError with one line for each problem of the data set, all at once, and for an unknown id to leave out.
    """
    excluded = frozenset(() if exclude is None else read_exclusions(exclude))
    located, found = locate(Path(root), layout)
    problems = Problems(located)
    if found == "busi":
        records = busi.find_records(located, problems, include_normal)
    else:
        records = folders.find_records(located, problems)
    if exclude is not None:
        known = records if found != "busi" else busi.find_records(located, Problems(located), include_normal=True)
        refuse_unknown(excluded, (record.id for record in known), exclude)

    kept: list[Record] = []
    thumbnails: list[NDArray[np.uint8]] = []
    features: list[NDArray[np.float64]] = []
    with ThreadPoolExecutor(cpu_threads()) as pool:
        checks = pool.map(lambda record: _check(located, record, classes, domains != "layout"), records)
        for done, (record, checked) in enumerate(zip(records, checks, strict=True), start=1):
            for kind, line in checked.problems if record.id not in excluded else ():
                problems.add(kind, line)
            if checked.thumbnail is not None and not checked.problems:
                kept.append(replace(record, width=checked.size[0], height=checked.size[1]))
                thumbnails.append(checked.thumbnail)
                if checked.features is not None:
                    features.append(checked.features)
            if progress is not None:
                progress(done, len(records))
    if problems and not (skip_bad and kept):
        raise DataError(problems.text())
    if not kept:
        raise DataError(f"{root}: no image found in the layout {found!r}; docs/reference/data-formats.md shows it")
    if domains != "layout":
        styles = find_styles(np.stack(features), int(domains.partition(":")[2]))
        kept = [replace(r, domain=f"style-{k + 1}") for r, k in zip(kept, styles.tolist(), strict=True)]
    groups = near_duplicate_groups(np.stack(thumbnails), similarity)
    first: dict[int, str] = {}
    for record, group in zip(kept, groups.tolist(), strict=True):
        first.setdefault(group, record.id)
    grouped = (replace(record, group=first[group]) for record, group in zip(kept, groups.tolist(), strict=True))
    remaining = tuple(record for record in grouped if record.id not in excluded)
    return Index(located, found, remaining, tuple(problems.lines()), tuple(sorted(excluded)))


def locate(root: Path, layout: str = "auto") -> tuple[Path, str]:
    """The folder that paths start from, and the layout of the data set; raises DataError if it is none we know."""
    if not root.is_dir():
        state = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {state}; set data.root to the root folder of the data set")
    if layout not in ("auto", "busi", "folders"):
        raise DataError(f"{layout!r}: unknown layout; set data.layout to auto, busi or folders")
    try:
        has_domains = bool(folders.domains(root))
        busi_root = busi.find_root(root)
    except OSError as error:
        raise DataError(f"{root}: cannot be listed ({error.strerror}); check its permissions") from error
    if has_domains and layout != "busi":
        return root, "folders"
    if busi_root is not None and layout != "folders":
        return busi_root, "busi"
    if (root / "images").is_dir() and layout != "busi":
        raise DataError(f"{root}: holds images/ itself; give the folder above it, where {root.name!r} is a domain")
    expected = {
        "busi": "benign/ and malignant/ with 'NAME.png' and 'NAME_mask.png'",
        "folders": "DOMAIN/images/ and DOMAIN/masks/",
    }
    wanted = " or ".join(text for name, text in expected.items() if layout in ("auto", name))
    raise DataError(f"{root}: no image found; expected {wanted}")


def write_index(index: Index, path: Path) -> None:
    """Write index.csv (UTF-8), complete or not at all; raises SemidgError if it cannot be written.

    Its columns are COLUMNS, SPACING_COLUMNS if a record has a spacing, and FRAME_COLUMNS if one has any of these.
    """
    spaced = any(record.spacing for record in index.records)
    framed = any(r.frame is not None or r.slice_mm is not None or r.vote for r in index.records)
    with atomic_path(Path(path)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # CRLF as in RFC 4180: a lone CR in a name is quoted then
        writer.writerow((*COLUMNS, *(SPACING_COLUMNS if spaced else ()), *(FRAME_COLUMNS if framed else ())))
        for r in index.records:
            masks = _join(r.masks)
            spacing = (r.spacing or ("", "")) if spaced else ()
            row = (r.id, r.image, masks, r.domain, r.class_name, r.group, r.width, r.height, *spacing)
            writer.writerow((*row, *(r.frame or "", r.slice_mm or "", "yes" if r.vote else "")) if framed else row)


def read_index(path: Path, root: Path) -> Index:
    """Read an index.csv and check that its paths stay below ``root``; the image files themselves are not opened.

    Raises DataError that names the row on a missing column, a bad number, a doubled id or a path that leaves the root.
    """
    try:
        located, layout = locate(Path(root))
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
    records: list[Record] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        try:
            record = _record(row, located)
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"{path}, image {number}: {error}; correct it or make the index again") from error
        if record.id in seen:
            raise DataError(f"{path}, image {number}: the id {printable(record.id)!r} stands twice; remove one")
        seen.add(record.id)
        records.append(record)
    return Index(located, layout, tuple(records))


def _record(row: dict[str, str], root: Path) -> Record:
    if None in row or None in row.values():
        raise DataError("has another number of columns than the heading")
    masks = _separate(row["masks"])
    for relative in (row["image"], *masks):
        resolve_inside(root, relative)
    width, height = int(row["width"]), int(row["height"])
    if not row["id"] or width < 1 or height < 1:
        raise DataError(f"id {row['id']!r} of size {width} x {height}: an id and a size above 0 are needed")
    cells = [row.get(column, "") for column in SPACING_COLUMNS]
    spacing = parse_spacing(*cells) if any(cells) else None
    group = row["group"] or row["id"]
    frame, slice_mm, vote = (row.get(column, "") for column in FRAME_COLUMNS)
    if vote not in _VOTES:
        raise DataError(f"vote {printable(vote)!r}: yes, or nothing, is needed")
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
        parse_spacing(slice_mm, slice_mm)[0] if slice_mm else None,
        _VOTES[vote],
    )


def _check(root: Path, record: Record, classes: int, styled: bool) -> _Checked:
    """Decode the image and each mask of a record and compare their sizes."""
    problems: list[tuple[str, str]] = []
    small, features, size = None, None, (0, 0)
    try:
        grey = read_image(root / record.image, channels=1)[..., 0]
        small, size = thumbnail(grey), (grey.shape[1], grey.shape[0])
        features = style_features(grey) if styled else None
    except DataError as error:
        problems.append(("file that cannot be used", str(error)))
    for mask in record.masks:
        try:
            pixels = read_mask([root / mask], classes)
        except DataError as error:
            problems.append(("file that cannot be used", str(error)))
            continue
        if small is not None and pixels.shape != (size[1], size[0]):
            line = f"{record.image} is {size[0]} x {size[1]}, {mask} is {pixels.shape[1]} x {pixels.shape[0]}"
            problems.append(("size of image and mask differ", line))
    if classes > 2 and len(record.masks) > 1 and not problems:
        try:
            read_mask([root / mask for mask in record.masks], classes)
        except DataError as error:
            problems.append(("file that cannot be used", str(error)))
    return _Checked(small, features, size, problems)


def _join(masks: Sequence[str]) -> str:
    return ";".join(mask.replace("\\", "\\\\").replace(";", "\\;") for mask in masks)


def _separate(joined: str) -> tuple[str, ...]:
    if not joined:
        return ()
    parts = re.findall(r"((?:[^\\;]|\\.)*)(?:;|$)", joined, re.DOTALL)
    return tuple(re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts if part)
