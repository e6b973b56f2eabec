"""Volume files of any format (NIfTI, MetaImage, NRRD) -> headers and uint8 voxels, all by the same rules."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semidg.data import metaimage, nifti, nrrd
from semidg.data.grey import stretch, window
from semidg.data.guard import named
from semidg.data.images import is_nifti_name, is_nrrd_name
from semidg.data.masks import Coding, labels
from semidg.data.stored import Stored, read_stored
from semidg.data.volume import Header
from semidg.errors import DataError


def read_header(path: Path, colours: bool = True) -> Header:
    """The header, no voxels. colours: whether three planes may be the colours of a picture; not of a mask.

    Raises DataError for a file that is no image of up to four dimensions in the format that its ending says, is shorter
    than its header says or claims more than the limits of ``guard``.
    """
    with named(path):
        return _parse(path, colours)[0]


def read_volume(path: Path) -> NDArray[np.uint8]:
    """Grey values of all voxels, uint8 in the shape of ``Header``: from percentile 0.5 to 99.5 of the whole file; a
    picture in colour (X, Y, 3) as it is.

    The scaling of the header moves the percentiles along with the values, so only a negative slope changes the result:
    it turns it over. Raises DataError that names the file, as on NaN.
    """
    with named(path):
        header, voxels = _read(path)
        return voxels if header.colour else stretch(voxels, *window(voxels, path), turned=header.slope < 0)


def read_labels(path: Path, coding: Coding) -> NDArray[np.uint8]:
    """Class numbers of all voxels, uint8 in the shape of ``Header``, by the rules of ``masks`` for the whole file.

    Values with a scaling that are within 0.001 of a whole number are taken for it. DataError for a mask in colour.
    """
    with named(path):
        header, voxels = _read(path, colours=False)
        if header.colour:
            raise DataError(f"{path}: a mask in colour; save it with one number a voxel")
        if (header.slope, header.inter) != (1, 0):
            voxels = voxels * header.slope + header.inter
            whole = np.rint(voxels)
            voxels = np.where(np.abs(voxels - whole) < 0.001, whole, voxels)
        return labels(voxels, path, coding)


def centre(path: Path) -> NDArray[np.float64] | None:
    """Where the middle of the volume lies, mm to the right, the front and the head, however its voxels are stored; None
    if the header does not say. Raises DataError as ``read_header`` does."""
    header = read_header(path)
    if header.orientation is None or header.affine is None or len(header.shape) < 3:
        return None
    middle: NDArray[np.float64] = header.affine[:3, :3] @ ((np.array(header.shape[:3]) - 1) / 2) + header.affine[:3, 3]
    return middle


def stamp(path: Path) -> list[int]:
    """Size and time of change of a file of any format, and of the file of its voxels where that is another: what tells
    that it is not the one it was. Raises the OSError of a file that is not there."""
    status = path.stat()
    found = [status.st_size, status.st_mtime_ns]
    if path.name.lower().endswith((".mhd", ".nhdr")):
        with suppress(DataError), named(path):  # what is wrong with the header is told by whoever reads it
            other = _parse(path)[1].file.stat()
            found += [other.st_size, other.st_mtime_ns]
    return found


def _parse(path: Path, colours: bool = True) -> tuple[Header, Stored]:
    if is_nifti_name(path.name):
        return nifti.parse(path)
    return nrrd.parse(path) if is_nrrd_name(path.name) else metaimage.parse(path, colours)


def _read(path: Path, colours: bool = True) -> tuple[Header, NDArray[Any]]:
    """The header, and the voxels as they are stored: (X, Y, ...), in colour (X, Y, 3)."""
    header, stored = _parse(path, colours)
    return header, read_stored(stored)
