"""Headers of MetaImage files (.mha, .mhd with a .raw or .zraw): lines ``Key = Value``, the last one names the data.

Keys and types: the documentation of MetaIO (ITK). Oriented as ITK does: row k of TransformMatrix is the direction of
axis k, to the left, the back and the head.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from semidg.data.stored import Stored, beside, refuse_claims
from semidg.data.volume import Header, from_lps
from semidg.errors import DataError

_MAX_HEADER = 2**20
_TYPES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",  # 4 bytes on every machine
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}


def parse(path: Path) -> tuple[Header, Stored]:
    """The header and where the voxels lie; raises DataError for what is no such file of two to four dimensions,
    for other than one number or the three of a colour a voxel, and for voxels in another folder or in several files.

    In colour is a picture of two dimensions with three channels, or of three planes 1 mm apart that are red, green and
    blue, all of 8 bits without sign.
    """
    keys, end = _lines(path)
    try:
        shape = [int(size) for size in keys["dimsize"].split()]
        kind = keys["elementtype"].upper().removeprefix("MET_").removesuffix("_ARRAY")
        channels = int(keys.get("elementnumberofchannels", "1"))
        skip = int(keys.get("headersize", "0"))
        spacing = _numbers(keys, "elementspacing", "elementsize") or [1.0] * len(shape)
        offset = _numbers(keys, "offset", "position", "origin") or [0.0] * len(shape)
        matrix = _numbers(keys, "transformmatrix", "rotation", "orientation")
        named = keys["elementdatafile"]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path}: is no MetaImage, or a damaged one ({error}); replace or remove the file") from error
    axes = len(shape)
    if not 2 <= axes <= 4 or min(shape) < 1 or {len(spacing), len(offset)} != {axes}:
        raise DataError(f"{path}: claims the dimensions {shape}; an image, a volume or a series of volumes is needed")
    if kind not in _TYPES or keys.get("binarydata", "true").lower() != "true":
        raise DataError(f"{path}: holds {kind} as text or of a type that is not read; save it as plain binary numbers")
    big = keys.get("binarydatabyteordermsb", keys.get("elementbyteordermsb", "false")).lower() == "true"
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")

    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    planar = len(shape) == 3 and shape[2] == 3 and spacing[2] == 1 and kind == "UCHAR" and channels == 1
    colour = planar or (channels == 3 and len(shape) == 2 and kind == "UCHAR")
    if channels != 1 and not colour:
        raise DataError(f"{path}: holds {channels} numbers a voxel; save it with one number a voxel")
    stored_shape = (3, *shape) if colour and not planar else tuple(shape)
    if planar:
        shape.pop()

    file = path if named == "LOCAL" else beside(path, named)
    packed = keys.get("compresseddata", "false").lower() == "true"
    start = end if named == "LOCAL" else 0
    if skip == -1:  # the voxels end where the file does
        start, skip = file.stat().st_size - math.prod(stored_shape) * dtype.itemsize, 0
    colours = (2 if planar else 0) if colour else None
    stored = Stored(file, stored_shape, dtype, start + skip, "zlib" if packed else "", 0, colours)
    refuse_claims(path, stored)
    directions = None
    if matrix is not None and axes >= 3 and len(matrix) == axes**2:
        directions = np.array(matrix).reshape(axes, axes)[:3, :3] * np.array(spacing[:3])[:, None]
    affine, lies = from_lps(directions, offset)
    mm = [size if 0 < abs(size) < math.inf else None for size in (*map(abs, spacing[:3]), 0.0)][:3]
    return Header(tuple(shape), (mm[0], mm[1], mm[2]), lies, affine, colour=colour), stored


def _lines(path: Path) -> tuple[dict[str, str], int]:
    """The keys in lower case with their values, and how many bytes the lines are long."""
    with path.open("rb") as file:
        block = file.read(_MAX_HEADER)
    if not block:
        raise DataError(f"{path}: is empty (0 bytes); replace or remove the file")
    keys: dict[str, str] = {}
    end = 0
    for line in block.splitlines(keepends=True):
        end += len(line)
        key, equals, value = line.partition(b"=")
        if not equals or len(key) > 100:
            break
        name = key.strip().decode("latin-1").lower()
        keys[name] = value.strip().decode("utf-8", "replace")
        if name == "elementdatafile":
            return keys, end
    raise DataError(f"{path}: is not a MetaImage file; replace or remove the file")


def _numbers(keys: dict[str, str], *names: str) -> list[float] | None:
    """The numbers of the first of the keys that is there."""
    found = next((keys[name] for name in names if name in keys), None)
    return None if found is None else [float(number) for number in found.split()]
