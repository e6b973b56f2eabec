"""Fourier amplitude mixing between images (METHOD equations 1 and 2; Yao, Hu, Li, AAAI 2022).

    A_new = A (1 - M) + [(1 - lam) A + lam A'] M            Z = clip(real(F^-1(A_new exp(i P))), 0, 1)

A and P are amplitude and phase of the image, A' the amplitude of its partner, M = 1 in the centred square of
half-width b = floor(window * min(H, W)) round the zero frequency. Drawing (``sample_parameters``) is apart from
computing (``fourier_view``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from semidg.method_config import FourierConfig


class FourierParameters(NamedTuple):
    """partner: (B,) int64, row of the pool whose amplitude is mixed in. lam: (B,) share of it, in [0, 1]."""

    partner: Tensor
    lam: Tensor


def sample_parameters(
    domains: Tensor, rows: Tensor, config: FourierConfig, generator: torch.Generator
) -> FourierParameters:
    """Draw a partner and a share for each image ``rows`` of a pool.

    domains: (N,) domain number of each image of the pool. rows: (B,) the images to change. A partner comes from
    another domain of the pool where there is one, else it is any other image (the image itself if it is alone).
    """
    domains, rows = domains.cpu(), rows.cpu()
    other = domains[rows, None] != domains[None, :]
    elsewhere = torch.arange(len(domains))[None, :] != rows[:, None]
    allowed = torch.where(other.any(1, keepdim=True), other, elsewhere)
    allowed |= ~allowed.any(1, keepdim=True)
    partner = torch.multinomial(allowed.float(), 1, generator=generator).squeeze(1)
    share = torch.ones(len(rows)) if config.fixed else torch.rand(len(rows), generator=generator)
    return FourierParameters(partner, share * config.lam)


def low_frequency_window(height: int, width: int, window: float, device: torch.device | None = None) -> Tensor:
    """M on the grid of ``torch.fft.rfft2``: (H, W // 2 + 1) bool, true where both frequencies are at most b."""
    half = math.floor(window * min(height, width))
    rows = torch.fft.fftfreq(height, 1 / height, device=device).abs().round() <= half
    columns = torch.fft.rfftfreq(width, 1 / width, device=device).round() <= half
    inside: Tensor = rows[:, None] & columns[None, :]
    return inside


def fourier_view(pool: Tensor, rows: Tensor, parameters: FourierParameters, config: FourierConfig) -> Tensor:
    """Z for the images ``rows`` of a pool, with amplitudes of their partners.

    pool: (N, C, H, W) in [0, 1]. rows: (B,) int64. Returns (B, C, H, W) in [0, 1], dtype and device of the pool.
    The transform runs in float32, once forward over the pool and once back.
    """
    height, width = pool.shape[-2:]
    rows, partner = (t.to(pool.device, non_blocking=True) for t in (rows, parameters.partner))
    lam = parameters.lam.to(pool.device, torch.float32, non_blocking=True)[:, None, None, None]
    with torch.autocast(pool.device.type, enabled=False):
        spectrum = torch.fft.rfft2(pool.float())
        own, other = spectrum[rows], spectrum[partner].abs()
        amplitude = own.abs()
        inside = low_frequency_window(height, width, config.window, pool.device)
        if config.form == "interpolated":
            mixed = torch.where(inside, (1 - lam) * amplitude + lam * other, amplitude)
        else:  # equation 1 as printed: what lies outside the window is scaled too
            mixed = torch.where(inside, lam * other, (1 - lam) * amplitude)
        # exp(i P) = F / |F|; a zero frequency component has phase 0
        phase = torch.where(amplitude > 0, own / amplitude.clamp_min(torch.finfo(torch.float32).tiny), 1.0)
        view: Tensor = torch.fft.irfft2(mixed * phase, s=(height, width))
    return view.clamp(0, 1).to(pool.dtype)


def amplitude_window(images: Tensor, window: float) -> Tensor:
    """The low-frequency amplitudes of images (B, C, H, W): (B, C, R, S) float32, the rows and columns inside M.

    Rows are in the order of ``torch.fft.rfft2``, 0 to b and then -b to -1, columns run from 0 to b.
    """
    rows, columns = _window_places(images, window)
    amplitude: Tensor = torch.fft.rfft2(images.float())[..., rows, columns].abs()
    return amplitude


def reference_view(images: Tensor, amplitudes: Tensor, lam: float, window: float) -> Tensor:
    """Z of images whose partner is known by its ``amplitude_window`` alone, which says little more than its shading.

    images: (B, C, H, W) in [0, 1]. amplitudes: (C, R, S), one partner for all. Returns (B, C, H, W) in [0, 1]; equal to
    ``fourier_view`` with that partner.
    """
    rows, columns = _window_places(images, window)
    with torch.autocast(images.device.type, enabled=False):
        spectrum = torch.fft.rfft2(images.float())
        own = spectrum[..., rows, columns]
        amplitude = own.abs()
        phase = torch.where(amplitude > 0, own / amplitude.clamp_min(torch.finfo(torch.float32).tiny), 1.0)
        spectrum[..., rows, columns] = ((1 - lam) * amplitude + lam * amplitudes.to(amplitude)) * phase
        view: Tensor = torch.fft.irfft2(spectrum, s=images.shape[-2:])
    return view.clamp(0, 1).to(images.dtype)


def _window_places(images: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Indices (R, 1) and (S,) of the rows and columns of ``torch.fft.rfft2`` inside the window."""
    inside = low_frequency_window(images.shape[-2], images.shape[-1], window, images.device)
    return inside[:, 0].nonzero(), inside[0].nonzero().squeeze(1)
