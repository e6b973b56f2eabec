"""Arrays of voxels -> NIfTI files."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from semidg.data.guard import named
from semidg.data.nifti import opened, parsed
from semidg.files import atomic_path


def save_like(path: Path, source: Path, voxels: NDArray[np.uint8], scale: float = 1.0) -> None:
    """Write ``path``, a .nii.gz with the geometry of the NIfTI file ``source``: dimensions, affines and their codes,
    voxel sizes, units. A reader sees voxels * scale; voxels: the shape of ``Header``.

    Raises DataError if ``source`` cannot be read, SemidgError if ``path`` cannot be written.
    """
    with named(source), closing(opened(source)) as stream:
        header = parsed(source, stream.read(540))
    dims = [int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]]
    header.set_data_dtype(np.uint8)
    header.set_data_offset(0)  # where nibabel puts them
    for name in ("cal_min", "cal_max", "intent_code"):
        header[name] = 0
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    _save(path, kind(voxels.reshape(dims, order="F"), None, header), scale)


def save_new(
    path: Path,
    voxels: NDArray[np.uint8],
    affine: NDArray[np.float64] | None,
    sizes: Sequence[float],
    scale: float = 1.0,
) -> None:
    """Write ``path``, a .nii.gz of voxels (X, Y), (X, Y, Z) or (X, Y, Z, T).

    affine: (4, 4), voxel -> mm to the right, the front and the head; None if not known. sizes: of a voxel along each
    axis. A reader sees voxels * scale. SemidgError if it cannot be written.
    """
    kind: Any = nib.Nifti1Image
    image = kind(voxels, affine)
    image.header.set_xyzt_units("mm")
    zooms = image.header.get_zooms() if affine is not None else sizes  # those of the affine, but for times
    image.header.set_zooms([*zooms[:3], *sizes[3:]][: voxels.ndim])
    _save(path, image, scale)


def _save(path: Path, image: Any, scale: float) -> None:
    image.header.set_slope_inter(scale, 0)  # an image forgets that of the header it is made from
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
    ):
        image.to_stream(packed)
