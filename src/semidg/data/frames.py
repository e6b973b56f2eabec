"""The planes of a file, from its header: slices of a volume, frames of a film, or one plain image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from semidg.data import dicom, nifti, pages
from semidg.data.images import is_dicom_name, is_nifti_name
from semidg.errors import DataError
from semidg.types import Frame, Record

#: Axis of a NIfTI volume across which its slices lie; auto: that of the largest voxel spacing.
Axis = Literal["auto", "x", "y", "z"]


class Planes(NamedTuple):
    """What a file holds. frames: its planes in order, volume by volume; None for a plain image. width, height: of a
    plane, in pixels. spacing: mm from row to row and from column to column. slice_mm: mm from one slice to the next.
    orientation: of the stored axes of a NIfTI file, such as ``LPS``. What is not known is None."""

    frames: tuple[Frame, ...] | None
    width: int
    height: int
    spacing: tuple[float, float] | None
    slice_mm: float | None
    orientation: str | None = None


def planes(path: Path, axis: Axis = "auto") -> Planes:
    """The planes of an image file of any format; no pixel is decoded.

    axis: see ``nifti.slice_axis``; only a NIfTI volume has one. Raises DataError that names the file and the mend.
    """
    if is_nifti_name(path.name):
        return _nifti(path, axis)
    if is_dicom_name(path.name):
        width, height, count, spacing = dicom.read_header(path)
    else:
        (width, height, count), spacing = pages.read_header(path), None
    frames = tuple(Frame("f", number) for number in range(count)) if count > 1 else None
    return Planes(frames, width, height, spacing, None)


def expand(record: Record, planes: Planes, times: Sequence[int] | None = None) -> list[Record]:
    """One record a plane, ``ID/z017`` or ``ID/t03z017``, all of one group; a plain file gives the record itself.

    The numbers in the ids have as many digits as the last one needs, so that ids sort as the planes do. A spacing that
    the record has (spacing.csv) wins over that of the file. times: which times of a series are meant, by default all.
    Raises DataError on a time that the file does not have.
    """
    known = replace(record, spacing=record.spacing or planes.spacing, width=planes.width, height=planes.height)
    if planes.frames is None:
        return [known]
    group, frames = record.group or record.id, planes.frames
    if times is not None:
        missing = set(times) - {frame.time or 0 for frame in frames}
        if missing:
            raise DataError(f"{record.image}: has no time {min(missing)}; times are counted from 0")
        frames = tuple(frame for frame in frames if (frame.time or 0) in times)
    digits = len(str(max(frame.number for frame in planes.frames)))
    time_digits = len(str(max(frame.time or 0 for frame in planes.frames)))
    found = []
    for frame in frames:
        time = "" if frame.time is None else f"t{frame.time:0{time_digits}}"
        name = f"{record.id}/{time}{frame.axis}{frame.number:0{digits}}"
        found.append(replace(known, id=name, group=group, frame=frame, slice_mm=planes.slice_mm))
    return found


def _nifti(path: Path, axis: Axis) -> Planes:
    header = nifti.read_header(path)
    shape, mm = header.shape, header.spacing
    if len(shape) == 2:
        frames, across, columns, rows = None, None, 0, 1
    else:
        across = nifti.slice_axis(header, axis)
        columns, rows = (number for number in range(3) if number != across)
        times = range(shape[3]) if len(shape) == 4 else (None,)
        letter: Literal["x", "y", "z"] = ("x", "y", "z")[across]
        frames = tuple(Frame(letter, number, time) for time in times for number in range(shape[across]))
    row_mm, column_mm = mm[rows], mm[columns]
    spacing = None if row_mm is None or column_mm is None else (row_mm, column_mm)
    return Planes(
        frames, shape[columns], shape[rows], spacing, None if across is None else mm[across], header.orientation
    )
