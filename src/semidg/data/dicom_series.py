"""DICOM series of single-file slices: the files of one SeriesInstanceUID in a folder, in order, as one volume.

Slices are ordered by the depth of their ImagePositionPatient along the normal of the image plane. Where no file of the
series gives a direction they follow their InstanceNumber, and of CT, MR, PT and NM also where none gives a position.
Files without a position of another modality (a study of ultrasound pictures) are no volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semidg.data import dicom
from semidg.data.dicom_grey import first_window, modality_values, shows_itself
from semidg.data.grey import stretch, window
from semidg.data.guard import named, refuse_size
from semidg.data.images import is_dicom_name
from semidg.data.paths import natural_key, printable, resolve_inside
from semidg.errors import DataError

#: Steps from slice to slice may differ from their median by this part of it; cosines of directions by this much.
UNEVEN, TURNED = 0.1, 0.01

_MEND = "complete or divide the folder, or convert the series to NIfTI"


class Slice(NamedTuple):
    """A file of one frame. name: relative to the root of the data set."""

    name: str
    header: dicom.Header


class Series(NamedTuple):
    """A volume. files: its slices in order. spacing: mm from row to row and column to column. slice_mm: from slice to
    slice. affine: (4, 4), index of column, row, slice -> mm in NIfTI's axes (right, front, head). None: not known."""

    files: tuple[str, ...]
    width: int
    height: int
    spacing: tuple[float, float] | None
    slice_mm: float | None
    affine: NDArray[np.float64] | None


def in_folder(root: Path, folder: str) -> dict[str, list[Slice]]:
    """SeriesInstanceUID -> slices among the DICOM files of a folder below ``root``, by name.

    What cannot be read, leaves the root or is no slice is passed over."""
    found: dict[str, list[Slice]] = {}
    try:
        names = sorted((path.name for path in (root / folder).iterdir() if is_dicom_name(path.name)), key=natural_key)
    except OSError as error:
        raise DataError(f"{root / folder}: cannot be listed ({error.strerror}); check its permissions") from error
    for name in names:
        relative = (PurePosixPath(folder) / name).as_posix()
        try:
            header = dicom.read_header(resolve_inside(root, relative))
        except DataError:
            continue
        if header.frames == 1 and header.place.is_slice and not name.startswith("."):
            found.setdefault(header.place.series, []).append(Slice(relative, header))
    return found


def arrange(slices: Sequence[Slice], root: Path) -> Series:
    """The volume of two slices or more; raises DataError, beginning with the name of the first file, where they are of
    different sizes or directions, two lie at one place, or one is missing between others."""
    first = slices[0].header
    whole = f"{slices[0].name}: its series of {len(slices)} files is no volume:"
    for name, header in slices:
        if (header.width, header.height) != (first.width, first.height):
            sizes = f"{first.width} x {first.height}, {printable(name)} is {header.width} x {header.height}"
            raise DataError(f"{whole} it is {sizes} pixels; {_MEND}")
        if (header.place.position is None) != (first.place.position is None):
            raise DataError(f"{whole} some of the files give no position, such as {printable(name)}; {_MEND}")
        if not _same_direction(header.place.directions, first.place.directions):
            raise DataError(f"{whole} it and {printable(name)} lie in different directions; {_MEND}")
    refuse_size(root / slices[0].name, first.width, first.height, len(slices), 2)
    directions = first.place.directions
    if first.place.position is None or directions is None:
        ordered = _by_number(slices, whole)
    else:
        normal = np.cross(directions[:3], directions[3:])
        ordered = sorted(slices, key=lambda each: float(np.dot(normal, each.header.place.position or ())))
    files = tuple(each.name for each in ordered)
    if first.place.position is None:
        between = {each.header.place.between for each in slices}
        slice_mm = between.pop() if len(between) == 1 else None
        return Series(files, first.width, first.height, first.spacing, slice_mm, None)
    positions = np.array([each.header.place.position for each in ordered])
    moved = np.diff(positions, axis=0)
    steps = np.linalg.norm(moved, axis=1) if directions is None else moved @ normal
    _require_even(files, steps, whole)
    affine = None
    if directions is not None:
        row_mm, column_mm = first.spacing or (1.0, 1.0)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = np.multiply(directions[:3], column_mm), np.multiply(directions[3:], row_mm)
        affine[:3, 2], affine[:3, 3] = (positions[-1] - positions[0]) / (len(files) - 1), positions[0]
        affine[:2] *= -1  # the first two axes of DICOM run to the left and the back
    return Series(files, first.width, first.height, first.spacing, float(np.median(steps)), affine)


def read_series(root: Path, first: str) -> NDArray[np.uint8]:
    """All slices of the series that begins with the file ``first``, uint8 (D, H, W) or (D, H, W, 3), by ``read_files``.

    Raises DataError that names the file, as where the series begins with another file now.
    """
    header = dicom.read_header(resolve_inside(root, first))
    folder = PurePosixPath(first).parent.as_posix()
    slices = in_folder(root, folder).get(header.place.series, [])
    files = arrange(slices, root).files if len(slices) > 1 else ()
    if files[:1] != (first,):
        raise DataError(f"{root / first}: is not the first slice of its series any more; index the data again")
    return read_files([root / name for name in files])


def read_files(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Slices as they are to be looked at, uint8 (D, H, W) or (D, H, W, 3): by the rules of ``dicom.read_pixels`` as if
    they were the frames of one file. Where their VOI windows differ none is used: brightness would jump from slice to
    slice. Raises DataError that names the file."""
    stored = []
    for path in paths:
        with named(path):
            dataset, pixels = dicom.read_stored(path)
            del dataset.PixelData
            stored.append((dataset, pixels))
    first, shape = stored[0][0], stored[0][1].shape
    kinds = [(str(dataset.PhotometricInterpretation), pixels.shape) for dataset, pixels in stored]
    for path, kind in zip(paths, kinds, strict=True):
        if kind != kinds[0]:
            raise DataError(f"{path}: {kind[0]} of {kind[1][1:]} in a series of {kinds[0][0]} of {shape[1:]}; {_MEND}")
    windows = {first_window(dataset) for dataset, _ in stored}
    tables = any(dataset.get("VOILUTSequence") for dataset, _ in stored)
    shown = len(windows) == 1 and (windows != {None} or tables)
    plain = windows == {None} and all(shows_itself(*pair) for pair in stored)
    if len(shape) == 4 or kinds[0][0] == "PALETTE COLOR" or shown or plain:
        return np.concatenate([dicom.shown(*pair, path) for pair, path in zip(stored, paths, strict=True)])
    with named(paths[0]):
        values = np.concatenate([modality_values(dataset, pixels) for dataset, pixels in stored])
        grey = stretch(values, *window(values, paths[0]))
    return 255 - grey if first.PhotometricInterpretation == "MONOCHROME1" else grey


def _same_direction(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.abs(np.subtract(one, other)).max() <= TURNED)


def _by_number(slices: Sequence[Slice], whole: str) -> list[Slice]:
    numbers = [each.header.place.number for each in slices]
    known = [number for number in numbers if number is not None]
    if len({*known}) < len(numbers):
        raise DataError(f"{whole} no direction or position, and InstanceNumber is missing or stands twice; {_MEND}")
    ordered = sorted(slices, key=lambda each: each.header.place.number or 0)
    for one, other in pairwise(ordered):
        if (other.header.place.number or 0) - (one.header.place.number or 0) != 1:
            names = f"{printable(one.name)} and {printable(other.name)}"
            raise DataError(f"{whole} an InstanceNumber is missing between {names}; {_MEND}")
    return ordered


def _require_even(files: Sequence[str], steps: NDArray[np.float64], whole: str) -> None:
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # the lower median: of two steps the one without a gap
    for number, step in enumerate(steps):
        names = f"{printable(files[number])} and {printable(files[number + 1])}"
        if step <= 0.01 * usual or step < 1e-3:
            raise DataError(f"{whole} {names} lie at one place (a copy, or several times in one series?); {_MEND}")
        if abs(step - usual) > UNEVEN * usual:
            raise DataError(f"{whole} {names} are {step:.4g} mm apart, others {usual:.4g} mm; {_MEND}")
