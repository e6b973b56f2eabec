"""Grey values of any depth -> uint8 by percentiles: one rule for all planes of a volume or a film."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semidg.data.counting import percentiles
from semidg.errors import DataError

#: Percentiles of all values of a file that become black and white.
PERCENTILES = (0.5, 99.5)


def window(values: NDArray[Any], path: Path) -> tuple[float, float]:
    """What becomes black and what white: the percentiles 0.5 and 99.5 of all values (linear interpolation); where the
    two are equal, the least and the largest value. Raises DataError that names the file on NaN and infinity."""
    if values.dtype.kind == "f" and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise DataError(f"{path}: holds NaN or infinite grey values; replace them")
    low, high = percentiles(values, PERCENTILES)
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def stretch(values: NDArray[np.generic], low: float, high: float, turned: bool = False) -> NDArray[np.uint8]:
    """round(255 (v - low) / (high - low)), cut off at 0 and 255; all 0 if low equals high. Any shape, same order.

    turned: ``low`` becomes white and ``high`` black.
    """
    pixels = np.zeros(values.shape, np.uint8, order="F" if values.flags.f_contiguous else "C")
    if not low < high:
        return pixels
    start, length = (high, low - high) if turned else (low, high - low)
    # slab by slab along the slowest axis: float64 of a whole volume would be eight times its uint8
    source, target = (values.T, pixels.T) if values.flags.f_contiguous else (values, pixels)
    for slab in range(len(source)):
        grey = (source[slab].astype(np.float64) - start) / length
        target[slab] = np.rint(np.clip(grey, 0, 1) * 255)
    return pixels
