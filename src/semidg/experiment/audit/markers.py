"""Burnt-in callipers and coloured ink near the border of a mask.

A calliper is a cross, ``+`` or ``x``, of lines some pixels wide. A pixel is the centre of a ``+`` with arms of a pixels
if, of the grey values up to a pixels away,

    A = the least on the four arms and the centre, D_1 <= ... <= D_4 = the greatest in the four corners between the
    arms, from q pixels away on along the diagonal, A >= LEAST_GREY, A - D_3 >= LEAST_CONTRAST.

One corner may be bright (D_4): the dotted line between two callipers leaves through it. For ``x`` arms and diagonals
change places. Arms of 4 and 7 pixels with q of 3 and 4 are looked for, so lines may be up to 5 and 7 pixels wide.
Speckle has bright lines, but hardly ever two that cross at right angles with dark corners between them.

Ink is coloured: max(R, G, B) - min(R, G, B) >= LEAST_CHROMA, in a picture that is grey for the most part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from semidg.experiment.audit.issues import Box

LEAST_GREY = 120
LEAST_CONTRAST = 50
LEAST_CHROMA = 60
#: Fewer coloured pixels are a stain; a picture with a larger part of them is coloured throughout.
LEAST_PIXELS, MOST_COLOURED = 10, 0.2
#: "Near": up to this part of the image's diagonal from the contour, inside or outside.
NEAR = 0.03

ARMS = ((4, 3), (7, 4))  # (length, first pixel of the corners)
_LEVEL = ((0, 1), (1, 0), (0, -1), (-1, 0))
_SLANTED = ((1, 1), (1, -1), (-1, 1), (-1, -1))


class Markers(NamedTuple):
    """crosses: boxes of them. coloured: number of coloured pixels near the contour, and ``ink`` the box round them."""

    crosses: tuple[Box, ...]
    coloured: int
    ink: Box | None


def find_markers(rgb: NDArray[np.uint8], grey: NDArray[np.uint8], foreground: NDArray[np.bool_]) -> Markers:
    """Markers near the contour of a mask (H, W) on an image, (H, W, 3) and grey (H, W); none if the mask is empty."""
    if not foreground.any():
        return Markers((), 0, None)
    near, top, left = _near(foreground)
    longest = ARMS[-1][0]
    height, width = near.shape
    # a margin, so that every arm of a centre near the contour lies inside
    wide = np.pad(grey, longest)[top : top + height + 2 * longest, left : left + width + 2 * longest].astype(np.int16)
    rows, columns = np.nonzero(near & (wide[longest:-longest, longest:-longest] >= LEAST_GREY))
    centres = [
        np.stack([rows[found] + top, columns[found] + left, np.full(int(found.sum()), arm)], axis=1)
        for arm, corner in ARMS
        for arms, corners in ((_LEVEL, _SLANTED), (_SLANTED, _LEVEL))
        for found in [is_cross(wide, rows + longest, columns + longest, arm, corner, arms, corners)]
    ]
    crosses = tuple(_merged(np.concatenate(centres), foreground.shape))
    cut = rgb[top : top + height, left : left + width].astype(np.int16)
    coloured = near & (cut.max(axis=2) - cut.min(axis=2) >= LEAST_CHROMA)
    count = int(coloured.sum())
    if count < LEAST_PIXELS or _coloured_part(rgb) > MOST_COLOURED:
        return Markers(crosses, 0, None)
    y, x = np.nonzero(coloured)
    ink = (int(x.min()) + left, int(y.min()) + top, int(np.ptp(x)) + 1, int(np.ptp(y)) + 1)
    return Markers(crosses, count, ink)


def _near(foreground: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int, int]:
    """The band round the contour in the smallest rectangle that holds it, and where that rectangle begins."""
    reach = NEAR * float(np.hypot(*foreground.shape))
    rows, columns = np.flatnonzero(foreground.any(axis=1)), np.flatnonzero(foreground.any(axis=0))
    margin = int(np.ceil(reach)) + 1
    top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
    cut = foreground[top : rows[-1] + margin + 1, left : columns[-1] + margin + 1]
    outside = np.pad(cut, 1)  # what lies outside of the image is background
    inwards = distance_transform_edt(outside)[1:-1, 1:-1]
    return np.where(cut, inwards, distance_transform_edt(~cut)) <= reach, int(top), int(left)


def is_cross(
    grey: NDArray[np.int16],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    arm: int,
    corner: int,
    arms: tuple[tuple[int, int], ...],
    corners: tuple[tuple[int, int], ...],
) -> NDArray[np.bool_]:
    """Which of the pixels are the centre of a cross, by the rule above."""
    least = grey[rows, columns]
    for distance in range(1, arm + 1):
        for down, right in arms:
            least = np.minimum(least, grey[rows + down * distance, columns + right * distance])
    possible = np.flatnonzero(least >= LEAST_GREY)
    rows, columns = rows[possible], columns[possible]
    gaps = np.stack(
        [
            np.stack([grey[rows + down * d, columns + right * d] for d in range(corner, arm + 1)]).max(axis=0)
            for down, right in corners
        ]
    )
    found = np.zeros(len(least), bool)
    found[possible] = least[possible] - np.sort(gaps, axis=0)[2] >= LEAST_CONTRAST
    return found


def _merged(centres: NDArray[np.int64], shape: tuple[int, int]) -> Iterator[Box]:
    """One box a cross: centres that are less than its arms apart are one cross, of the longest arms among them."""
    left = centres[np.argsort(-centres[:, 2], kind="stable")]
    while len(left):
        row, column, arm = left[0]
        apart = np.maximum(np.abs(left[:, 0] - row), np.abs(left[:, 1] - column))
        mine, left = left[apart <= arm], left[apart > arm]
        row, column = np.rint(mine[:, :2].mean(axis=0)).astype(int)
        x0, y0 = max(0, column - arm), max(0, row - arm)
        x1, y1 = min(shape[1], column + arm + 1), min(shape[0], row + arm + 1)
        yield int(x0), int(y0), int(x1 - x0), int(y1 - y0)


def _coloured_part(rgb: NDArray[np.uint8]) -> float:
    wide = rgb.astype(np.int16)
    return float((wide.max(axis=2) - wide.min(axis=2) >= LEAST_CHROMA).mean())
