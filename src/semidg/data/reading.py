"""The image and the mask of a Record -> arrays: the one way from a record to its pixels.

A file of several planes is decoded as a whole, and once for all of its records that are read one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semidg.data import dicom, dicom_series, pages, volume, voxels
from semidg.data.images import is_dicom_name, is_volume_name, read_image, read_mask
from semidg.data.masks import BINARY, Coding, majority, unite
from semidg.data.paths import resolve_inside
from semidg.data.store import Decoded, Store
from semidg.errors import DataError
from semidg.types import Frame, Record

_store = Store(2**28)  # 256 MiB, and always the files of one record


def coding_of(record: Record, classes: int) -> Coding:
    """How the mask files of a record are read."""
    return Coding(classes, record.ignore, record.mask_values)


def record_image(root: Path, record: Record, channels: int) -> NDArray[np.uint8]:
    """The image as uint8 (H, W, channels), ``channels`` 1 or 3; raises DataError that names the file."""
    if record.series and record.frame is not None:
        return in_channels(_slice(root, record.series, record.frame.number), channels)
    return plane_image(resolve_inside(root, record.image), record.frame, channels, 1 + len(record.masks))


def record_mask(root: Path, record: Record, classes: int = 2) -> NDArray[np.uint8]:
    """The mask as uint8 (H, W) of class numbers: its files united, or with ``vote`` what most of them say;
    IGNORE_INDEX where they hold the record's ``ignore``, and by its ``mask_values`` if it has some.

    Raises DataError that names the file.
    """
    paths = [resolve_inside(root, mask) for mask in record.masks]
    if not paths:
        raise DataError(f"{record.image}: its mask was asked for, but it has none")
    frame = None if record.series else record.frame
    masks = [plane_mask(path, frame, coding_of(record, classes), 1 + len(paths)) for path in paths]
    return majority(masks, paths, classes) if record.vote else unite(masks, paths)


def plane_image(path: Path, frame: Frame | None, channels: int, keep: int = 2) -> NDArray[np.uint8]:
    """A plain file, or one plane of a file that holds several, as uint8 (H, W, channels).

    keep: decoded files that stay at hand whatever their size. Raises DataError that names the file.
    """
    if channels not in (1, 3):
        raise DataError(f"{path}: cannot be read with {channels} channels; set data.channels to 1 or 3")
    if frame is None and _by_pillow(path):
        return read_image(path, channels)
    pixels = _plane(path, frame, None, keep)
    return in_channels(pixels, channels)


def in_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Grey (H, W) or colour (H, W, 3) as (H, W, channels), 1 or 3."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], channels, axis=2)
    return np.array(pixels) if channels == 3 else np.array(Image.fromarray(pixels).convert("L"))[..., None]


def plane_mask(path: Path, frame: Frame | None, coding: Coding = BINARY, keep: int = 2) -> NDArray[np.uint8]:
    """The class numbers, uint8 (H, W), of one mask file, of the plane that is meant if it holds several.

    The mask of one volume is also that of any time of a series. Raises DataError that names the file.
    """
    if frame is None and _by_pillow(path):
        return read_mask([path], coding)
    return _plane(path, frame, coding, keep)


def hold(root: Path, record: Record, classes: int) -> list[Decoded]:
    """The decoded files of a record that is a plane of them: while the list is held, all their planes are at hand,
    whatever other threads read. A file that cannot be read is no error here; reading a plane of it is."""
    held: list[Decoded] = []
    coding = coding_of(record, classes)
    if record.series:
        with suppress(DataError):
            held.append(_series(root, record.series))
    elif record.frame is not None:
        for relative, kind in ((record.image, None), *((mask, coding) for mask in record.masks)):
            with suppress(DataError):
                held.append(_decoded(resolve_inside(root, relative), kind, 1))
    return held


def by_file(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records in order, those that follow one another and are planes of the same files in one list."""
    for _, unit in groupby(records, _file_of):
        yield list(unit)


def _file_of(record: Record) -> tuple[object, ...]:
    """What is the same for all planes of one file, and for slices of one series."""
    return (
        (record.series,) if record.series else (record.id if record.frame is None else None, record.image, record.masks)
    )


def _slice(root: Path, first: str, number: int) -> NDArray[np.uint8]:
    stack = _series(root, first).pixels
    if number >= len(stack):
        raise DataError(f"{root / first}: its series has {len(stack)} slices, none {number}; index the data again")
    found: NDArray[np.uint8] = stack[number]
    return found


def _series(root: Path, first: str) -> Decoded:
    return _store.get(resolve_inside(root, first), "series", lambda: dicom_series.read_series(root, first))


def _by_pillow(path: Path) -> bool:
    return not is_volume_name(path.name) and not is_dicom_name(path.name)


def _plane(path: Path, frame: Frame | None, coding: Coding | None, keep: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) of the image, or with a coding of the mask."""
    pixels = _read(path, coding) if frame is None else _decoded(path, coding, keep).pixels
    if is_volume_name(path.name):
        stack = pixels
        if frame is not None and frame.turned and pixels.ndim > 2:
            stack = volume.turned(pixels, voxels.read_header(path), path)
        if frame is None:
            fits = stack.ndim == 2 or (coding is None and voxels.read_header(path).colour)
        else:
            fits = frame.across >= 0 and stack.ndim >= 3 and frame.number < stack.shape[frame.across]
            fits = fits and (stack.ndim == 3 or (frame.time is not None and frame.time < stack.shape[3]))
        if fits:
            return np.ascontiguousarray(volume.plane(stack, frame))
        count = f"{' x '.join(map(str, pixels.shape))} voxels"
    else:
        number = 0 if frame is None else frame.number
        if number < len(pixels) and (len(pixels) == 1 if frame is None else frame.axis == "f"):
            plane: NDArray[np.uint8] = pixels[number]
            return plane
        count = f"{len(pixels)} frame(s)"
    meant = "one plain image" if frame is None else f"the plane {frame}"
    raise DataError(f"{path}: holds {count}, but {meant} is meant; index the data again")


def _decoded(path: Path, coding: Coding | None, keep: int) -> Decoded:
    return _store.get(path, coding, lambda: _read(path, coding), keep)


def _read(path: Path, coding: Coding | None) -> NDArray[np.uint8]:
    """All planes of the image (coding is None) or of the mask."""
    if is_volume_name(path.name):
        return voxels.read_volume(path) if coding is None else voxels.read_labels(path, coding)
    if is_dicom_name(path.name):
        return dicom.read_pixels(path) if coding is None else dicom.read_labels(path, coding)
    return pages.read_pages(path) if coding is None else pages.read_labels(path, coding)
