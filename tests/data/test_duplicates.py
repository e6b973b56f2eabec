from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.data import duplicates
from semidg.data.duplicates import near_duplicate_groups, thumbnail
from semidg.errors import DataError

from .support import texture


def _slow_groups(thumbnails: np.ndarray, threshold: float) -> list[int]:
    """The definition, pair by pair: flood fill over pairs whose Pearson correlation is above the threshold."""
    flat = [image.ravel().astype(float) for image in thumbnails]
    labels = [-1] * len(flat)
    for start in range(len(flat)):
        if labels[start] >= 0:
            continue
        labels[start] = number = max(labels) + 1
        stack = [start]
        while stack:
            a = stack.pop()
            for b in range(len(flat)):
                if labels[b] < 0 and _similar(flat[a], flat[b], threshold):
                    labels[b] = number
                    stack.append(b)
    return labels


def _similar(a: np.ndarray, b: np.ndarray, threshold: float) -> bool:
    if a.std() == 0 or b.std() == 0:
        return bool(a.std() == b.std() == 0 and a[0] == b[0])
    return float(np.corrcoef(a, b)[0, 1]) > threshold


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 25), st.sampled_from([-0.1, 0.3, 0.6, 0.9]), st.data())
def test_groups_are_those_of_the_slow_definition(seed: int, count: int, threshold: float, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    bases = rng.integers(0, 256, (4, 4, 5))
    images = bases[rng.integers(0, 4, count)] + rng.normal(0, 40, (count, 4, 5))
    if threshold > 0:  # below it a constant image would be joined to all others
        images[rng.random(count) < 0.15] = rng.integers(0, 2)
    sizes = {"_BLOCK": [3, 512], "_COLUMNS": [2, 4096], "_ROWS": [2, 64], "_PAIRS": [0, 4, 2048], "_COARSE": [1, 3, 16]}
    with pytest.MonkeyPatch.context() as patch:
        for name, choices in sizes.items():
            patch.setattr(duplicates, name, data.draw(st.sampled_from(choices)))
        assert near_duplicate_groups(images, threshold).tolist() == _slow_groups(images, threshold)


@given(st.integers(0, 10_000), st.sampled_from([1, 4, 16]))
def test_the_bound_is_not_below_the_correlation(seed: int, coarse: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (30, 20, 24), dtype=np.uint8)
    images[10:20] = images[:10] // 2 + images[10:20] // 3  # related ones
    images[20:25] = images[:5]
    images[25] = 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_COARSE", coarse)
        bounding, constant = duplicates._bounding(images)
    flat = images.reshape(30, -1).astype(float)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    assert (bounding @ bounding.T >= flat @ flat.T - 1e-6).all()
    assert np.flatnonzero(constant).tolist() == [25]


@pytest.mark.parametrize(("above", "groups"), [(4e-4, [0, 0]), (-4e-4, [0, 1])])
def test_smooth_twins_are_told_apart_close_to_the_threshold(above: float, groups: list[int]) -> None:
    """All of two waves lies in the coarse vectors: the bound is the correlation itself, and must still let it by."""
    y, x = (np.arange(64) + 0.5) * np.pi / 64, (np.arange(64) + 0.5) * np.pi / 64
    first, second = (np.outer(np.cos(i * y), np.cos(j * x)) for i, j in ((0, 2), (3, 1)))
    first, second = (wave / np.linalg.norm(wave) for wave in (first, second))
    r = 0.95 + above
    images = np.stack([first, r * first + np.sqrt(1 - r**2) * second])
    assert np.corrcoef(images.reshape(2, -1))[0, 1] == pytest.approx(r, abs=1e-9)
    assert near_duplicate_groups(images, 0.95).tolist() == groups


def test_many_equal_images_are_one_group_and_only_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.repeat(texture(1, 64, 64)[None].astype(np.uint8), 1500, 0)
    whole: list[int] = []
    normalised = duplicates._normalised
    monkeypatch.setattr(duplicates, "_normalised", lambda part: (whole.append(len(part)), normalised(part))[1])
    assert not near_duplicate_groups(images, 0.95).any()
    assert sum(whole) < 1500 + 512 + 1500 + 2 * 1500  # once for the bounds, once for the first block, and little else


def test_a_chain_of_twins_is_one_group_and_brightness_does_not_matter() -> None:
    a, b = texture(1, 64, 64).astype(float), texture(2, 64, 64).astype(float)
    chain = [a, 0.75 * a + 0.25 * b, 0.5 * a + 0.5 * b, 0.25 * a + 0.75 * b, b]
    images = np.stack([*chain, 0.3 * a + 50, texture(3, 64, 64)])
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.5
    assert near_duplicate_groups(images, 0.6).tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_constant_images_join_only_their_equals() -> None:
    images = np.stack([np.zeros((64, 64)), np.full((64, 64), 9), np.zeros((64, 64)), texture(1, 64, 64)])
    assert near_duplicate_groups(images, 0.95).tolist() == [0, 1, 0, 2]


def test_a_threshold_of_one_joins_nothing_and_no_images_make_no_groups() -> None:
    images = np.stack([texture(1, 64, 64)] * 3)
    assert near_duplicate_groups(images, 1.0).tolist() == [0, 1, 2]
    assert near_duplicate_groups(images, 0.999).tolist() == [0, 0, 0]
    assert near_duplicate_groups(np.zeros((0, 64, 64)), 0.95).tolist() == []


def test_unusable_arrays_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        near_duplicate_groups(np.full((2, 4, 4), np.nan), 0.9)
    with pytest.raises(DataError, match="height"):
        near_duplicate_groups(np.zeros((2, 16)), 0.9)


def test_the_thumbnail_of_a_slightly_cropped_image_is_a_twin() -> None:
    speckle = np.random.default_rng(0).integers(0, 120, (300, 400))
    image = (texture(5, 400, 300) // 2 + speckle).astype(np.uint8)
    small = [thumbnail(image), thumbnail(image[3:-2, 4:-3]), thumbnail(texture(6, 400, 300))]
    assert small[0].shape == (64, 64)
    assert near_duplicate_groups(np.stack(small), 0.95).tolist() == [0, 0, 1]


def test_two_thousand_images_are_grouped_as_by_brute_force() -> None:
    """All pairs in double precision against the search by blocks in single precision."""
    rng = np.random.default_rng(7)
    count = 2000
    bases = np.stack([texture(seed, 64, 64) for seed in range(500)]).astype(np.float32)
    noise = rng.normal(0, 1, (count, 64, 64)) * rng.uniform(5, 25, (count, 1, 1))
    images = np.clip(bases[rng.integers(0, 500, count)] + noise, 0, 255).astype(np.uint8)
    correlation = np.corrcoef(images.reshape(count, -1).astype(np.float64))
    near = correlation > 0.95
    assert near.sum() > 2 * count  # many twins,
    assert ((correlation > 0.9) & ~near).sum() > count  # many that just are none,
    assert np.abs(correlation - 0.95).min() > 1e-7  # and none for which single precision could decide otherwise
    slow = np.full(count, -1)
    for start in range(count):
        reached, number = np.arange(count) == start, slow.max() + 1
        while slow[start] < 0 and (grown := near[reached].any(axis=0)).sum() > reached.sum():
            reached = grown
        if slow[start] < 0:
            slow[reached] = number
    assert near_duplicate_groups(images, 0.95).tolist() == slow.tolist()
