"""Checks on the pixels of one mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, find_objects, label

from semidg.experiment.audit.issues import Box, Issue
from semidg.types import Record

#: A component below this part of the largest one is a speck.
SPECK = 0.01
#: Files of one mask that share a smaller part of the marked pixels just touch.
OVERLAP = 0.01

Labels = NDArray[np.uint8]


def check_mask(record: Record, parts: Sequence[Labels], labels: Labels) -> Iterator[Issue]:
    """Several files and their overlap, specks, holes, the border.

    parts: the masks of the files, (H, W) class numbers. labels: the mask, their union.
    """
    file = record.masks[0]
    foreground = labels > 0
    area = int(foreground.sum())
    if len(parts) > 1:
        yield Issue(record.id, file, "several mask files", f"{len(parts)} files are united", len(parts))
        twice = np.sum([part > 0 for part in parts], axis=0) > 1
        doubled = int(twice.sum())
        if doubled > OVERLAP * area:
            text = f"{doubled} of {area} marked pixels stand in more than one of the {len(parts)} files"
            yield Issue(record.id, file, "mask files that overlap", text, doubled / area, box=bounds(twice))
    if area == 0:
        return
    sizes, boxes = components(foreground)
    specks = np.flatnonzero(sizes < SPECK * sizes.max())
    if len(specks):
        text = (
            f"{len(specks)} region(s) of {', '.join(str(sizes[k]) for k in specks[:5])}"
            f"{', ...' if len(specks) > 5 else ''} pixels beside one of {sizes.max()} (limit {SPECK:.0%} of it)"
        )
        yield Issue(record.id, file, "specks", text, len(specks), box=boxes[specks[np.argmax(sizes[specks])]])
    holes = binary_fill_holes(foreground) & ~foreground
    if count := int(holes.sum()):
        number = len(components(holes)[0])
        text = f"{number} hole(s) of {count} pixels together, {count / area:.2%} of the mask"
        yield Issue(record.id, file, "holes", text, count / area, box=bounds(holes))
    sides = {"top": foreground[0], "bottom": foreground[-1], "left": foreground[:, 0], "right": foreground[:, -1]}
    touched = {side: int(line.sum()) for side, line in sides.items() if line.any()}
    if touched:
        text = f"touches the frame: {', '.join(f'{side} {pixels} pixels' for side, pixels in touched.items())}"
        yield Issue(record.id, file, "mask at the border", text, sum(touched.values()))


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], list[Box]]:
    """(pixels, boxes) of the connected components, corners included."""
    labelled, _ = label(mask, np.ones((3, 3), np.int8))
    sizes: NDArray[np.int64] = np.bincount(labelled.ravel())[1:]
    return sizes, [_box(rows, columns) for rows, columns in find_objects(labelled)]


def bounds(mask: NDArray[np.bool_]) -> Box:
    """The smallest box round all pixels of a mask that is not empty."""
    ((rows, columns),) = find_objects(mask.astype(np.uint8))
    return _box(rows, columns)


def _box(rows: slice, columns: slice) -> Box:
    return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
