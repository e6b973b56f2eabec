"""The numbers that lie behind the header of a volume file, plain or packed: read only as far as the header says."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from semidg.data.guard import DEFLATE_RATIO, refuse_size
from semidg.data.paths import printable, resolve_inside
from semidg.errors import DataError

_BLOCK = 2**20


class Stored(NamedTuple):
    """Where voxels lie: in ``file`` from ``offset`` bytes on, packed or not; of what is unpacked, ``skip`` bytes come
    before them. shape: as they are stored, the first axis fastest. colours: which axis is that of red, green and blue,
    if one is."""

    file: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    packing: Literal["", "gzip", "zlib"] = ""
    skip: int = 0
    colours: int | None = None


def refuse_claims(path: Path, stored: Stored) -> None:
    """Raise DataError, before a voxel is read, where the header ``path`` claims more than the limits of ``guard``,
    voxels that are no plain numbers, or more bytes than there can be in the file."""
    if stored.dtype.kind not in "uif":
        kind = stored.dtype.name
        raise DataError(f"{path}: holds {kind} voxels (colour or complex); save it with one number a voxel")
    axes = [size for axis, size in enumerate(stored.shape) if axis != stored.colours]
    refuse_size(path, axes[0], axes[1], math.prod(axes[2:]), stored.dtype.itemsize)
    size = stored.file.stat().st_size
    needed = math.prod(stored.shape) * stored.dtype.itemsize + stored.skip
    there = (size - stored.offset) * (DEFLATE_RATIO if stored.packing else 1)
    if stored.offset < 0 or needed > there:
        raise truncated(stored.file, f"of {needed + stored.offset} bytes claimed the file has {size}")


def read_stored(stored: Stored) -> NDArray[Any]:
    """The voxels (X, Y, ...) in Fortran order, colours as the last axis if there are some.

    Raises DataError for a file that ends before its last voxel, and what the unpacking raises for a damaged one, wrong
    checksums among it."""
    voxels = np.empty(math.prod(stored.shape), stored.dtype)
    view = memoryview(cast(Any, voxels.view(np.uint8)))
    with closing(stored.file.open("rb")) as file:
        file.seek(stored.offset)
        done = _inflate(file, view) if stored.packing == "zlib" else _fill(file, view, stored)
    if done < 0:
        raise truncated(stored.file, "its checksum is not there")
    if done < len(view):
        raise truncated(stored.file, f"{done} of {len(view)} bytes of voxels are there")
    found = voxels.reshape(stored.shape, order="F")
    return found if stored.colours is None else np.moveaxis(found, stored.colours, -1)


def beside(path: Path, name: str) -> Path:
    """The file of the voxels that the header ``path`` names, in its folder or below it; DataError for any other, and
    for several files in place of one."""
    if name.startswith("LIST") or "%" in name:
        raise DataError(f"{path}: its voxels lie in several files; save it as one file")
    try:
        file = resolve_inside(path.parent, name)
    except DataError as error:
        raise DataError(
            f"{path}: names {printable(name)!r} as the file of its voxels; it must lie in the folder of its header"
        ) from error
    if not file.is_file():
        raise DataError(f"{path}: the file of its voxels {printable(name)!r} does not exist; restore it")
    return file


def shown(dims: Sequence[int]) -> str:
    """Dimensions as text, however many there are."""
    return " x ".join(map(str, dims[:8])) + (" x ..." if len(dims) > 8 else "")


def truncated(path: Path, what: str) -> DataError:
    """The error for a file that is too short."""
    return DataError(f"{path}: truncated: {what}; replace or remove it")


def _fill(file: IO[bytes], view: memoryview, stored: Stored) -> int:
    """Fill ``view`` from a file that is plain or gzip from here on; returns the number of bytes that were there."""
    with closing(cast(IO[bytes], gzip.GzipFile(fileobj=file)) if stored.packing else file) as stream:
        stream.seek(stored.offset if not stored.packing else stored.skip)
        done = 0
        while done < len(view) and (count := stream.readinto(view[done:])):  # type: ignore[attr-defined]
            done += count
        stream.read(1)  # the checksum of a packed file stands after its last byte
    return done


def _inflate(file: IO[bytes], view: memoryview) -> int:
    """The same from a file that is a zlib stream from here on; -1 where the stream has no end."""
    inflate, done, block = zlib.decompressobj(), 0, b""
    while done < len(view) and (block := inflate.unconsumed_tail or file.read(_BLOCK)):
        some = inflate.decompress(block, len(view) - done)
        view[done : done + len(some)] = some
        done += len(some)
    if done == len(view) and not inflate.eof:  # the checksum stands after the last byte
        surplus = inflate.decompress(inflate.unconsumed_tail + file.read(_BLOCK), 1)
        if not surplus and not inflate.eof:
            return -1
    return done
