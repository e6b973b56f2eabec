"""Headers of NIfTI files (.nii, .nii.gz), by nibabel."""

from __future__ import annotations

import gzip
import math
from contextlib import closing
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from semidg.data.stored import Stored, refuse_claims, truncated
from semidg.data.volume import Header, orientation
from semidg.errors import DataError

_HEADERS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MM = {1: 1000.0, 3: 0.001}  # xyzt_units: metre, micrometre; anything else is taken for mm
_MAX_OFFSET = 2**24  # bytes before the voxels, extensions of the header among them


def parse(path: Path) -> tuple[Header, Stored]:
    """The header and where the voxels lie; raises DataError for a file that is no NIfTI image of up to four dimensions,
    is shorter than its header says or claims more than the limits of ``guard``."""
    with closing(opened(path)) as stream:
        header, packed = parsed(path, stream.read(540)), isinstance(stream, gzip.GzipFile)
    dims = [int(n) for n in header["dim"]]
    shape = dims[1 : 1 + dims[0]] if 1 <= dims[0] <= 7 else []
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    shape += [1] * (2 - len(shape))
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise DataError(f"{path}: claims the dimensions {dims}; an image, a volume or a series of volumes is needed")
    offset, dtype = header.get_data_offset(), header.get_data_dtype()
    numbers = path, tuple(shape), dtype
    stored = Stored(*numbers, 0, "gzip", offset) if packed else Stored(*numbers, offset)
    refuse_claims(path, stored)
    if not 0 <= offset <= _MAX_OFFSET:
        raise truncated(path, f"its voxels are said to begin at byte {offset}")
    slope, inter = header.get_slope_inter()
    unit = _MM.get(int(header["xyzt_units"]) & 7, 1.0)
    mm = [abs(float(str(size))) * unit for size in header["pixdim"][1:4]]  # 0.4 stays 0.4 in its float32
    x, y, z = (size if 0 < size < math.inf else None for size in mm)
    affine = _affine(header)
    lies = None if affine is None else orientation(affine)
    scaling = 1.0 if slope is None else slope, inter or 0.0
    return Header(tuple(shape), (x, y, z), lies, affine if lies else None, *scaling), stored


def opened(path: Path) -> IO[bytes]:
    """The file, unpacked if it is packed, whatever its ending says."""
    file = path.open("rb")
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not packed:
        return file
    file.close()
    return cast(IO[bytes], gzip.open(path, "rb"))


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


def _affine(header: Any) -> NDArray[np.float64] | None:
    """None where the header has none, or quaternions that mean no rotation."""
    if not (header["qform_code"] or header["sform_code"]):
        return None
    try:
        found: NDArray[np.float64] = header.get_best_affine()
    except (ValueError, nib.spatialimages.HeaderDataError):
        return None
    return found
