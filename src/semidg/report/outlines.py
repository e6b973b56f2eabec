"""Masks as lines: the contour of a label map as the path of an SVG picture, sharp at every size and short in text."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator


def outline_path(labels: npt.NDArray[np.integer[Any]]) -> str:
    """The contours of all classes of a label map (H, W) as an SVG path in half pixels, x to 2 W and y to 2 H.

    Each runs half-way between the pixels of its class and the others, closed along the frame where it is cut there.
    """
    parts: list[str] = []
    for number in np.unique(labels[labels > 0]):
        inside = np.pad(labels == number, 1).astype(np.float64)
        # pixel centres of the padded map lie at k - 0.5 pixels, contours on multiples of half a pixel
        for line in contour_generator(z=inside).lines(0.5):
            points = np.rint(2 * np.asarray(line) - 1).astype(np.int64)
            parts.append(_closed(np.clip(points, 0, [2 * labels.shape[1], 2 * labels.shape[0]])))
    return "".join(parts)


def _closed(points: npt.NDArray[np.int64]) -> str:
    """One closed line as relative steps; steps in one direction are one."""
    steps = np.diff(points, axis=0)
    turn = np.any(steps[1:] != steps[:-1], axis=1)
    corners = points[:-1][np.concatenate([[True], turn])]
    moves = np.diff(corners, axis=0)
    return f"M{corners[0, 0]} {corners[0, 1]}l{' '.join(f'{x} {y}' for x, y in moves.tolist())}z"
