"""The four scanners of the phantom, and the physics that turns tissue into a B-mode image.

Linear, shift-variant imaging of random scatterers, as in Field (Jensen, Med. Biol. Eng. Comput. 34, 1996) but directly
at baseband: sub-resolution scatterers make the received signal a circular complex Gaussian process (Wagner et al., IEEE
Trans. Sonics Ultrason. 30, 1983), so complex white noise filtered by the demodulated point spread function has the
statistics of demodulated echoes, at the sampling rate of the image and not of the carrier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[Any]

SOUND_MM_PER_US = 1.54  # mean speed of sound in soft tissue
FWHM_TO_SIGMA = 1 / 2.3548  # of a Gaussian
OVERSAMPLING = 2  # axial samples a pixel
MARGIN_MM = 3.0  # simulated round the picture and cut off, so that the periodic convolution does not wrap into it


@dataclass(frozen=True, slots=True)
class Scanner:
    """Acquisition parameters of one scanner with one preset."""

    width_mm: float
    """Lateral field of view."""
    depth_mm: float
    """Axial field of view."""
    frequency_mhz: float
    """Centre frequency of the pulse: attenuation grows with it, pulse length falls."""
    bandwidth: float
    """-6 dB bandwidth as a part of the centre frequency."""
    beam_mm: float
    """-6 dB two-way beam width at the focus."""
    focus_mm: float
    """Depth of the focus."""
    focal_zone_mm: float
    """Distance from the focus at which the beam is sqrt(2) times wider."""
    looks: int
    """Angles of spatial compounding; 1: none, fully developed speckle."""
    noise_db: float
    """Electronic noise, relative to the echo of glandular tissue at the skin."""
    assumed_attenuation: float
    """dB/cm/MHz, one way, that the automatic part of the time gain compensation undoes."""
    tgc_db: tuple[float, ...]
    """Gain sliders from the skin to the bottom, equally spaced."""
    gain_db: float
    """Overall gain: level of unattenuated glandular tissue, relative to white."""
    dynamic_range_db: float
    """Range of the log compression, from black to white."""
    gamma: float
    """Exponent of the grey map."""
    black: float
    """Grey level in [0, 1] of no echo."""
    filtering: float
    """Strength of the speckle filter, 0 (off) to 1."""


#: Name -> scanner, in the order of the folders; the last lies outside the range of the others.
SCANNERS: Mapping[str, Scanner] = MappingProxyType(
    {
        # high-frequency small-parts probe, compounded, contrasty picture
        "aster": Scanner(
            width_mm=38, depth_mm=36, frequency_mhz=10, bandwidth=0.65, beam_mm=0.6, focus_mm=15, focal_zone_mm=14,
            looks=2, noise_db=-62, assumed_attenuation=0.6, tgc_db=(-2, 1, 2, 0, -3), gain_db=-25.5,
            dynamic_range_db=56, gamma=1.0, black=0.0, filtering=0.2,
        ),
        # mid-frequency probe, wide dynamic range, gain rising with depth
        "borea": Scanner(
            width_mm=42, depth_mm=40, frequency_mhz=8, bandwidth=0.6, beam_mm=0.8, focus_mm=20, focal_zone_mm=14,
            looks=1, noise_db=-60, assumed_attenuation=0.62, tgc_db=(-6, -4, 0, 4, 6), gain_db=-22.5,
            dynamic_range_db=62, gamma=0.95, black=0.02, filtering=0.0,
        ),
        # zoomed in, high gain in the near field, smoothed picture
        "cirrus": Scanner(
            width_mm=35, depth_mm=34, frequency_mhz=12, bandwidth=0.7, beam_mm=0.55, focus_mm=12, focal_zone_mm=10,
            looks=2, noise_db=-64, assumed_attenuation=0.58, tgc_db=(4, 3, 0, -4, -6), gain_db=-22,
            dynamic_range_db=62, gamma=1.15, black=0.0, filtering=0.5,
        ),
        # older low-frequency probe: coarse speckle, deep view, noise, near-field dark, grey and flat picture
        "delta": Scanner(
            width_mm=48, depth_mm=46, frequency_mhz=5.5, bandwidth=0.5, beam_mm=1.2, focus_mm=26, focal_zone_mm=14,
            looks=1, noise_db=-48, assumed_attenuation=0.62, tgc_db=(-10, -5, 0, 5, 7), gain_db=-24,
            dynamic_range_db=79, gamma=0.78, black=0.08, filtering=0.0,
        ),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grid:
    """Sampling of one picture of ``size`` x ``height`` square pixels of ``pixel_mm``, with margins in pixels.

    Tissue has one value a pixel, (Nz, Nx); echoes are sampled OVERSAMPLING times finer in depth.
    """

    size: int
    height: int
    pixel_mm: float
    margin: int

    @property
    def x(self) -> Array:
        """Lateral positions of the simulated beams in mm, (1, Nx) float32, 0 in the middle of the picture."""
        index = np.arange(fft.next_fast_len(self.size + 2 * self.margin)) - self.margin + 0.5
        return ((index - self.size / 2) * self.pixel_mm).astype(np.float32)[None, :]

    @property
    def z(self) -> Array:
        """Depths of the rows in mm, (Nz, 1) float32; those below the picture keep its bottom clean."""
        index = np.arange(fft.next_fast_len(self.height + self.margin)) + 0.5
        return (index * self.pixel_mm).astype(np.float32)[:, None]

    @property
    def sample_mm(self) -> float:
        """Axial distance of two samples of the echo."""
        return self.pixel_mm / OVERSAMPLING

    @property
    def samples(self) -> Array:
        """Depths of the samples of the echo in mm, (OVERSAMPLING * Nz, 1) float32."""
        return ((np.arange(OVERSAMPLING * len(self.z)) + 0.5) * self.sample_mm).astype(np.float32)[:, None]

    def pixels(self, field: Array) -> Array:
        """Mean of the samples of each pixel: (OVERSAMPLING * Nz, Nx) -> (height, size)."""
        rows = field[: self.height * OVERSAMPLING, self.margin : self.margin + self.size]
        return np.asarray(rows.reshape(self.height, OVERSAMPLING, self.size).mean(axis=1))


def make_grid(scanner: Scanner, size: int) -> Grid:
    """The grid of a picture ``size`` pixels wide; its height follows from the scanner's field of view."""
    pixel = scanner.width_mm / size
    return Grid(size, round(scanner.depth_mm / pixel), pixel, int(np.ceil(MARGIN_MM / pixel)))


@dataclass(frozen=True, slots=True)
class Tissue:
    """What is insonified, on a Grid; decibels are relative to glandular tissue.

    echo_db: (Nz, Nx) mean backscattered power. attenuation: (Nz, Nx), dB/cm/MHz one way. contact_db: (1, Nx), loss at
    the skin, two ways. interfaces: (depth in mm, amplitude), (Nx,) each: smooth boundaries that reflect coherently.
    """

    echo_db: Array
    attenuation: Array
    contact_db: Array
    interfaces: tuple[tuple[Array, Array], ...] = ()


def envelope(scanner: Scanner, grid: Grid, tissue: Tissue, rng: np.random.Generator) -> Array:
    """Detected echo amplitude before gain and compression, (OVERSAMPLING * Nz, Nx) float32.

    Glandular tissue at the skin has power 1. In homogeneous tissue each look is Rayleigh distributed; compounding
    averages the envelopes of the looks.
    """
    # Beer-Lambert on the way there and back: 2 f int alpha dz, in dB; dB/cm -> dB/mm is the factor 0.1
    path_db = grid.pixel_mm * 0.1 * np.cumsum(tissue.attenuation, axis=0)
    loss_db = 2 * scanner.frequency_mhz * path_db + tissue.contact_db
    amplitude = (10 ** ((tissue.echo_db - loss_db) / 20) / np.sqrt(2)).astype(np.float32)
    amplitude = np.repeat(amplitude, OVERSAMPLING, axis=0)
    shape, x = amplitude.shape, grid.x[0]
    beam, pulse = _transfer(scanner, grid)
    noise_level = float(10 ** (scanner.noise_db / 20) / np.sqrt(2))
    wave_number = 2 * np.pi * scanner.frequency_mhz / SOUND_MM_PER_US

    detected = np.zeros(shape, np.float32)
    for sine in np.sin(np.deg2rad(np.linspace(-8, 8, scanner.looks))) if scanner.looks > 1 else (0.0,):
        # a look at another angle meets other phases of the scatterers: an independent draw of the speckle
        field = amplitude * _complex_normal(shape, rng)
        for depth, strength in tissue.interfaces:
            # its phase turns along a slanted boundary, so the beam averages it away there: a boundary is bright only
            # where it faces the probe, or the angle of this look, whose delay is x sin(angle)
            echo = strength * np.exp(-2j * wave_number * (depth + sine * x))
            _add_interface(field, depth / grid.sample_mm - 0.5, echo)
        # the tissue is seen through beam and pulse; the electronic noise enters after the beam, before the pulse filter
        field = fft.ifft(fft.fft(field, axis=1) * beam, axis=1)
        field += noise_level * _complex_normal(shape, rng)
        field = fft.ifft(fft.fft(field, axis=0) * pulse, axis=0)
        detected += np.abs(field)
    return detected / scanner.looks


def display(scanner: Scanner, grid: Grid, detected: Array, gain_db: float = 0.0) -> Array:
    """Envelope -> picture, (height, size) uint8: time gain, log compression, scan conversion, filter, grey map.

    ``gain_db`` is what the operator turned, on top of the scanner's own gain.
    """
    z = grid.samples
    # time gain compensation: undo the assumed attenuation, then the sliders
    sliders = np.interp(z / scanner.depth_mm, np.linspace(0, 1, len(scanner.tgc_db)), scanner.tgc_db)
    tgc_db = 2 * scanner.frequency_mhz * 0.1 * scanner.assumed_attenuation * z + sliders
    level_db = 20 * np.log10(np.maximum(detected, 1e-9)) + tgc_db + scanner.gain_db + gain_db
    # log compression: white at 0 dB, black at -dynamic range; one pixel is the mean of its samples
    grey = grid.pixels(np.clip(1 + level_db / scanner.dynamic_range_db, 0, 1))
    if scanner.filtering:
        grey = _lee(grey, scanner.filtering)
    grey = scanner.black + (1 - scanner.black) * np.clip(grey, 0, 1) ** scanner.gamma
    return np.asarray(np.rint(255 * grey), dtype=np.uint8)


def _complex_normal(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Circular complex Gaussian with unit variance in each part, complex64."""
    return rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]


def _transfer(scanner: Scanner, grid: Grid) -> tuple[Array, Array]:
    """Fourier transforms of the beam, (samples, Nx), and of the pulse, (samples, 1); Gaussian, of unit energy.

    Unit energy keeps the mean echo of homogeneous tissue independent of depth: focal gain is part of the TGC.
    """
    # Gaussian beam: width grows as sqrt(1 + ((z - focus) / zone)^2)
    width = scanner.beam_mm * np.sqrt(1 + ((grid.samples - scanner.focus_mm) / scanner.focal_zone_mm) ** 2)
    beam = np.exp(-2 * (np.pi * width * FWHM_TO_SIGMA * fft.fftfreq(grid.x.size, grid.pixel_mm)) ** 2)
    # Gaussian spectrum of -6 dB width B: sigma_t = 1 / (2 pi sigma_f); an echo from z takes 2 z / c
    sigma_t = 1 / (2 * np.pi * scanner.bandwidth * scanner.frequency_mhz * FWHM_TO_SIGMA)
    sigma_z = sigma_t * SOUND_MM_PER_US / 2
    pulse = np.exp(-2 * (np.pi * sigma_z * fft.fftfreq(grid.samples.size, grid.sample_mm)) ** 2)[:, None]
    beam /= np.sqrt(np.mean(beam**2, axis=1, keepdims=True))
    return beam.astype(np.float32), (pulse / np.sqrt(np.mean(pulse**2))).astype(np.float32)


def _add_interface(field: Array, row: Array, echo: Array) -> None:
    """Add one coherent echo a beam to the scatterers, in place, shared between the two samples next to ``row``."""
    upper = np.floor(row).astype(np.int64)
    column = np.flatnonzero((upper >= 0) & (upper < field.shape[0] - 1))
    upper, part, echo = upper[column], (row - upper)[column], echo[column]
    field[upper, column] += (1 - part) * echo
    field[upper + 1, column] += part * echo


def _lee(grey: Array, strength: float) -> Array:
    """Lee's adaptive filter (IEEE Trans. PAMI 2, 1980), 3 x 3: the local mean where the local variance is speckle's."""
    mean = ndimage.uniform_filter(grey, 3)
    variance = np.maximum(ndimage.uniform_filter(grey**2, 3) - mean**2, 0)
    keep = variance / (variance + np.median(variance) + 1e-12)
    return np.asarray(grey + strength * (1 - keep) * (mean - grey))
