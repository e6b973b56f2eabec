"""A data set on disk -> one Record an image, all files checked, near-duplicates and patients in groups."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semidg.data.duplicates import THUMBNAIL, thumbnail, twin_groups
from semidg.data.exclude import read_exclusions, refuse_unknown
from semidg.data.frames import Axis, Orientation
from semidg.data.groups import pattern_groups, unite
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
from semidg.data.paths import cpu_threads
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
    "write_index",
]


def index_data(
    data: DataConfig,
    classes: int = 2,
    *,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """The index of the data set that a configuration names, by ``build_index``; raises DataError as it does."""
    if data.root is None:
        raise ConfigError("data.root is not set; say where the data set is: --data.root FOLDER")
    return build_index(
        data.root,
        data.layout,
        data.include_normal,
        data.split.similarity,
        skip_bad,
        classes=classes,
        domains=data.domains,
        more_roots=data.more_roots,
        groups=data.groups,
        slice_axis=data.slice_axis,
        orientation=data.orientation,
        all_times=data.all_times,
        images=data.images,
        masks=data.masks,
        ignore_label=data.ignore_label,
        mask_values=data.mask_values,
        exclude=data.split.exclude,
        progress=progress,
    )


class _Checked(NamedTuple):
    """What the look at one record found: the thumbnail and the size of its image, what its style is derived from if
    that was asked for, its problems (kind, line), and whether its foreground is the edge of the image."""

    thumbnail: NDArray[np.uint8] | None
    features: NDArray[np.float64] | None
    size: tuple[int, int]
    problems: list[tuple[str, str]]
    framed: bool


def build_index(
    root: Path,
    layout: str = "auto",
    include_normal: bool = False,
    similarity: float = 0.95,
    skip_bad: bool = False,
    *,
    classes: int = 2,
    domains: str = "layout",
    more_roots: Sequence[Path] = (),
    groups: str | None = None,
    slice_axis: Axis = "auto",
    orientation: Orientation = "stored",
    all_times: bool = False,
    images: str | None = None,
    masks: str | None = None,
    ignore_label: int | None = None,
    mask_values: str | None = None,
    exclude: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Index the data set at ``root``: every file is decoded and checked, images that belong together get one group.

    layout: ``auto``, ``csv`` or a name of ``LAYOUTS``. similarity: normalised cross-correlation above which two images
    are near-duplicates. skip_bad: leave a record with a problem out and note it in ``Index.skipped``, in place of the
    error. classes: how many values a mask may hold. domains: ``layout``, or ``styles:K`` for K derived acquisition
    styles (``data/styles.py``) in place of the domains of the layout. more_roots: further data sets, each root a
    domain (``data/roots.py``). groups: regular expression with one group, which finds the patient in the path of an
    image. slice_axis, orientation, all_times, images, masks: as in ``data`` of the configuration. A group holds
    near-duplicates, images of one patient (by ``groups`` or else DICOM headers, the layout or groups.csv), planes of
    one file or series, and whatever is chained to them. ignore_label: value in masks of pixels not known.
    mask_values: what the values of mask files mean (``mask_values.py``). exclude: a table of images to leave out
    (``data/exclude.py``); groups and styles are made with them, so that those of the others stay as they are, and
    their files may be bad. progress: called with (images done, all).
    Raises DataError with one line for each problem of the data set, all at once, and for an unknown id to leave out.
    """
    excluded = frozenset(() if exclude is None else read_exclusions(exclude))
    choices = Choices(
        include_normal,
        classes,
        slice_axis,
        all_times,
        ignore_label,
        groups is None,
        orientation,
        excluded,
        images,
        masks,
        mask_values,
    )
    found = find(Path(root), layout, choices, more_roots)
    located, problems, records = found.root, found.problems, found.records
    if exclude is not None and excluded - {record.id for record in records}:
        everything = find(Path(root), layout, choices._replace(include_normal=True, all_times=True), more_roots)
        refuse_unknown(excluded, (record.id for record in everything.records), exclude)
    patients = pattern_groups(records, groups) if groups is not None else [None] * len(records)
    relations: list[tuple[Hashable | None, ...]] = []
    kept: list[Record] = []
    thumbnails = np.empty((len(records), THUMBNAIL, THUMBNAIL), np.uint8)  # one array: they are most of the memory
    features: list[NDArray[np.float64]] = []
    framed: set[str] = set()
    with ThreadPoolExecutor(cpu_threads()) as pool:
        units = pool.map(lambda unit: _check_file(located, unit, classes, domains != "layout"), by_file(records))
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
            f"{root}: no image found in the layout {found.layout!r}; docs/reference/data-formats.md shows it"
        )
    if domains != "layout":
        styles = find_styles(file_means(kept, np.stack(features)), int(domains.partition(":")[2]))
        kept = [replace(r, domain=f"style-{k + 1}") for r, k in zip(kept, styles.tolist(), strict=True)]
    twins = twin_groups(kept, thumbnails[: len(kept)], similarity).tolist()
    grouped = in_groups(kept, [twins, *zip(*relations, strict=True)])
    remaining = tuple(record for record in grouped if record.id not in excluded)
    return Index(
        located, found.layout, remaining, tuple(problems.lines()), tuple(sorted(excluded)), len(framed - excluded)
    )


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
