"""Fourier amplitude mixing between images (METHOD equations 1 and 2; Yao, Hu, Li, AAAI 2022).

    A_new = A (1 - M) + [(1 - lam) A + lam A'] M            Z = clip(real(F^-1(A_new exp(i P))), 0, 1)

A and P are amplitude and phase of the image, A' the amplitude of its partner, M = 1 in the centred square of
half-width b = floor(window * min(H, W)) round the zero frequency. Drawing (``sample_parameters``) is apart from
computing (``fourier_view``).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semidg import ranks
from semidg.method_config import FourierConfig

Table = npt.NDArray[np.float32 | np.complex64]

#: Half-width of the window up to which a product with its waves is quicker than a transform of all frequencies.
_FEW = 8


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
    The transform runs in float32: of few frequencies as a product with their waves, else as a fast one of all.
    """
    height, width = pool.shape[-2:]
    rows, partner = (ranks.send(t, pool.device) for t in (rows, parameters.partner))
    lam = ranks.send(parameters.lam, pool.device, torch.float32)[:, None, None, None]
    half = math.floor(config.window * min(height, width))
    with torch.autocast(pool.device.type, enabled=False):
        few = half <= _FEW and 2 * half < min(height, width)  # above it a frequency and its negative are one
        few &= pool.device.type != "mps"  # products of complex matrices are not in every version of it
        view = _by_waves(pool, rows, partner, lam, half, config) if few else _fast(pool, rows, partner, lam, config)
    return view.clamp_(0, 1).to(pool.dtype)


def _fast(pool: Tensor, rows: Tensor, partner: Tensor, lam: Tensor, config: FourierConfig) -> Tensor:
    """Z before clipping, (B, C, H, W) float32, by one real transform of the pool and one back."""
    spectrum = torch.fft.rfft2(pool.float())
    own, other = spectrum[rows], spectrum[partner].abs()
    amplitude = own.abs()
    inside = low_frequency_window(pool.shape[-2], pool.shape[-1], config.window, pool.device)
    if config.form == "interpolated":
        mixed = torch.where(inside, (1 - lam) * amplitude + lam * other, amplitude)
    else:  # equation 1 as printed: what lies outside the window is scaled too
        mixed = torch.where(inside, lam * other, (1 - lam) * amplitude)
    view: Tensor = torch.fft.irfft2(mixed * _phase(own, amplitude), s=pool.shape[-2:])
    return view


def _by_waves(pool: Tensor, rows: Tensor, partner: Tensor, lam: Tensor, half: int, config: FourierConfig) -> Tensor:
    """The same for the window alone: Z = s X + F^-1[ M (A_new - s A) exp(i P) ], s = 1, or 1 - lam as printed.

    The rows of frequencies 0 to b and the columns -b to b are half of the window; the other half is its conjugate.
    """
    height, width = pool.shape[-2:]
    tables = (torch.from_numpy(table) for table in _waves(height, width, half))
    down, across, counted = (ranks.send(table, pool.device) for table in tables)
    images = pool.float().movedim(1, -1)  # (N, H, W, C): no copy where images are channels_last
    of_rows = (down @ images.flatten(2)).reshape(len(images), -1, *images.shape[2:])
    spectrum = across @ torch.complex(*of_rows.chunk(2, 1))
    own, other = spectrum[rows], spectrum[partner].abs()  # (B, b + 1, 2 b + 1, C)
    amplitude = own.abs()
    if config.form == "interpolated":
        kept, change = images.index_select(0, rows), lam * (other - amplitude)
    else:
        kept, change = images.index_select(0, rows) * (1 - lam), lam * other - (1 - lam) * amplitude
    waves = across.mH @ (change * counted * _phase(own, amplitude))
    packed = torch.cat([waves.real, waves.imag], 1).flatten(2)
    added = kept.flatten(2).baddbmm_(down.T.expand(len(packed), -1, -1), packed)
    return added.reshape(kept.shape).movedim(-1, 1)


@functools.lru_cache(maxsize=16)
def _waves(height: int, width: int, half: int) -> tuple[Table, Table, Table]:
    """Cosines above negative sines of the row frequencies 0 to b, (2 (b + 1), H), the waves exp(-i ...) of the column
    frequencies -b to b, (2 b + 1, W) complex, and the share of each row frequency in the sum, (b + 1, 1, 1)."""
    turns = np.outer(np.arange(half + 1), np.arange(height)) * (2 * np.pi / height)
    down = np.concatenate([np.cos(turns), -np.sin(turns)])
    across = np.exp(-2j * np.pi / width * np.outer(np.arange(-half, half + 1), np.arange(width)))
    counted = np.full((half + 1, 1, 1), 2 / (height * width))
    counted[0] /= 2  # the row of frequency 0 holds both halves of it
    return down.astype(np.float32), across.astype(np.complex64), counted.astype(np.float32)


def _phase(spectrum: Tensor, amplitude: Tensor) -> Tensor:
    """exp(i P) = F / |F|; a frequency component of zero has phase 0."""
    return torch.where(amplitude > 0, spectrum / amplitude.clamp_min(torch.finfo(torch.float32).tiny), 1.0)


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
        mixed = (1 - lam) * amplitude + lam * amplitudes.to(amplitude)
        spectrum[..., rows, columns] = mixed * _phase(own, amplitude)
        view: Tensor = torch.fft.irfft2(spectrum, s=images.shape[-2:])
    return view.clamp(0, 1).to(images.dtype)


def _window_places(images: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Indices (R, 1) and (S,) of the rows and columns of ``torch.fft.rfft2`` inside the window."""
    inside = low_frequency_window(images.shape[-2], images.shape[-1], window, images.device)
    return inside[:, 0].nonzero(), inside[0].nonzero().squeeze(1)
