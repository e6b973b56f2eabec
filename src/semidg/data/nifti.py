"""NIfTI files (.nii, .nii.gz) -> arrays of voxels: headers by nibabel, voxels read only as far as the header says.

A slice is taken as the file stores it, image and mask by the same rule: of the two axes that lie in it, the first one
runs along the columns (to the right) and the second one along the rows (down). So a slice across z has x to the right
and y down, one across y has x to the right and z down, one across x has y to the right and z down. Nothing is turned
or mirrored, unless a frame names an axis of the patient (``l``, ``p``, ``i``): then the same rule holds for the array
turned to LPI, axes to the left, the back and the feet, so that a slice lies as on a radiologist's screen. Both are
views of the stored voxels: what is written into one fits its file.
"""

from __future__ import annotations

import gzip
import math
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from semidg.data.grey import stretch, window
from semidg.data.guard import DEFLATE_RATIO, named, refuse_size
from semidg.data.masks import Coding, labels
from semidg.errors import DataError
from semidg.types import Frame

_HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_axis_codes: Any = nib.orientations.aff2axcodes
_MM = {1: 1000.0, 3: 0.001}  # xyzt_units: metre, micrometre; anything else is taken for mm
#: To where the axes of an array turned to the patient run, and where they come from.
PATIENT_AXES, _FROM = ("L", "P", "I"), ("R", "A", "S")
_MAX_OFFSET = 2**24  # bytes before the voxels, extensions of the header among them


class Header(NamedTuple):
    """What the header of a file says, checked.

    shape: (X, Y), (X, Y, Z) or (X, Y, Z, T); axes of length 1 at the end are left out. spacing: mm a voxel on each of
    the first three axes, None where the header gives no number above 0. slope, inter: value = slope * stored + inter.
    orientation: the directions to which the first three axes run, such as ``LPS``; None if the header has none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    spacing: tuple[float | None, float | None, float | None]
    orientation: str | None


def read_header(path: Path) -> Header:
    """The header, no voxels; raises DataError for a file that is no NIfTI image of up to four dimensions, is shorter
    than its header says or claims more than the limits of ``guard``."""
    with named(path), closing(opened(path)) as stream:
        header = parsed(path, stream.read(540))
        dims = [int(n) for n in header["dim"]]
        shape = dims[1 : 1 + dims[0]] if 1 <= dims[0] <= 7 else []
        while len(shape) > 2 and shape[-1] == 1:
            shape.pop()
        shape += [1] * (2 - len(shape))
        if not 2 <= len(shape) <= 4 or min(shape) < 1:
            raise DataError(
                f"{path}: claims the dimensions {dims}; an image, a volume or a series of volumes is needed"
            )
        dtype = header.get_data_dtype()
        if dtype.kind not in "uif":
            raise DataError(f"{path}: holds {dtype.name} voxels (colour or complex); save it with one number a voxel")
        refuse_size(path, shape[0], shape[1], math.prod(shape[2:]), dtype.itemsize)
        offset, size = header.get_data_offset(), path.stat().st_size
        needed = math.prod(shape) * dtype.itemsize + offset
        if not 0 <= offset <= _MAX_OFFSET or needed > size * (
            DEFLATE_RATIO if isinstance(stream, gzip.GzipFile) else 1
        ):
            raise DataError(f"{path}: truncated: of {needed} bytes claimed the file has {size}; replace or remove it")
        slope, inter = header.get_slope_inter()
        unit = _MM.get(int(header["xyzt_units"]) & 7, 1.0)
        mm = [abs(float(str(size))) * unit for size in header["pixdim"][1:4]]  # 0.4 stays 0.4 in its float32
        x, y, z = (size if 0 < size < math.inf else None for size in mm)
        return Header(
            tuple(shape), dtype, offset, 1.0 if slope is None else slope, inter or 0.0, (x, y, z), _orientation(header)
        )


def read_volume(path: Path) -> NDArray[np.uint8]:
    """Grey values of all voxels, uint8 in the shape of ``Header``: from percentile 0.5 to 99.5 of the whole file.

    The scaling of the header (scl_slope, scl_inter) moves the percentiles along with the values, so only a negative
    slope changes the result: it turns it over. Raises DataError that names the file, as on NaN.
    """
    with named(path):
        header, voxels = _read(path)
        return stretch(voxels, *window(voxels, path), turned=header.slope < 0)


def read_labels(path: Path, coding: Coding) -> NDArray[np.uint8]:
    """Class numbers of all voxels, uint8 in the shape of ``Header``, by the rules of ``masks`` for the whole file.

    Values with a scaling that are within 0.001 of a whole number are taken for it.
    """
    with named(path):
        header, voxels = _read(path)
        if (header.slope, header.inter) != (1, 0):
            voxels = voxels * header.slope + header.inter
            whole = np.rint(voxels)
            voxels = np.where(np.abs(voxels - whole) < 0.001, whole, voxels)
        return labels(voxels, path, coding)


def centre(path: Path) -> NDArray[np.float64] | None:
    """Where the middle of the volume lies, mm to the right, the front and the head, however its voxels are stored; None
    if the header does not say. Raises DataError as ``read_header`` does."""
    header = read_header(path)
    if header.orientation is None or len(header.shape) < 3:
        return None
    with named(path), closing(opened(path)) as stream:
        affine = parsed(path, stream.read(540)).get_best_affine()
    middle: NDArray[np.float64] = affine[:3, :3] @ ((np.array(header.shape[:3]) - 1) / 2) + affine[:3, 3]
    return middle


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
    return header._replace(shape=shape, spacing=(x, y, z), orientation="".join(PATIENT_AXES))


def turned(volume: NDArray[np.uint8], header: Header, path: Path) -> NDArray[np.uint8]:
    """A view of the stored voxels (X, Y, Z) or (X, Y, Z, T) as ``in_patient_axes`` has them; raises as it does."""
    order = _order(header, path)
    assert header.orientation is not None  # for the type checker: there is an order
    steps = tuple(slice(None, None, 1 if header.orientation[k] in PATIENT_AXES else -1) for k in order)
    return volume.transpose(*order, *range(3, volume.ndim))[steps]


def plane(volume: NDArray[np.uint8], frame: Frame | None) -> NDArray[np.uint8]:
    """A view (H, W) into a volume (X, Y), (X, Y, Z) or (X, Y, Z, T), by the rule in the head of this module.

    A frame across an axis of the patient is one of the ``turned`` volume.
    """
    if frame is None:
        return volume.T
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
            f"{path}: does not tell how its axes lie in the patient (no usable qform or sform); give it an affine, or "
            "set data.orientation to stored"
        )
    pairs = zip(PATIENT_AXES, _FROM, strict=True)
    return [next(k for k, code in enumerate(stored) if code in pair) for pair in pairs]


def opened(path: Path) -> IO[bytes]:
    """The file, unpacked if it is packed, whatever its ending says."""
    file = path.open("rb")
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not packed:
        return file
    file.close()
    return cast(IO[bytes], gzip.open(path, "rb"))


def _read(path: Path) -> tuple[Header, NDArray[Any]]:
    """The header, and the voxels as they are stored, in Fortran order."""
    header = read_header(path)
    voxels = np.empty(math.prod(header.shape), header.dtype)
    view = memoryview(cast(Any, voxels.view(np.uint8)))
    with closing(opened(path)) as stream:
        stream.seek(header.offset)
        done = 0
        while done < len(view) and (count := stream.readinto(view[done:])):  # type: ignore[attr-defined]
            done += count
        if done < len(view):
            raise DataError(f"{path}: truncated: {done} of {len(view)} bytes of voxels are there; replace or remove it")
        stream.read(1)  # the checksum of a packed file stands after its last byte
    return header, voxels.reshape(header.shape, order="F")


def parsed(path: Path, block: bytes) -> Any:
    """nibabel's header from the first bytes of a file; raises DataError where they are none of NIfTI."""
    for length, kind in _HEADERS.items():
        if len(block) >= length and length in (int.from_bytes(block[:4], end) for end in ("little", "big")):
            header = kind(block[:length], check=False)
            if bytes(header["magic"])[:2] not in (b"n+",):
                raise DataError(
                    f"{path}: is no single-file NIfTI (its voxels lie in an .img); save it as .nii or .nii.gz"
                )
            return header
    kind_text = "is empty (0 bytes)" if path.stat().st_size == 0 else "is not a NIfTI file"
    raise DataError(f"{path}: {kind_text}; replace or remove the file")


def _orientation(header: Any) -> str | None:
    if not (header["qform_code"] or header["sform_code"]):
        return None
    try:
        codes = _axis_codes(header.get_best_affine())
    except (ValueError, nib.spatialimages.HeaderDataError, np.linalg.LinAlgError):
        # quaternions or an affine that mean no rotation: as good as none
        return None
    return None if None in codes else "".join(codes)
