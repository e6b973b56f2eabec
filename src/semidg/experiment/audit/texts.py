"""Burnt-in text: captions, measurements, names that a scanner or a person wrote into the image.

Ink is bright, thin, and of one grey. Of a picture with grey values g, and o the opening of g by a square of WINDOW
pixels (the greatest of the least values: what is left of g without its thin bright parts), a pixel is ink if

    g >= LEAST_GREY and g - o >= LEAST_CONTRAST.

A connected component of ink, corners included, is a letter if it is SHORTEST to TALLEST pixels high, 2 pixels to WIDEST
times its height wide, and at least ONE_TONE of its pixels are within SPREAD of its brightest: bright lines of tissue
fade towards their edges, ink does not.

Two letters stand on one line if their lower or their upper edges are at most SLACK times the greater height apart (or
one pixel), the lower one has at least SMALLEST of the height of the taller, the gap between them is at most as wide as
the taller is high, and their brightest greys are within SPREAD of one another. Text is a chain of LEAST_LETTERS or
more. Single letters, letters that touch, dark text and numbers below one another are not found.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, grey_opening, label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from semidg.experiment.audit.issues import Box
from semidg.experiment.audit.markers import NEAR

LEAST_GREY = 170
LEAST_CONTRAST = 60
WINDOW = 9
SHORTEST, TALLEST = 7, 40
WIDEST = 1.5
SPREAD = 25
ONE_TONE = 0.6
SLACK = 0.15
SMALLEST = 0.6
LEAST_LETTERS = 2

Grey = NDArray[np.uint8]


class Line(NamedTuple):
    """A line of text. letters: how many of them were found. box: round these."""

    letters: int
    box: Box


class _Letters(NamedTuple):
    """Edges in pixels (right and bottom: the first one beyond), and the brightest grey of each letter."""

    left: NDArray[np.int64]
    top: NDArray[np.int64]
    right: NDArray[np.int64]
    bottom: NDArray[np.int64]
    tone: NDArray[np.int64]


def find_text(grey: Grey) -> tuple[Line, ...]:
    """The lines of text in an image (H, W), from top to bottom, by the rule above."""
    found = _letters(grey)
    if not len(found.tone):
        return ()
    _, line = connected_components(coo_array(_on_one_line(found)), directed=False)
    lines = []
    for number in np.flatnonzero(np.bincount(line) >= LEAST_LETTERS):
        own = line == number
        left, top = int(found.left[own].min()), int(found.top[own].min())
        box = (left, top, int(found.right[own].max()) - left, int(found.bottom[own].max()) - top)
        lines.append(Line(int(own.sum()), box))
    return tuple(sorted(lines, key=lambda each: (each.box[1], each.box[0])))


def is_near(box: Box, foreground: NDArray[np.bool_]) -> bool:
    """Whether a pixel of the mask (H, W) lies in the box or up to NEAR of the diagonal to its sides."""
    left, top, width, height = box
    reach = round(NEAR * float(np.hypot(*foreground.shape)))
    inside = foreground[max(0, top - reach) : top + height + reach, max(0, left - reach) : left + width + reach]
    return bool(inside.any())


def _letters(grey: Grey) -> _Letters:
    ink = (grey >= LEAST_GREY) & (grey - grey_opening(grey, size=(WINDOW, WINDOW)) >= LEAST_CONTRAST)
    labelled, count = label(ink, np.ones((3, 3), np.int8))
    edges = [(c.start, r.start, c.stop, r.stop) for r, c in find_objects(labelled)]
    left, top, right, bottom = np.array(edges, np.int64).reshape(-1, 4).T
    height, width = bottom - top, right - left
    fits = (height >= SHORTEST) & (height <= TALLEST) & (width >= 2) & (width <= WIDEST * height)
    of, values = labelled[ink] - 1, grey[ink].astype(np.int64)
    tone = np.zeros(count, np.int64)
    np.maximum.at(tone, of, values)
    near = np.bincount(of, values >= tone[of] - SPREAD, minlength=count)
    kept = np.flatnonzero(fits & (near >= ONE_TONE * np.bincount(of, minlength=count)))
    return _Letters(left[kept], top[kept], right[kept], bottom[kept], tone[kept])


def _on_one_line(found: _Letters) -> NDArray[np.bool_]:
    """(N, N): which two of the letters stand on one line."""
    height = found.bottom - found.top
    taller = np.maximum(height[:, None], height)
    slack = np.maximum(1, SLACK * taller)
    level = np.minimum(*(np.abs(edge[:, None] - edge) for edge in (found.top, found.bottom))) <= slack
    alike = np.minimum(height[:, None], height) >= SMALLEST * taller
    gap = np.maximum(found.left[:, None], found.left) - np.minimum(found.right[:, None], found.right)
    beside: NDArray[np.bool_] = (gap <= taller) & (np.abs(found.tone[:, None] - found.tone) <= SPREAD)
    joined: NDArray[np.bool_] = level & alike & beside
    return joined
