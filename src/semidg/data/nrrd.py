"""Headers of NRRD files (.nrrd, .nhdr with a file of voxels), as far as volumes of scanners and the segmentations of
3D Slicer use them. Fields and types: the definition of the format (Teem); what they mean: as ITK reads them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semidg.data.paths import printable
from semidg.data.stored import Stored, beside, refuse_claims, shown
from semidg.data.volume import Header, in_lps
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
_COLOURS = {"rgb-color", "3-color", "vector", "3-vector"}
_SPACE, _TIME = {"domain", "space", "???"}, {"time", "list"}
#: What the axes of a space are multiplied by to be those of LPS; in any other they are taken for LPS, and do not count
#: as stated.
_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
}


def parse(path: Path) -> tuple[Header, Stored]:
    """The header and where the voxels lie; raises DataError for what is no such file of two or three axes in space and
    at most one of times, or a picture of three colours of 8 bits, and for voxels that are text, packed by anything but
    gzip, or lie in another folder or in several files. Sizes are taken for mm."""
    fields, end = _fields(path)
    try:
        shape = [int(size) for size in fields["sizes"].split()]
        kinds = fields["kinds"].lower().split() if "kinds" in fields else ["???"] * len(shape)
        if not 2 <= len(shape) <= 5 or int(fields["dimension"]) != len(shape) or len(kinds) != len(shape):
            raise ValueError(f"its dimensions are {shown(shape)}")  # noqa: TRY301
        colour = shape[0] == 3 and kinds[0] in _COLOURS and math.prod(shape[3:]) == 1
        first = 1 if colour else 0
        rows, sizes = _directions(fields, len(shape), first)
        origin = _vector(fields["spaceorigin"]) if "spaceorigin" in fields else [0.0] * rows.shape[1]
        skip, lines = int(fields.get("byteskip", 0)), int(fields.get("lineskip", 0))
        kind, encoding = " ".join(fields["type"].lower().split()), fields["encoding"].lower()
    except (KeyError, ValueError) as error:
        text = printable(str(error))[:100]
        raise DataError(f"{path}: is damaged, or no NRRD file ({text}); replace or remove the file") from error

    known = np.isfinite(rows[first:]).all(1)
    if (
        min(shape) < 1
        or len(shape) - first > 4
        or not set(kinds[first : first + 3]) <= _SPACE
        or not set(kinds[first + 3 :]) <= _SPACE | _TIME
        or (np.diff(known.astype(int)) > 0).any()  # an axis that lies nowhere before one that does: components
    ):
        raise DataError(
            f"{path}: its axes are {shown(shape)} ({printable(', '.join(kinds))[:80]}); needed are two or three in "
            "space, then at most one of times, and one number a voxel"
        )
    stored = _stored(path, fields, kind, encoding, (skip, lines), tuple(shape), end)
    if colour and stored.dtype != np.uint8:
        raise DataError(f"{path}: holds colours of type {printable(kind)}; save them with 8 bits")

    space = " ".join(fields.get("space", "").lower().split()).removesuffix("-time").removesuffix("t")
    turn = _TO_LPS.get(space)
    to_lps = np.array([*(turn or (1, 1, 1)), 1, 1], np.float64)[: rows.shape[1]]
    header = in_lps(
        shape[first:],
        (rows * to_lps)[first:],
        [float(x * sign) for x, sign in zip(origin, to_lps, strict=False)],
        sizes[first:],
        stated=turn is not None and "spacedirections" in fields,
        colour=colour,
    )
    stored = stored._replace(shape=(3, *header.shape) if colour else header.shape, colours=0 if colour else None)
    refuse_claims(path, stored)
    return header, stored


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields, their names in lower case and without spaces, and how many bytes the header is long. Comments and
    pairs ``key:=value``, which mean what their writer likes, are passed over."""
    with path.open("rb") as file:
        block = file.read(_MAX_HEADER)
    if not block.startswith(b"NRRD"):
        kind = "is not a NRRD file" if block else "is empty (0 bytes)"
        raise DataError(f"{path}: {kind}; replace or remove the file")
    fields: dict[str, str] = {}
    end = 0
    for number, line in enumerate(block.split(b"\n")):
        end += len(line) + 1
        text = line.decode("utf-8", "replace").rstrip()
        if not text:
            return fields, end
        name, colon, value = text.partition(": ")
        if number and colon and not text.startswith("#") and ":=" not in name:
            fields.setdefault(name.replace(" ", "").lower(), value.strip())
    if len(block) == _MAX_HEADER:
        raise DataError(f"{path}: its header is longer than {_MAX_HEADER} bytes; save it without its metadata")
    return fields, len(block)


def _stored(
    path: Path,
    fields: dict[str, str],
    kind: str,
    encoding: str,
    skips: tuple[int, int],
    shape: tuple[int, ...],
    end: int,
) -> Stored:
    """skips: bytes and lines before the voxels. end: of the header, in bytes."""
    name = re.sub(r"_t$| int$", "", "int" if kind == "signed int" else kind.removeprefix("signed "))
    skip, lines = skips
    packed = encoding in ("gzip", "gz")
    if name not in _NUMPY or not (packed or encoding == "raw") or lines or skip < (0 if packed else -1):
        how = f"{printable(kind)}, {printable(encoding)}, behind {lines} lines and {skip} bytes"
        raise DataError(f"{path}: cannot be read as its voxels are stored ({how[:100]}); save it anew, raw or as gzip")
    dtype, endian = np.dtype(_NUMPY[name]), fields.get("endian", "").lower()
    if dtype.itemsize > 1:
        if endian not in ("big", "little"):
            raise DataError(f"{path}: does not say in which order the bytes of a number stand (endian); save it anew")
        dtype = dtype.newbyteorder(">" if endian == "big" else "<")
    other = fields.get("datafile")
    file, start = (path, end) if other is None else (beside(path, other), 0)
    if packed:
        return Stored(file, shape, dtype, start, "gzip", skip)
    if skip == -1:  # the voxels end where the file does
        return Stored(file, shape, dtype, file.stat().st_size - math.prod(shape) * dtype.itemsize)
    return Stored(file, shape, dtype, start + skip)


def _directions(fields: dict[str, str], axes: int, first: int) -> tuple[NDArray[np.float64], list[float]]:
    """(from voxel to voxel, one row an axis; the size of a voxel along each), NaN where that is not known. first: axis
    in space. Raises ValueError where they do not fit."""
    rows, sizes = np.full((axes, 3), np.nan), [np.nan] * axes
    if "spacedirections" in fields:
        given = re.findall(r"none|\([^)]*\)", fields["spacedirections"], re.IGNORECASE)
        found = [None if text.lower() == "none" else _vector(text) for text in given]
        length = max((len(row) for row in found if row is not None), default=3)
        if len(found) != axes or not 2 <= length <= 4:
            raise ValueError(f"{len(found)} space directions")
        rows = np.array([[np.nan] * length if row is None else row for row in found])
        sizes = [float(np.linalg.norm(row)) for row in rows]
    elif "spacings" in fields:
        sizes = [float(size) for size in fields["spacings"].split()]
        if len(sizes) != axes:
            raise ValueError(f"{len(sizes)} spacings")
        for k, size in enumerate(sizes[first : first + 3]):
            rows[first + k] = size * np.eye(3)[k]
    return rows, sizes


def _vector(text: str) -> list[float]:
    """The numbers of ``(1,2,3)``; raises ValueError where they are none."""
    return [float(number) for number in text.strip().strip("()").split(",")]
