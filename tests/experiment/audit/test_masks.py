"""Checks on masks against flood fill by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from semidg.experiment.audit.issues import Issue
from semidg.experiment.audit.masks import OVERLAP, SPECK, bounds, check_mask, components
from semidg.types import Record

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1))
LEVEL = [(0, 1), (1, 0), (0, -1), (-1, 0)]
ALL = [*LEVEL, (1, 1), (1, -1), (-1, 1), (-1, -1)]


def record(files: int = 1) -> Record:
    return Record("a/1", "a/images/1.png", tuple(f"a/masks/1_mask_{k}.png" for k in range(files)), "a", "", "", 0, 0)


def found(*parts: NDArray[np.uint8]) -> dict[str, Issue]:
    labels = np.maximum.reduce(parts)
    return {issue.kind: issue for issue in check_mask(record(len(parts)), parts, labels)}


def flood(mask: NDArray[np.bool_], steps: list[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """The connected components, by hand."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy, dx in steps} & left
            left -= near
            edge += near
        regions.append(region)
    return regions


@given(MASKS)
@settings(max_examples=80)
def test_components_and_their_boxes(mask: NDArray[np.uint8]) -> None:
    sizes, boxes = components(mask > 0)
    expected = flood(mask > 0, ALL)
    assert sorted(sizes.tolist()) == sorted(map(len, expected))
    assert sorted(boxes) == sorted(
        (min(x for _, x in r), min(y for y, _ in r), 1 + np.ptp([x for _, x in r]), 1 + np.ptp([y for y, _ in r]))
        for r in expected
    )


@given(MASKS)
@settings(max_examples=80)
def test_holes_and_border(mask: NDArray[np.uint8]) -> None:
    issues = found(mask)
    height, width = mask.shape
    closed = [r for r in flood(mask == 0, LEVEL) if not any(y in (0, height - 1) or x in (0, width - 1) for y, x in r)]
    assert ("holes" in issues) == bool(closed)
    if closed:
        assert issues["holes"].value == sum(map(len, closed)) / mask.sum()
        inside = np.zeros(mask.shape, bool)
        inside[tuple(np.array([place for region in closed for place in region]).T)] = True
        assert f"{len(flood(inside, ALL))} hole(s)" in issues["holes"].explanation
    frame = [mask[0], mask[-1], mask[:, 0], mask[:, -1]]
    assert ("mask at the border" in issues) == any(side.any() for side in frame)
    if "mask at the border" in issues:
        assert issues["mask at the border"].value == sum(int(side.sum()) for side in frame)


@given(st.lists(arrays(np.uint8, (6, 7), elements=st.integers(0, 1)), min_size=2, max_size=4))
@settings(max_examples=40)
def test_parts_that_overlap(parts: list[NDArray[np.uint8]]) -> None:
    issues = found(*parts)
    assert issues["several mask files"].value == len(parts)
    twice = sum(int(sum(part[y, x] for part in parts) > 1) for y in range(6) for x in range(7))
    assert ("mask files that overlap" in issues) == (twice > OVERLAP * np.maximum.reduce(parts).sum())
    if twice:
        assert issues["mask files that overlap"].value == twice / np.maximum.reduce(parts).sum()


def test_files_that_touch_do_not_overlap() -> None:
    one, other = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    one[:20, :20] = other[:20, 20:40] = 1  # 800 pixels
    other[:8, 19] = 1
    assert "mask files that overlap" not in found(one, other)
    other[8, 19] = 1
    assert found(one, other)["mask files that overlap"].box == (19, 0, 1, 9)


def test_a_speck_is_small_beside_the_largest_region_and_is_where_the_box_is() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[5:25, 5:25] = 1  # 400 pixels
    limit = int(SPECK * 400)
    mask[30, 30 : 30 + limit] = 1
    assert "specks" not in found(mask)
    mask[30, 30 + limit - 1] = 0
    mask[35:37, 50] = 1
    issue = found(mask)["specks"]
    assert (issue.value, issue.box) == (2, (30, 30, limit - 1, 1))
    assert "of 3, 2 pixels beside one of 400" in issue.explanation


def test_an_empty_mask_and_a_clean_one_have_no_issue() -> None:
    mask = np.zeros((9, 9), np.uint8)
    assert found(mask) == {}
    mask[3:6, 3:6] = 1
    assert found(mask) == {}
    assert bounds(mask > 0) == (3, 3, 3, 3)
