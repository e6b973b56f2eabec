"""Weak augmentation moves image and mask alike and never invents a class."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.augmentation.spatial import SpatialParameters, apply, plain, sample_parameters
from semidg.config import SpatialConfig
from semidg.types import IGNORE_INDEX

STILL = SpatialParameters(False, 0.0, (0.0, 0.0), 1.0, 1.0, 0.0)


def disc(side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    mask = (((y - 20) ** 2 + (x - 40) ** 2) < 100).to(torch.uint8)
    return (mask * 200 + 20).to(torch.uint8)[None].repeat(3, 1, 1), mask


def test_still_parameters_change_nothing() -> None:
    image, mask = disc()
    x, y = apply(image, mask, STILL)
    expected_x, expected_y = plain(image, mask)
    torch.testing.assert_close(x, expected_x)
    assert torch.equal(y, expected_y)


def test_flip_is_exact() -> None:
    image, mask = disc()
    x, y = apply(image, mask, STILL._replace(flip=True))
    torch.testing.assert_close(x, image.flip(-1).float() / 255)
    assert torch.equal(y, mask.flip(-1).long())


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_mask_follows_the_image_and_holds_known_classes_only(seed: int) -> None:
    image, mask = disc()
    config = SpatialConfig(brightness=0.0, contrast=0.0)
    x, y = apply(image, mask, sample_parameters(config, torch.Generator().manual_seed(seed)))
    assert set(y.unique().tolist()) <= {0, 1, IGNORE_INDEX}
    assert x.shape == (3, 64, 64)
    assert 0 <= x.min() <= x.max() <= 1
    bright = x[0] > 0.5
    valid = y != IGNORE_INDEX
    assert ((bright != (y == 1)) & valid).float().mean() < 0.01  # a thin rim may differ by interpolation


def test_draws_repeat_with_the_seed_and_stay_in_their_ranges() -> None:
    config = SpatialConfig()
    draws = [sample_parameters(config, torch.Generator().manual_seed(k)) for k in range(300)]
    assert draws[7] == sample_parameters(config, torch.Generator().manual_seed(7))
    assert 0.8 <= min(d.scale for d in draws) < 0.85
    assert 1.2 < max(d.scale for d in draws) <= 1.25
    assert 13 < max(abs(d.angle) for d in draws) <= 15
    assert 100 < sum(d.flip for d in draws) < 200
