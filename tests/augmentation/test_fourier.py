"""Equations 1 and 2 against a slow, centred, complex transform of one channel at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semidg.augmentation import fourier
from semidg.augmentation.fourier import (
    FourierParameters,
    amplitude_window,
    fourier_view,
    low_frequency_window,
    reference_view,
    sample_parameters,
)
from semidg.method_config import FourierConfig


def slow_view(x: np.ndarray, other: np.ndarray, lam: float, window: float, form: str = "interpolated") -> np.ndarray:
    """As METHOD.md writes it, with the zero frequency in the middle. x, other: (C, H, W)."""
    out = np.empty_like(x)
    for c in range(x.shape[0]):
        spectrum = np.fft.fftshift(np.fft.fft2(x[c]))
        amplitude, phase = np.abs(spectrum), np.angle(spectrum)
        mixed_in = np.abs(np.fft.fftshift(np.fft.fft2(other[c])))
        height, width = x[c].shape
        half, cy, cx = math.floor(window * min(height, width)), height // 2, width // 2
        new = amplitude.copy() if form == "interpolated" else (1 - lam) * amplitude
        for v in range(height):
            for u in range(width):
                if abs(v - cy) <= half and abs(u - cx) <= half:
                    kept = (1 - lam) * amplitude[v, u] if form == "interpolated" else 0.0
                    new[v, u] = kept + lam * mixed_in[v, u]
        out[c] = np.real(np.fft.ifft2(np.fft.ifftshift(new * np.exp(1j * phase))))
    return np.clip(out, 0, 1)


def pool_of(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return 0.2 + 0.6 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@given(
    st.integers(5, 17), st.integers(5, 17), st.floats(0, 1), st.floats(0, 0.45),
    st.sampled_from(["interpolated", "printed"]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_view_equals_the_slow_reference(h: int, w: int, lam: float, window: float, form: str, seed: int) -> None:
    pool = pool_of((3, 2, h, w), seed)
    config = FourierConfig.model_validate({"window": window, "lam": 1.0, "form": form})
    drawn = FourierParameters(torch.tensor([1, 0]), torch.tensor([lam, lam / 2]))
    view = fourier_view(pool, torch.tensor([0, 2]), drawn, config).double().numpy()
    for k, (row, partner, share) in enumerate([(0, 1, lam), (2, 0, lam / 2)]):
        expected = slow_view(pool[row].double().numpy(), pool[partner].double().numpy(), share, window, form)
        np.testing.assert_allclose(view[k], expected, atol=2e-6)


@given(
    shape=st.sampled_from([(3, 40, 33), (1, 17, 64), (2, 128, 128)]),
    window=st.floats(0, 0.3),
    form=st.sampled_from(["interpolated", "printed"]),
    last=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_few_frequencies_by_their_waves_are_the_transform_of_all(
    shape: tuple[int, int, int], window: float, form: str, last: bool, seed: int
) -> None:
    pool = pool_of((4, *shape), seed).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    config = FourierConfig.model_validate({"window": window, "form": form})
    rows, partner, lam = torch.tensor([0, 3, 1]), torch.tensor([2, 0, 0]), torch.tensor([0.8, 0.1, 0.0])
    half = math.floor(window * min(shape[1:]))
    expected = fourier._fast(pool, rows, partner, lam[:, None, None, None], config)
    found = fourier._by_waves(pool, rows, partner, lam[:, None, None, None], half, config)
    torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize(("size", "window", "few"), [(128, 0.02, True), (64, 0.2, False), (16, 0.5, False)])
def test_a_large_window_is_left_to_the_fast_transform(
    monkeypatch: pytest.MonkeyPatch, size: int, window: float, few: bool
) -> None:
    other = "_fast" if few else "_by_waves"
    monkeypatch.setattr(fourier, other, lambda *_: pytest.fail(other))
    drawn = FourierParameters(torch.tensor([1, 0]), torch.ones(2))
    view = fourier_view(pool_of((2, 1, size, size)), torch.arange(2), drawn, FourierConfig(window=window))
    assert view.shape == (2, 1, size, size)


def test_lam_zero_is_the_identity() -> None:
    pool = pool_of((2, 3, 31, 20))
    drawn = FourierParameters(torch.tensor([1, 0]), torch.zeros(2))
    torch.testing.assert_close(fourier_view(pool, torch.arange(2), drawn, FourierConfig(window=0.3)), pool)


def test_full_window_and_lam_one_give_exactly_the_partners_amplitude_and_keep_the_phase() -> None:
    """Spectra compared before clipping bites: mid-grey images with little contrast."""
    pool = 0.5 + 0.02 * (pool_of((2, 1, 16, 24)) - 0.5)
    config = FourierConfig(window=1.0, lam=1.0, fixed=True)
    view = fourier_view(pool, torch.tensor([0]), FourierParameters(torch.tensor([1]), torch.ones(1)), config)
    spectrum, own, other = (torch.fft.rfft2(t.double()) for t in (view[0], pool[0], pool[1]))
    torch.testing.assert_close(spectrum.abs(), other.abs(), rtol=1e-3, atol=1e-5)
    difference = torch.angle(spectrum * own.conj())  # phases wrap round
    strong = own.abs() > 1e-2
    assert strong.sum() > 50
    assert difference[strong].abs().max() < 1e-2


def test_batch_equals_per_sample() -> None:
    pool = pool_of((4, 3, 20, 20))
    config = FourierConfig(window=0.1)
    drawn = FourierParameters(torch.tensor([3, 2, 1, 0]), torch.tensor([0.1, 0.5, 0.9, 0.3]))
    together = fourier_view(pool, torch.arange(4), drawn, config)
    for k in range(4):
        alone = fourier_view(pool, torch.tensor([k]), FourierParameters(*(p[k : k + 1] for p in drawn)), config)
        torch.testing.assert_close(together[k : k + 1], alone)


@pytest.mark.parametrize(("size", "window", "half"), [((288, 288), 0.02, 5), ((96, 128), 0.02, 1), ((40, 40), 0.02, 0)])
def test_window_is_a_square_of_half_width_b(size: tuple[int, int], window: float, half: int) -> None:
    inside = low_frequency_window(*size, window)
    assert inside.sum() == (2 * half + 1) * (half + 1)  # half of the plane: columns 0 to b
    assert inside[0, 0]


def test_black_image_stays_finite() -> None:
    pool = torch.stack([torch.zeros(1, 8, 8), pool_of((1, 8, 8))])
    config = FourierConfig(window=0.2, lam=1.0)
    view = fourier_view(pool, torch.tensor([0]), FourierParameters(torch.tensor([1]), torch.ones(1)), config)
    assert torch.isfinite(view).all()
    assert view.max() > 0


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(0, 1000))
def test_partner_is_of_another_domain_where_there_is_one(domains: list[int], seed: int) -> None:
    numbers, rows = torch.tensor(domains), torch.arange(len(domains))
    drawn = sample_parameters(numbers, rows, FourierConfig(lam=0.7), torch.Generator().manual_seed(seed))
    assert ((drawn.lam >= 0) & (drawn.lam <= 0.7)).all()
    for row, partner in enumerate(drawn.partner.tolist()):
        if len(set(domains)) > 1:
            assert domains[partner] != domains[row]
        elif len(domains) > 1:
            assert partner != row


def test_fixed_share() -> None:
    drawn = sample_parameters(
        torch.zeros(4), torch.arange(4), FourierConfig(lam=0.8, fixed=True), torch.Generator().manual_seed(0)
    )
    assert drawn.lam.tolist() == pytest.approx([0.8] * 4)


def test_dtype_and_range_are_kept() -> None:
    pool = pool_of((2, 1, 16, 16)).to(torch.bfloat16)
    drawn = FourierParameters(torch.tensor([1, 0]), torch.ones(2))
    view = fourier_view(pool, torch.arange(2), drawn, FourierConfig(window=0.5))
    assert view.dtype == torch.bfloat16
    assert 0 <= view.min() <= view.max() <= 1


@given(
    shape=st.sampled_from([(1, 16, 16), (3, 12, 20), (1, 15, 9)]),
    window=st.sampled_from([0.0, 0.1, 0.3, 1.0]),
    lam=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 100),
)
def test_reference_view_equals_the_view_with_that_partner(
    shape: tuple[int, int, int], window: float, lam: float, seed: int
) -> None:
    pool = torch.rand((3, *shape), generator=torch.Generator().manual_seed(seed))
    drawn = FourierParameters(torch.tensor([2, 2]), torch.full((2,), lam))
    expected = fourier_view(pool, torch.arange(2), drawn, FourierConfig(window=window))
    amplitudes = amplitude_window(pool[2:], window)[0]
    torch.testing.assert_close(reference_view(pool[:2], amplitudes, lam, window), expected, atol=2e-5, rtol=0)
