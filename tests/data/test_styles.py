"""Derived acquisition styles: features against plain formulas, clusters of images made by unlike devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from semidg.data.index import build_index
from semidg.data.styles import BLOCKS, file_means, find_styles, style_features
from semidg.errors import ConfigError, DataError

from .support import make_folders, save, save_nifti, square, texture


def test_the_blocks_are_as_long_as_the_features() -> None:
    assert style_features(texture(0)).shape == (sum(BLOCKS.values()),)


@given(st.integers(0, 5), st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=30, deadline=None)
def test_features_are_those_of_the_plain_formulas(seed: int, width: int, height: int) -> None:
    grey = texture(seed, width, height)
    found = style_features(grey)
    small = np.asarray(Image.fromarray(grey).resize((64, 64), Image.Resampling.BILINEAR)) / 255
    amplitudes = []
    for row in (0, 1, 2, 3, -3, -2, -1):
        for column in range(4):
            if column == 0 and row <= 0:
                continue
            wave = np.exp(-2j * np.pi * (row * np.arange(64)[:, None] + column * np.arange(64)[None, :]) / 64)
            amplitudes.append(np.log(1 + abs((small * wave).sum())))
    np.testing.assert_allclose(found[:24], amplitudes, atol=1e-6)
    x = grey.astype(float) / 255
    expected = [x.mean(), x.std(), *(np.quantile(x, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)), np.mean(grey <= 2)]
    np.testing.assert_allclose(found[24:32], expected, atol=1e-9)
    np.testing.assert_allclose(found[33:], [np.log2(width * height), np.log2(width) - np.log2(height)], atol=1e-9)
    assert np.isfinite(found).all()


def two_devices(count: int = 12) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Dark wide images and bright square ones, mixed."""
    bright = np.arange(2 * count) % 3 == 0
    images = [
        texture(k, 40, 40) // 2 + 120 if is_bright else texture(k, 60, 30) // 3 for k, is_bright in enumerate(bright)
    ]
    return np.stack([style_features(image) for image in images]), bright


def test_unlike_devices_are_told_apart_and_the_largest_style_comes_first() -> None:
    features, bright = two_devices()
    found = find_styles(features, 2)
    np.testing.assert_array_equal(found, bright.astype(int))  # a third is bright: the smaller style
    np.testing.assert_array_equal(found, find_styles(features, 2))
    order = np.random.default_rng(0).permutation(len(features))
    np.testing.assert_array_equal(find_styles(features[order], 2), found[order])


def test_too_few_images_are_refused_with_what_is_possible() -> None:
    features, _ = two_devices(3)
    with pytest.raises(DataError, match=r"styles:4: 6 images do not make 4 styles; 2 to 3 are possible"):
        find_styles(features, 4)
    with pytest.raises(DataError, match="styles:2"):
        find_styles(np.repeat(features[:1], 20, axis=0), 2)


def test_an_index_has_the_styles_as_domains_and_keeps_classes_and_groups(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "data", images=5)
    for i in range(5):
        save(root / "a" / "images" / f"x{i}.png", texture(i, 60, 30) // 3)
        save(root / "a" / "masks" / f"x{i}.png", square(60, 30))
    plain, styled = build_index(root), build_index(root, domains="styles:2")
    assert {r.domain for r in styled.records} == {"style-1", "style-2"}
    assert {r.id for r in styled.records if r.domain == "style-2"} == {
        f"a/{r.id.split('/', 1)[1]}" for r in plain.records if "/x" in r.id
    }
    assert [(r.id, r.class_name, r.group, r.masks) for r in styled.records] == [
        (r.id, r.class_name, r.group, r.masks) for r in plain.records
    ]
    assert styled == build_index(root, domains="styles:2")


@pytest.mark.parametrize("value", ["styles", "styles:1", "styles:0", "styles:x", "style:3", "styles:100"])
def test_other_domains_are_refused(value: str) -> None:
    from semidg.config_file import parse_config

    with pytest.raises(ConfigError, match=r"data\.domains"):
        parse_config({"data": {"domains": value}}, "test")


def test_a_file_with_planes_has_one_style(tmp_path: Path) -> None:
    for number in range(6):
        slices = [texture(10 * number + n) // (1 + 3 * (number % 2)) for n in range(3)]
        save_nifti(tmp_path / "a" / "images" / f"{number}.nii", np.stack(slices, -1).transpose(1, 0, 2), (1, 1, 3))
    save_nifti(tmp_path / "a" / "images" / "wide.nii", np.stack([texture(99, 60, 20).T] * 2, -1), (1, 1, 3))
    records = build_index(tmp_path, domains="styles:2").records
    assert len({r.domain for r in records}) == 2
    assert all(len({r.domain for r in records if r.image == image}) == 1 for image in {r.image for r in records})
    features = np.random.default_rng(0).normal(size=(len(records), 35))
    means = file_means(records, features)
    for number, record in enumerate(records):
        same = [k for k, other in enumerate(records) if other.image == record.image]
        assert np.allclose(means[number], features[same].mean(0))
