"""Outlines: what lies inside the path is the mask, pixel by pixel."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from semidg.report.outlines import outline_path


def polygons(path: str) -> list[list[tuple[int, int]]]:
    """The corners of each closed line, from its relative steps."""
    found = []
    for start, steps in re.findall(r"M(\d+ \d+)l([-\d ]*)z", path):
        x, y = map(int, start.split())
        corners = [(x, y)]
        numbers = list(map(int, steps.split()))
        for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
            x, y = x + dx, y + dy
            corners.append((x, y))
        found.append(corners)
    return found


def inside(lines: list[list[tuple[int, int]]], x: float, y: float) -> bool:
    """Even-odd rule: how many edges does a ray to the right cross?"""
    crossings = 0
    for corners in lines:
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                crossings += 1
    return crossings % 2 == 1


@given(arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 1)))
@settings(max_examples=80)
def test_what_lies_inside_is_the_mask(mask: NDArray[np.uint8]) -> None:
    path = outline_path(mask)
    lines = polygons(path)
    assert re.fullmatch(r"(M\d+ \d+l[-\d ]*z)*", path)
    for row in range(mask.shape[0]):
        for column in range(mask.shape[1]):  # beside the centre, which no edge passes
            assert inside(lines, 2 * column + 1.01, 2 * row + 1.003) == bool(mask[row, column])
    for corners in lines:
        assert all(0 <= x <= 2 * mask.shape[1] and 0 <= y <= 2 * mask.shape[0] for x, y in corners)


def test_a_square_has_short_text_and_classes_have_lines_of_their_own() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[10:20, 10:20] = 1
    assert len(polygons(outline_path(mask))) == 1
    assert len(outline_path(mask)) < 60
    mask[12:14, 12:14] = 2
    assert len(polygons(outline_path(mask))) == 3  # class 1 has a hole where class 2 is
    assert outline_path(np.zeros((4, 4), np.uint8)) == ""
