"""The image and the mask of a Record -> arrays: the one way from a record to its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semidg.data.images import read_image, read_mask
from semidg.data.paths import resolve_inside
from semidg.types import Record


def record_image(root: Path, record: Record, channels: int) -> NDArray[np.uint8]:
    """The image as uint8 (H, W, channels), ``channels`` 1 or 3; raises DataError that names the file."""
    return read_image(resolve_inside(root, record.image), channels)


def record_mask(root: Path, record: Record, classes: int = 2) -> NDArray[np.uint8]:
    """The mask as uint8 (H, W) of class numbers, its files united; raises DataError that names the file."""
    return read_mask([resolve_inside(root, mask) for mask in record.masks], classes)
