"""Strong augmentation: one draw an image, ranges kept, rectangles that move images and labels alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.augmentation.strong import (
    _blur,
    apply_cutmix,
    apply_photometric,
    sample_cutmix,
    sample_photometric,
)
from semidg.method_config import StrongConfig


def images(batch: int = 3, channels: int = 3, side: int = 24) -> torch.Tensor:
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def draw(x: torch.Tensor, seed: int = 0, strength: float = 1.0):  # type: ignore[no-untyped-def]
    return sample_photometric(x, StrongConfig(photometric=strength), torch.Generator().manual_seed(seed))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_photometric_stays_in_range_and_keeps_shape(seed: int) -> None:
    x = images()
    y = apply_photometric(x, draw(x, seed))
    assert y.shape == x.shape
    assert 0 <= y.min() <= y.max() <= 1
    assert torch.isfinite(y).all()


def test_no_strength_is_the_identity() -> None:
    x = images()
    torch.testing.assert_close(apply_photometric(x, draw(x, strength=0.0)), x, atol=2e-6, rtol=0)


def test_every_image_has_its_own_draw_and_batch_equals_per_sample() -> None:
    x = images(1).repeat(3, 1, 1, 1)
    drawn = draw(x, 5)
    together = apply_photometric(x, drawn)
    assert not torch.equal(together[0], together[1])
    for k in range(3):
        alone = apply_photometric(x[k : k + 1], type(drawn)(*(p[k : k + 1] for p in drawn)))
        torch.testing.assert_close(together[k : k + 1], alone)


def test_blur_is_a_normalised_gaussian() -> None:
    x = torch.zeros(1, 1, 21, 21)
    x[0, 0, 10, 10] = 1
    drawn = draw(x)._replace(
        contrast=torch.ones(1), brightness=torch.zeros(1), gamma=torch.ones(1), noise=torch.zeros(1),
        sigma=torch.tensor([1.2]),
    )  # fmt: skip
    y = apply_photometric(x, drawn)[0, 0]
    offsets = torch.arange(-4, 5)
    kernel = torch.exp(-0.5 * (offsets / 1.2) ** 2)
    kernel /= kernel.sum()
    torch.testing.assert_close(y[6:15, 6:15], kernel[:, None] * kernel[None], atol=1e-5, rtol=0)


def test_only_images_with_a_sigma_are_blurred_and_grey_levels_are_a_power() -> None:
    x, gamma = images(3), torch.tensor([0.7, 1.0, 1.6])
    ones, zeros = torch.ones(3), torch.zeros(3)
    drawn = draw(x)._replace(contrast=ones, brightness=zeros, gamma=gamma, noise=zeros, sigma=torch.tensor([0, 2.0, 0]))
    y = apply_photometric(x, drawn)
    expected = x.clamp(1e-6, 1) ** gamma[:, None, None, None]
    torch.testing.assert_close(y[[0, 2]], expected[[0, 2]], atol=1e-6, rtol=0)
    assert (y[1] - expected[1]).abs().max() > 0.01
    untouched = apply_photometric(x, drawn._replace(sigma=zeros))
    torch.testing.assert_close(untouched, expected, atol=1e-6, rtol=0)


def test_to_blur_the_images_with_a_sigma_is_to_blur_all() -> None:
    """The one on a CPU, the other elsewhere."""
    x, sigma = images(4), torch.tensor([0, 1.2, 0, 0.4])
    ones, zeros = torch.ones(4), torch.zeros(4)
    drawn = draw(x)._replace(contrast=ones, brightness=zeros, gamma=ones, noise=zeros, sigma=sigma)
    torch.testing.assert_close(apply_photometric(x, drawn), _blur(x, sigma), atol=2e-6, rtol=0)


@given(st.integers(2, 6), st.integers(8, 40), st.integers(8, 40), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_rectangles_lie_inside_and_have_the_stated_area(batch: int, h: int, w: int, seed: int) -> None:
    boxes = sample_cutmix(batch, h, w, 1.0, torch.Generator().manual_seed(seed))
    assert boxes.inside.shape == (batch, h, w)
    for k in range(batch):
        rows, columns = boxes.inside[k].any(1), boxes.inside[k].any(0)
        area = int(boxes.inside[k].sum())
        assert area == int(rows.sum()) * int(columns.sum())  # a full rectangle
        assert 0.02 * h * w < area <= 0.62 * h * w
        assert boxes.partner[k] != k


def test_cutmix_moves_images_and_labels_alike() -> None:
    x = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 2, 16, 16)
    labels = x[:, 0].long()
    boxes = sample_cutmix(4, 16, 16, 1.0, torch.Generator().manual_seed(3))
    mixed, mixed_labels = apply_cutmix(x, boxes), apply_cutmix(labels, boxes)
    assert torch.equal(mixed[:, 0].long(), mixed_labels)
    assert torch.equal(mixed_labels[1][boxes.inside[1]].unique(), torch.tensor([0]))
    assert torch.equal(mixed_labels[1][~boxes.inside[1]].unique(), torch.tensor([1]))


def test_probability_zero_mixes_nothing() -> None:
    x = images()
    boxes = sample_cutmix(3, 24, 24, 0.0, torch.Generator().manual_seed(3))
    assert torch.equal(apply_cutmix(x, boxes), x)


@pytest.mark.parametrize("batch", [1, 2])
def test_small_batches_work(batch: int) -> None:
    x = images(batch)
    boxes = sample_cutmix(batch, 24, 24, 1.0, torch.Generator().manual_seed(0))
    assert apply_cutmix(x, boxes).shape == x.shape
