"""Acquisition styles: groups of images that look as if made by one scanner, for data that do not say which it was.

A held-out style is a proxy of a scanner shift, and must be called so: styles are found by the looks of the images
alone, and what an image shows has a part in its looks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.vq import kmeans2

from semidg.errors import DataError
from semidg.types import Record

_SIDE = 64  # pixels of the squashed image whose spectrum is taken
_HALF = 3  # frequencies up to this, in cycles an image
_STARTS = 20

#: Features of each block, in the order of ``style_features``.
BLOCKS = {"spectrum": (2 * _HALF + 1) * (_HALF + 1) - _HALF - 1, "intensity": 9, "shape": 2}


def style_features(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What is compared of an image (H, W) uint8: (35,) numbers in three blocks.

    spectrum: log(1 + |F|) of the image squashed to 64 x 64, F its Fourier transform at frequencies up to 3 cycles an
    image, one of each conjugate pair and not the mean. intensity: mean, standard deviation, the percentiles 5, 25, 50,
    75, 95 and the part of black pixels (below 3) of grey values / 255, and the logarithm of the mean step between
    neighbours, which says how fine the speckle is. shape: log2 of the area in pixels and of the aspect.
    """
    height, width = grey.shape
    small = np.asarray(Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float64) / 255
    amplitude = np.abs(np.fft.rfft2(small))[[*range(_HALF + 1), *range(-_HALF, 0)], : _HALF + 1]
    twice = np.zeros(amplitude.shape, bool)
    twice[_HALF + 1 :, 0] = twice[0, 0] = True  # conjugates of others in the first column, and the mean
    x = grey.astype(np.float64) / 255
    steps = [np.abs(np.diff(x, axis=axis)).mean() if x.shape[axis] > 1 else 0.0 for axis in (0, 1)]
    intensity = [x.mean(), x.std(), *np.percentile(x, (5, 25, 50, 75, 95)), (grey < 3).mean()]
    return np.concatenate(
        [
            np.log1p(amplitude[~twice]),
            [*intensity, np.log(np.mean(steps) + 1e-3)],
            [np.log2(height * width), np.log2(width / height)],
        ]
    )


def file_means(records: Sequence[Record], features: NDArray[np.float64]) -> NDArray[np.float64]:
    """The features (N, 35) of N records, of planes of one file the mean: a file has one style."""
    _, file = np.unique([r.id if r.frame is None else f"{r.file}/" for r in records], return_inverse=True)
    sums = np.zeros((file.max() + 1, features.shape[1]))
    np.add.at(sums, file, features)
    means: NDArray[np.float64] = (sums / np.bincount(file)[:, None])[file]
    return means


def find_styles(features: NDArray[np.float64], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Style of each of N images, (N,) from 0, the largest style first.

    features: (N, 35) of ``style_features``. Each feature is brought to mean 0 and variance 1 over the images, and each
    block to the same weight; then k-means, the best of 20 starts with k-means++. The same seed gives the same styles.
    Raises DataError where there are not at least twice as many unlike images as styles.
    """
    if count < 2 or len(np.unique(features, axis=0)) < 2 * count:
        raise DataError(
            f"data.domains = styles:{count}: {len(features)} images do not make {count} styles; "
            f"2 to {max(2, len(features) // 2)} are possible"
        )
    spread = features.std(0)
    values = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    values /= np.sqrt(np.repeat([*BLOCKS.values()], [*BLOCKS.values()]))
    best, labels = np.inf, np.zeros(len(values), np.int64)
    for start in range(_STARTS):
        centres, found = kmeans2(values, count, minit="++", seed=seed * _STARTS + start)
        distance = float(((values - centres[found]) ** 2).sum())
        if distance < best - 1e-9 and len(np.unique(found)) == count:
            best, labels = distance, found.astype(np.int64)
    if not np.isfinite(best):
        raise DataError(f"data.domains = styles:{count}: the images do not fall into {count} styles; ask for fewer")
    sizes = np.bincount(labels, minlength=count)
    first = [int(np.argmax(labels == k)) for k in range(count)]
    rank = np.empty(count, np.int64)
    rank[sorted(range(count), key=lambda k: (-sizes[k], first[k]))] = np.arange(count)
    ranked: NDArray[np.int64] = rank[labels]
    return ranked
