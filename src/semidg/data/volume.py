"""What the header of a volume file says, how its axes lie in the patient, and its slices: the same for all formats.

A slice is taken as the file stores it, image and mask by the same rule: of the two axes that lie in it, the first one
runs along the columns (to the right) and the second one along the rows (down). So a slice across z has x to the right
and y down, one across y has x to the right and z down, one across x has y to the right and z down. Nothing is turned
or mirrored, unless a frame names an axis of the patient (``l``, ``p``, ``i``): then the same rule holds for the array
turned to LPI, axes to the left, the back and the feet, so that a slice lies as on a radiologist's screen. Both are
views of the stored voxels: what is written into one fits its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from semidg.errors import DataError
from semidg.types import Frame

#: To where the axes of an array turned to the patient run, and where they come from.
PATIENT_AXES, _FROM = ("L", "P", "I"), ("R", "A", "S")
_axis_codes: Any = nib.orientations.aff2axcodes


class Grid(NamedTuple):
    """What a mask of the volume is written with.

    dims: all dimensions, those of length 1 at the end too. affine: as of ``Header``, with what readers take for granted
    where the file does not say it. sizes: of a voxel along each axis.
    """

    dims: tuple[int, ...]
    affine: NDArray[np.float64]
    sizes: tuple[float, ...]


class Header(NamedTuple):
    """What the header of a file says, checked.

    shape: (X, Y), (X, Y, Z) or (X, Y, Z, T); axes of length 1 at the end are left out. spacing: mm a voxel on each of
    the first three axes, None where the header gives no number above 0. orientation: the directions to which the first
    three axes run, such as ``LPS``, and affine: (4, 4), from voxels to mm to the right, the front and the head; both
    None if the header has none. slope, inter: value = slope * stored + inter. colour: the voxels are (X, Y, 3), RGB.
    grid: None for NIfTI, whose header is taken over as it is.
    """

    shape: tuple[int, ...]
    spacing: tuple[float | None, float | None, float | None]
    orientation: str | None = None
    affine: NDArray[np.float64] | None = None
    slope: float = 1.0
    inter: float = 0.0
    colour: bool = False
    grid: Grid | None = None


def orientation(affine: NDArray[np.float64]) -> str | None:
    """To where the axes of an affine run, such as ``LPS``; None for an affine that means no rotation."""
    try:
        codes = _axis_codes(affine)
    except (ValueError, np.linalg.LinAlgError):
        return None
    return None if None in codes else "".join(codes)


def in_lps(
    dims: Sequence[int],
    rows: NDArray[np.float64],
    origin: Sequence[float],
    sizes: Sequence[float],
    *,
    stated: bool,
    colour: bool = False,
) -> Header:
    """The header of a format whose axes are those of LPS (to the left, the back and the head).

    dims: all dimensions, those of length 1 at the end too. rows: from voxel to voxel of each axis in mm, NaN where that
    is not known; origin: of the first voxel; both with two or three components. sizes: of a voxel along each axis.
    stated: whether the file itself says how the axes lie, or it is only what a reader takes them for.
    """
    shape = list(dims)
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    turn = np.array([-1.0, -1.0, 1.0, 1.0])
    lies = np.eye(4)
    for axis, row in enumerate(rows[:3]):
        if np.isfinite(row[:3]).all() and np.any(row[:3]):
            lies[:3, axis] = [*row[:3], 0.0][:3]
    lies[: len(origin[:3]), 3] = np.nan_to_num(origin[:3])
    affine = turn[:, None] * lies
    known = stated and len(dims) > 2 and np.isfinite(rows[:3, :3]).all() and rows.shape[1] > 2
    codes = orientation(affine) if known else None
    mm = [size if 0 < size < np.inf else None for size in (*map(abs, sizes[:3]), 0.0)][:3]
    mm += [None] * (3 - len(mm))
    grid = Grid(tuple(dims), affine, tuple(size if 0 < size < np.inf else 1.0 for size in map(abs, sizes)))
    return Header(tuple(shape), (mm[0], mm[1], mm[2]), codes, affine if codes else None, colour=colour, grid=grid)


def slice_axis(header: Header, axis: str) -> int:
    """The axis, 0 to 2, across which the slices of a volume lie. ``auto``: the axis of one voxel if there is one, else
    that of the largest voxel spacing; within 1 % of the largest, the last one."""
    if axis != "auto":
        return "xyz".index(axis)
    if 1 in header.shape[:3]:
        return 2 - header.shape[2::-1].index(1)
    sizes = [size or 0.0 for size in header.spacing]
    return max(number for number, size in enumerate(sizes) if size >= 0.99 * max(sizes))


def in_patient_axes(header: Header, path: Path) -> Header:
    """The header of the volume turned to LPI, not of an image of two dimensions. Raises DataError where the file does
    not tell how its axes lie."""
    order = _order(header, path)
    shape = (*(header.shape[k] for k in order), *header.shape[3:])
    x, y, z = (header.spacing[k] for k in order)
    return header._replace(shape=shape, spacing=(x, y, z), orientation="".join(PATIENT_AXES), affine=None)


def turned(volume: NDArray[np.uint8], header: Header, path: Path) -> NDArray[np.uint8]:
    """A view of the stored voxels (X, Y, Z) or (X, Y, Z, T) as ``in_patient_axes`` has them; raises as it does."""
    order = _order(header, path)
    assert header.orientation is not None  # for the type checker: there is an order
    steps = tuple(slice(None, None, 1 if header.orientation[k] in PATIENT_AXES else -1) for k in order)
    return volume.transpose(*order, *range(3, volume.ndim))[steps]


def plane(volume: NDArray[np.uint8], frame: Frame | None) -> NDArray[np.uint8]:
    """A view (H, W) into a volume (X, Y), (X, Y, Z) or (X, Y, Z, T), by the rule in the head of this module; (H, W, 3)
    of a picture in colour (X, Y, 3).

    A frame across an axis of the patient is one of the ``turned`` volume.
    """
    if frame is None:
        return volume.swapaxes(0, 1)
    if volume.ndim == 4:
        assert frame.time is not None  # the reader has seen to it
        volume = volume[..., frame.time]
    found: NDArray[np.uint8] = np.moveaxis(volume, frame.across, 0)[frame.number].T
    return found


def _order(header: Header, path: Path) -> list[int]:
    """The stored axis that each axis of the patient is."""
    stored = header.orientation
    if stored is None:
        raise DataError(
            f"{path}: does not tell how its axes lie in the patient (no usable qform, sform or directions); give it "
            "an affine, or set data.orientation to stored"
        )
    pairs = zip(PATIENT_AXES, _FROM, strict=True)
    return [next(k for k, code in enumerate(stored) if code in pair) for pair in pairs]
