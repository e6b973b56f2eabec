"""A data set on disk -> one Record an image, all files checked, near-duplicates and patients in groups."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semidg.config_file import parse_config
from semidg.data.duplicates import THUMBNAIL, thumbnail, twin_groups
from semidg.data.exclude import read_exclusions, refuse_unknown
from semidg.data.groups import pattern_groups, unite
from semidg.data.images import is_image_name
from semidg.data.index_file import (
    COLUMNS,
    FRAME_COLUMNS,
    IGNORE_COLUMN,
    SPACING_COLUMNS,
    Index,
    read_index,
    write_index,
)
from semidg.data.layouts import Choices, locate
from semidg.data.masks import marks_frame
from semidg.data.paths import cpu_threads, natural_key
from semidg.data.reading import by_file, hold, record_image, record_mask
from semidg.data.roots import find
from semidg.data.styles import file_means, find_styles, style_features
from semidg.data_config import DataConfig
from semidg.errors import ConfigError, DataError
from semidg.types import Record

__all__ = [
    "COLUMNS",
    "FRAME_COLUMNS",
    "IGNORE_COLUMN",
    "SPACING_COLUMNS",
    "Index",
    "build_index",
    "index_data",
    "locate",
    "read_index",
    "unused_images",
    "write_index",
]


class _Checked(NamedTuple):
    """What the look at one record found: the thumbnail and the size of its image, what its style is derived from if
    that was asked for, its problems (kind, line), and whether its foreground is the edge of the image."""

    thumbnail: NDArray[np.uint8] | None
    features: NDArray[np.float64] | None
    size: tuple[int, int]
    problems: list[tuple[str, str]]
    framed: bool


def index_data(
    data: DataConfig,
    classes: int = 2,
    *,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """The index of the data set that a configuration names: every file is decoded and checked, images that belong
    together get one group.

    classes: how many values a mask may hold. skip_bad: leave a record with a problem out and note it in
    ``Index.skipped``, in place of the error. progress: called with (images done, all). A group holds near-duplicates,
    images of one patient (by ``data.groups`` or else DICOM headers, the layout or groups.csv), planes of one file or
    series, and whatever is chained to them. Groups and styles are made with the images of ``data.split.exclude``, so
    that those of the others stay as they are; these files may be bad.
    Raises DataError with one line for each problem of the data set, all at once, and for an unknown id to leave out.
    """
    if data.root is None:
        raise ConfigError("data.root is not set; say where the data set is: --data.root FOLDER")
    excluded = frozenset(() if data.split.exclude is None else read_exclusions(data.split.exclude))
    choices = Choices.of(data, classes)._replace(excluded=excluded)
    found = find(data.root, data.layout, choices, data.more_roots)
    located, problems, records = found.root, found.problems, found.records
    if data.split.exclude is not None and excluded - {record.id for record in records}:
        everything = find(
            data.root, data.layout, choices._replace(include_normal=True, all_times=True), data.more_roots
        )
        refuse_unknown(excluded, (record.id for record in everything.records), data.split.exclude)
    patients = pattern_groups(records, data.groups) if data.groups is not None else [None] * len(records)
    relations: list[tuple[Hashable | None, ...]] = []
    kept: list[Record] = []
    thumbnails = np.empty((len(records), THUMBNAIL, THUMBNAIL), np.uint8)  # one array: they are most of the memory
    features: list[NDArray[np.float64]] = []
    framed: set[str] = set()
    with ThreadPoolExecutor(cpu_threads()) as pool:
        units = pool.map(lambda unit: _check_file(located, unit, classes, data.domains != "layout"), by_file(records))
        checks = chain.from_iterable(units)
        together = zip(records, checks, patients, found.named, strict=True)
        for done, (record, checked, patient, named) in enumerate(together, start=1):
            for kind, line in checked.problems if record.id not in excluded else ():
                problems.add(kind, line)
            if checked.thumbnail is not None and not checked.problems:
                thumbnails[len(kept)] = checked.thumbnail
                kept.append(replace(record, width=checked.size[0], height=checked.size[1]))
                relations.append((record.group or None, patient, named))
                if checked.framed:
                    framed.add(record.id)
                if checked.features is not None:
                    features.append(checked.features)
            if progress is not None:
                progress(done, len(records))
    if problems and not (skip_bad and kept):
        raise DataError(problems.text())
    if not kept:
        raise DataError(
            f"{data.root}: no image found in the layout {found.layout!r}; docs/reference/data-formats.md shows it"
        )
    if data.domains != "layout":
        styles = find_styles(file_means(kept, np.stack(features)), int(data.domains.partition(":")[2]))
        kept = [replace(r, domain=f"style-{k + 1}") for r, k in zip(kept, styles.tolist(), strict=True)]
    twins = twin_groups(kept, thumbnails[: len(kept)], data.split.similarity).tolist()
    grouped = in_groups(kept, [twins, *zip(*relations, strict=True)])
    remaining = tuple(record for record in grouped if record.id not in excluded)
    return Index(
        located, found.layout, remaining, tuple(problems.lines()), tuple(sorted(excluded)), len(framed - excluded)
    )


def build_index(
    root: Path | str,
    layout: str = "auto",
    *,
    classes: int = 2,
    similarity: float = 0.95,
    exclude: Path | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **data: Any,
) -> Index:
    """``index_data`` of the data set at ``root``; data: further keys of ``data`` of the configuration. Raises
    ConfigError for one that does not fit, as well."""
    split = {"similarity": similarity, "exclude": exclude}
    values = {"data": {**data, "root": Path(root), "split": split}, "network": {"classes": classes}}
    config = parse_config(values, "build_index").data.model_copy(update={"layout": layout})
    return index_data(config, classes, skip_bad=skip_bad, progress=progress)


def unused_images(index: Index, roots: Sequence[Path]) -> list[str]:
    """The image files below ``roots``, tables or folders, that are neither image nor mask of a record: a class that was
    not asked for, or names that no pattern fits. Hidden files and folders are passed over."""
    top = index.root.resolve()
    used = {top / name for record in index.records for name in (record.image, *record.masks)}
    found = []
    for root in roots:
        base = root.resolve() if root.is_dir() else root.parent.resolve()
        for place, inner, files in os.walk(base):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            paths = (Path(place) / name for name in sorted(files, key=natural_key) if is_image_name(name))
            found += [path.relative_to(base).as_posix() for path in paths if path not in used]
    return found


def in_groups(records: Sequence[Record], relations: Sequence[Sequence[Hashable | None]]) -> list[Record]:
    """The records with their group, named after its first member: the components of all relations (``unite``)."""
    numbers = unite(len(records), relations).tolist()
    first: dict[int, str] = {}
    for record, number in zip(records, numbers, strict=True):
        first.setdefault(number, record.id)
    return [replace(record, group=first[number]) for record, number in zip(records, numbers, strict=True)]


def _check_file(root: Path, records: Sequence[Record], classes: int, styled: bool) -> list[_Checked]:
    """Check the records of one file, which is decoded once."""
    held = hold(root, records[0], classes)
    checked = [_check(root, record, classes, styled) for record in records]
    del held
    return checked


def _check(root: Path, record: Record, classes: int, styled: bool) -> _Checked:
    """Decode the image and each mask of a record and compare their sizes."""
    problems: list[tuple[str, str]] = []
    small, features, size, framed = None, None, (0, 0), False
    try:
        grey = record_image(root, record, channels=1)[..., 0]
        small, size = thumbnail(grey), (grey.shape[1], grey.shape[0])
        features = style_features(grey) if styled else None
    except DataError as error:
        problems.append(("file that cannot be used", str(error)))
    for mask in record.masks:
        try:
            pixels = record_mask(root, replace(record, masks=(mask,), vote=False), classes)
        except DataError as error:
            problems.append(("file that cannot be used", str(error)))
            continue
        if small is not None and pixels.shape != (size[1], size[0]):
            line = f"{record.image} is {size[0]} x {size[1]}, {mask} is {pixels.shape[1]} x {pixels.shape[0]}"
            problems.append(("size of image and mask differ", line))
        framed = framed or marks_frame(pixels)
    if classes > 2 and len(record.masks) > 1 and not record.vote and not problems:
        try:
            record_mask(root, record, classes)
        except DataError as error:
            problems.append(("file that cannot be used", str(error)))
    return _Checked(small, features, size, problems, framed)
