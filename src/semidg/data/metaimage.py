"""Headers of MetaImage files (.mha, .mhd with a .raw or .zraw): lines ``Key = Value``, the last one names the data.

Keys and types: the documentation of MetaIO (ITK). Oriented as ITK does: row k of TransformMatrix is the direction of
axis k, to the left, the back and the head.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from semidg.data.paths import printable
from semidg.data.stored import Stored, beside, refuse_claims, shown
from semidg.data.volume import Header, in_lps
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


def parse(path: Path, colours: bool = True) -> tuple[Header, Stored]:
    """The header and where the voxels lie; raises DataError for what is no such file of two to four dimensions, for
    other than one number or the three of a colour a voxel, and for voxels in another folder or in several files.

    In colour is a picture of two dimensions with three channels, or, with ``colours``, one of three planes that are
    red, green and blue: all of 8 bits without sign, the planes as far apart as pixels are, at the origin, not turned.
    """
    keys, end = _lines(path)
    try:
        axes = int(keys["ndims"])
        if not 2 <= axes <= 4:
            raise ValueError(f"NDims = {axes}, needed are 2 to 4")  # noqa: TRY301
        shape = [int(size) for size in keys["dimsize"].split()[:axes]]
        spacing = _numbers(keys, axes, "elementspacing", "elementsize") or [math.nan] * axes
        offset = _numbers(keys, axes, "offset", "position", "origin") or [0.0] * axes
        matrix = _numbers(keys, axes**2, "transformmatrix", "rotation", "orientation")
        kind = keys["elementtype"].upper().removeprefix("MET_").removesuffix("_ARRAY")
        channels, skip = int(keys.get("elementnumberofchannels", "1")), int(keys.get("headersize", "0"))
        given = keys["elementdatafile"]
    except (KeyError, ValueError) as error:
        text = printable(str(error))[:100]
        raise DataError(f"{path}: is no MetaImage, or a damaged one ({text}); replace or remove the file") from error
    if len(shape) != axes or min(shape) < 1:
        raise DataError(f"{path}: claims the dimensions {shown(shape)}; {axes} of 1 or more are needed")
    if kind not in _TYPES or not _true(keys.get("binarydata", "True")):
        raise DataError(
            f"{path}: holds {printable(kind)[:40]} as text or of a type that is not read; save it as numbers"
        )
    flat = math.prod(shape[2:]) == 1
    planar = (
        colours
        and (channels, kind, axes, shape[-1]) == (1, "UCHAR", 3, 3)
        and len(set(spacing)) == 1
        and not any(offset)
        and (matrix is None or np.array_equal(np.reshape(matrix, (3, 3)), np.eye(3)))
    )
    if channels != 1 and not (channels == 3 and flat and kind == "UCHAR"):
        raise DataError(f"{path}: holds {channels} numbers a voxel; save it with one number a voxel")

    local = given.upper() == "LOCAL"
    file, packed = (path if local else beside(path, given)), _true(keys.get("compresseddata", "False"))
    big = keys.get("binarydatabyteordermsb", keys.get("elementbyteordermsb", "False"))
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if _true(big) else "<")
    start = skip if skip > 0 else end if local else 0  # HeaderSize counts from the start of the file
    if skip == -1:  # the voxels end where the file does
        start = file.stat().st_size - math.prod(shape) * channels * dtype.itemsize
    elif skip < -1:
        raise DataError(f"{path}: has a HeaderSize of {skip}; save it anew")
    rows = np.reshape(matrix or np.eye(axes), (axes, axes)) * np.nan_to_num(spacing, nan=1.0)[:, None]
    header = in_lps(
        shape[:2] if planar else shape, rows, offset, spacing, stated=matrix is not None, colour=planar or channels == 3
    )
    where = (*header.shape, 3) if planar else (3, *header.shape) if channels == 3 else header.shape
    axis = (2 if planar else 0) if header.colour else None
    stored = Stored(file, where, dtype, start, "zlib" if packed else "", 0, axis)
    refuse_claims(path, stored)
    return header, stored


def _lines(path: Path) -> tuple[dict[str, str], int]:
    """The keys in lower case with their values, and how many bytes the lines are long."""
    with path.open("rb") as file:
        block = file.read(_MAX_HEADER)
    if not block:
        raise DataError(f"{path}: is empty (0 bytes); replace or remove the file")
    keys: dict[str, str] = {}
    end = 0
    for line in block.split(b"\n"):
        end += len(line) + 1
        found = re.match(rb"(?:\xef\xbb\xbf)?\s*([A-Za-z_]\w{0,99})\s*[=:](.*)", line, re.DOTALL)
        if found is None:
            if line.strip():
                break
            continue
        name = found[1].decode().lower()
        keys[name] = found[2].strip().decode("utf-8", "replace")
        if name == "elementdatafile":
            return keys, end
    raise DataError(f"{path}: is not a MetaImage file; replace or remove the file")


def _numbers(keys: dict[str, str], count: int, *names: str) -> list[float] | None:
    """As many numbers of the first of the keys that is there; raises ValueError where there are fewer."""
    found = next((keys[name] for name in names if name in keys), None)
    if found is None:
        return None
    numbers = [float(number) for number in found.split()[:count]]
    if len(numbers) < count:
        raise ValueError(f"{names[0]} of {len(numbers)} numbers")
    return numbers


def _true(text: str) -> bool:
    """As MetaIO reads it."""
    return text[:1] in ("T", "t", "1")
