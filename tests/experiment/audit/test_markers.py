"""Callipers and ink: the rule pixel by pixel, planted markers, and pictures without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from audit_support import cross
from semidg.data.index import build_index
from semidg.data.reading import record_image, record_mask
from semidg.experiment.audit import markers
from semidg.experiment.audit.markers import find_markers

Grey = NDArray[np.uint8]
LEVEL = [(0, 1), (1, 0), (0, -1), (-1, 0)]
SLANTED = [(1, 1), (1, -1), (-1, 1), (-1, -1)]


def colours(grey: Grey) -> Grey:
    return np.repeat(grey[..., None], 3, axis=2)


def centres(grey: Grey, near: NDArray[np.bool_]) -> set[tuple[int, int]]:
    """The centres of crosses, by the rule as it is written; what lies outside of the picture is black."""

    def at(y: int, x: int) -> int:
        return int(grey[y, x]) if 0 <= y < grey.shape[0] and 0 <= x < grey.shape[1] else 0

    found = set()
    for y, x in np.argwhere(near).tolist():
        for arm, corner in markers.ARMS:
            for arms, corners in ((LEVEL, SLANTED), (SLANTED, LEVEL)):
                least = min(at(y + k * dy, x + k * dx) for dy, dx in arms for k in range(arm + 1))
                dark = sorted(max(at(y + k * dy, x + k * dx) for k in range(corner, arm + 1)) for dy, dx in corners)
                if least >= markers.LEAST_GREY and least - dark[2] >= markers.LEAST_CONTRAST:
                    found.add((y, x))
    return found


@given(st.integers(0, 10_000))
@settings(max_examples=15)
def test_crosses_are_those_of_the_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 110, (40, 50), dtype=np.uint8)
    for _ in range(3):
        y, x, arm = rng.integers(0, 40), rng.integers(0, 50), rng.integers(3, 9)
        for dy, dx in LEVEL if rng.random() < 0.5 else SLANTED:
            for k in range(arm + 1):
                if 0 <= y + k * dy < 40 and 0 <= x + k * dx < 50:
                    grey[y + k * dy, x + k * dx] = rng.integers(115, 255)
    mask = np.zeros((40, 50), bool)
    mask[8:30, 10:40] = True
    outwards, inwards = distance_transform_edt(~mask), distance_transform_edt(mask)
    near = np.where(mask, inwards, outwards) <= markers.NEAR * np.hypot(40, 50)
    expected = centres(grey, near)
    boxes = find_markers(colours(grey), grey, mask).crosses

    def inside(y: int, x: int) -> bool:
        return any(left <= x < left + width and top <= y < top + height for left, top, width, height in boxes)

    assert all(inside(y, x) for y, x in expected)
    assert bool(boxes) == bool(expected)
    assert len(boxes) <= len(expected)


def test_a_cross_counts_near_the_border_only_and_once() -> None:
    grey = np.full((100, 120), 60, np.uint8)
    mask = np.zeros((100, 120), bool)
    mask[30:60, 40:80] = True
    assert find_markers(colours(cross(grey, 30, 60)), cross(grey, 30, 60), mask).crosses == ((53, 23, 15, 15),)
    wide = grey.copy()
    wide[23:38, 59:62] = wide[29:32, 53:68] = 230
    assert len(find_markers(colours(wide), wide, mask).crosses) == 1
    far = cross(grey, 80, 20)
    assert find_markers(colours(far), far, mask) == ((), 0, None)
    assert find_markers(colours(far), far, np.zeros_like(mask)) == ((), 0, None)
    at_frame = cross(grey, 7, 60)
    mask[:] = False
    mask[0:9, 50:70] = True
    assert find_markers(colours(at_frame), at_frame, mask).crosses == ((53, 0, 15, 15),)


def test_ink_is_colour_in_a_grey_picture() -> None:
    grey = np.full((100, 120), 60, np.uint8)
    mask = np.zeros((100, 120), bool)
    mask[30:60, 40:80] = True
    marked = colours(grey)
    marked[28:33, 50:54] = (240, 220, 20)
    assert find_markers(marked, grey, mask) == ((), 20, (50, 28, 4, 5))
    marked[28:33, 50:54] = 240
    assert find_markers(marked, grey, mask).coloured == 0
    assert find_markers(np.full((100, 120, 3), (240, 220, 20), np.uint8), grey, mask).coloured == 0
    few = colours(grey)
    few[30, 50 : 50 + markers.LEAST_PIXELS - 1] = (240, 0, 0)
    assert find_markers(few, grey, mask).coloured == 0


@pytest.mark.parametrize("kind", ["+", "x"])
def test_planted_callipers_are_found_and_speckle_is_none(kind: str, tmp_path: Path) -> None:
    from semidg.data.phantom import write_phantom

    write_phantom(tmp_path / "p", images_per_scanner=3, size=256, seed=5)
    index = build_index(tmp_path / "p")
    rng = np.random.default_rng(0)
    hits = 0
    for record in index.records:
        rgb, mask = record_image(index.root, record, 3), record_mask(index.root, record) > 0
        grey = rgb[..., 0].copy()
        assert find_markers(rgb, grey, mask) == ((), 0, None), record.id
        y, x = rng.choice(np.argwhere(mask & ~binary_erosion(mask)))
        for dy, dx in LEVEL if kind == "+" else SLANTED:
            for k in range(9):
                a, b = y + k * dy, x + k * dx
                if 0 <= a < grey.shape[0] and 0 <= b < grey.shape[1]:
                    grey[a, b] = 235
        boxes = find_markers(colours(grey), grey, mask).crosses
        hits += any(left <= x < left + w and top <= y < top + h for left, top, w, h in boxes)
    assert hits >= 0.75 * len(index.records)
