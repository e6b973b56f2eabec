"""Headers of NRRD files (.nrrd, .nhdr with a file of voxels), by pynrrd; what they mean: the definition of the format
(Teem), as far as volumes of scanners and the segmentations of 3D Slicer use it."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from semidg.data.stored import Stored, beside, refuse_claims
from semidg.data.volume import Header, from_lps
from semidg.errors import DataError

_MAX_HEADER = 2**20
_TYPES = {
    "i1": ("char", "int8"),
    "u1": ("uchar", "unsigned char", "uint8"),
    "i2": ("short", "int16"),
    "u2": ("ushort", "unsigned short", "uint16"),
    "i4": ("int", "int32"),
    "u4": ("uint", "unsigned int", "unsigned", "uint32"),
    "i8": ("longlong", "long long", "int64"),
    "u8": ("ulonglong", "unsigned long long", "uint64"),
    "f4": ("float",),
    "f8": ("double",),
}
_NUMPY = {name: code for code, names in _TYPES.items() for name in names}
_COLOUR_KINDS = ("RGB-color", "3-color", "vector", "3-vector")
#: To LPS: what the first two axes of a space are multiplied by.
_SPACES = {"left-posterior-superior": (1, 1), "left-anterior-superior": (1, -1), "right-anterior-superior": (-1, -1)}
_SPACES |= {"lps": (1, 1), "las": (1, -1), "ras": (-1, -1)}


def parse(path: Path) -> tuple[Header, Stored]:
    """The header and where the voxels lie; raises DataError for what is no such file of two to four dimensions in
    space, or a picture of three colours of 8 bits, and for voxels that are text, packed by anything but gzip, or lie in
    another folder or in several files."""
    with path.open("rb") as file:
        block = file.read(_MAX_HEADER)
    if not block.startswith(b"NRRD"):
        kind = "is not a NRRD file" if block else "is empty (0 bytes)"
        raise DataError(f"{path}: {kind}; replace or remove the file")
    stream = io.BytesIO(block)
    keys: dict[str, Any] = {
        key.replace(" ", "").lower(): value for key, value in nrrd.read_header(stream).items()
    }  # "data file" may be written "datafile"
    shape = [int(size) for size in keys["sizes"]]
    kinds, directions = keys.get("kinds", [""] * len(shape)), _directions(keys)
    colour = len(shape) == 3 and shape[0] == 3 and kinds[0] in _COLOUR_KINDS
    if colour:
        shape, kinds, directions = shape[1:], kinds[1:], directions[1:]
    if not 2 <= len(shape) <= 4 or min(shape) < 1 or len(shape) != keys["dimension"] - colour:
        raise DataError(f"{path}: claims the dimensions {shape}; an image, a volume or a series of volumes is needed")
    if not {kind.lower() for kind in kinds[:3]} <= {"domain", "space", "", "???"}:
        raise DataError(f"{path}: its axes are {', '.join(kinds)}; save it with one number a voxel, without components")
    stored = _stored(path, keys, (3, *shape) if colour else tuple(shape), stream.tell())
    if colour and stored.dtype != np.uint8:
        raise DataError(f"{path}: holds colours of type {keys['type']}; save them with 8 bits")
    stored = stored._replace(colours=0 if colour else None)
    refuse_claims(path, stored)
    sizes = [float(np.linalg.norm(row[~np.isnan(row)])) for row in directions[:3]]
    mm = [size if 0 < size < np.inf else None for size in (*sizes, 0.0)][:3]
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    if not colour:
        stored = stored._replace(shape=tuple(shape))
    affine, lies = _place(keys, directions)
    return Header(tuple(shape), (mm[0], mm[1], mm[2]), lies, affine, colour=colour), stored


def _stored(path: Path, keys: dict[str, Any], shape: tuple[int, ...], end: int) -> Stored:
    """end: of the header, in bytes."""
    name = re.sub(r"_t$| int$|^signed ", "", re.sub(r"^signed int$", "int", str(keys["type"])))
    encoding = str(keys["encoding"]).lower()
    line_skip, skip = (int(keys.get(key, 0)) for key in ("lineskip", "byteskip"))
    if name not in _NUMPY or encoding not in ("raw", "gzip", "gz") or line_skip or skip < -1:
        raise DataError(f"{path}: its voxels are {keys['type']}, stored as {encoding}; save it anew, raw or as gzip")
    dtype = np.dtype(_NUMPY[name]).newbyteorder(">" if keys.get("endian") == "big" else "<")
    other = keys.get("datafile")
    file, start = (path, end) if other is None else (beside(path, str(other)), 0)
    if encoding != "raw":
        return Stored(file, shape, dtype, start, "gzip", max(skip, 0))
    if skip == -1:  # the voxels end where the file does
        return Stored(file, shape, dtype, file.stat().st_size - int(np.prod(shape, dtype=object)) * dtype.itemsize)
    return Stored(file, shape, dtype, start + skip)


def _directions(keys: dict[str, Any]) -> NDArray[np.float64]:
    """From voxel to voxel, one row an axis; NaN where that is not known."""
    if (given := keys.get("spacedirections")) is not None:
        return np.asarray(given, np.float64)
    return np.diag(np.asarray(keys.get("spacings", [np.nan] * len(keys["sizes"])), np.float64))


def _place(keys: dict[str, Any], directions: NDArray[np.float64]) -> tuple[NDArray[np.float64] | None, str | None]:
    """(affine, orientation), None where the file does not place its axes in a patient."""
    turn = _SPACES.get(str(keys.get("space", "")).lower())
    rows = np.atleast_2d(directions)[:3]
    if turn is None or "spacedirections" not in keys or rows.shape != (3, 3) or not np.isfinite(rows).all():
        return None, None
    to_lps = np.array([*turn, 1.0])
    origin = np.nan_to_num(np.asarray(keys.get("spaceorigin", [0.0] * 3), np.float64))
    return from_lps(rows * to_lps, [float(x) for x in origin * to_lps])
