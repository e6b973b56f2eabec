"""What sets the domains of a data set apart: grey values, sizes, and the amplitudes that Fourier mixing exchanges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semidg.experiment.audit.cases import Case


class Domain(NamedTuple):
    """A domain in numbers.

    mean, deviation, low, middle, high: mean, standard deviation and the percentiles 5, 50 and 95 of all its grey
    values, 0 to 255, every image with the same weight. black: part of the pixels below 3. area: median marked part of
    the images with a lesion, None without one. width, height: median, in pixels. histogram: (256,), its sum is 1.
    """

    name: str
    images: int
    masks: int
    mean: float
    deviation: float
    low: int
    middle: int
    high: int
    black: float
    area: float | None
    width: float
    height: float
    histogram: NDArray[np.float64]


class Domains(NamedTuple):
    """All domains, by name, and how far apart their spectra are.

    distance: (D, D) in dB. With A_x the low-frequency log-amplitudes of image x and m_d their mean over the images of
    domain d, the distance of d and e is the root mean square over the window of m_d - m_e. spread: (D,) in dB, the
    root mean square of A_x - m_d over the window and the images of d: a distance well above the spread of the two is
    one that no image of the domain bridges by itself. A domain of few images has an uncertain m_d.
    """

    table: tuple[Domain, ...]
    distance: NDArray[np.float64]
    spread: NDArray[np.float64]


def describe_domains(cases: Sequence[Case]) -> Domains:
    """Statistics of each domain, and the distances between them."""
    names = sorted({case.record.domain for case in cases})
    members = [[case for case in cases if case.record.domain == name] for name in names]
    amplitudes = [np.stack([case.amplitude.ravel() for case in own]) for own in members]
    means = [each.mean(axis=0) for each in amplitudes]
    distance = np.array([[_rms(one - other) for other in means] for one in means]).reshape(len(names), len(names))
    spread = np.array([_rms(each - mean) for each, mean in zip(amplitudes, means, strict=True)])
    return Domains(tuple(_describe(name, own) for name, own in zip(names, members, strict=True)), distance, spread)


def _describe(name: str, cases: Sequence[Case]) -> Domain:
    histogram = np.mean([case.histogram for case in cases], axis=0)
    grey = np.arange(256)
    mean = float(histogram @ grey)
    low, middle, high = (int(np.searchsorted(histogram.cumsum(), share)) for share in (0.05, 0.5, 0.95))
    areas = [case.area for case in cases if case.area > 0]
    return Domain(
        name,
        len(cases),
        sum(case.mask is not None for case in cases),
        mean,
        float(np.sqrt(histogram @ (grey - mean) ** 2)),
        low,
        middle,
        high,
        float(histogram[:3].sum()),
        float(np.median(areas)) if areas else None,
        float(np.median([case.record.width for case in cases])),
        float(np.median([case.record.height for case in cases])),
        histogram,
    )


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).mean()))
