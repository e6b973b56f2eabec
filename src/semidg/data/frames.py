"""The planes of a file, from its header: slices of a volume, frames of a film, or one plain image."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from semidg.data import dicom, pages, volume, voxels
from semidg.data.dicom_place import Place
from semidg.data.images import is_dicom_name, is_volume_name
from semidg.data.paths import Problems, resolve_inside
from semidg.data.series import join_series, with_patients
from semidg.errors import DataError
from semidg.types import Frame, Record

#: Axis of a volume across which its slices lie; auto: that of the largest voxel spacing.
Axis = Literal["auto", "x", "y", "z"]

#: stored: slices of a volume as they are stored; patient: of the volume turned to LPI, see ``volume``.
Orientation = Literal["stored", "patient"]


_AXES: tuple[Literal["x"], Literal["y"], Literal["z"]] = ("x", "y", "z")
_TURNED: tuple[Literal["l"], Literal["p"], Literal["i"]] = ("l", "p", "i")


class Planes(NamedTuple):
    """What a file holds. frames: its planes in order, volume by volume; None for a plain image. width, height: of a
    plane, in pixels. spacing: mm from row to row and from column to column. slice_mm: mm from one slice to the next.
    orientation: of the stored axes of a volume, such as ``LPS``. place: of a DICOM file. None: not known."""

    frames: tuple[Frame, ...] | None
    width: int
    height: int
    spacing: tuple[float, float] | None
    slice_mm: float | None
    orientation: str | None = None
    place: Place | None = None


def planes(path: Path, axis: Axis = "auto", orientation: Orientation = "stored", mask: bool = False) -> Planes:
    """The planes of an image or mask file of any format; no pixel is decoded.

    axis, orientation: see ``volume``; only a volume has them. Raises DataError that names the file and the mend.
    """
    if is_volume_name(path.name):
        return _volume(path, axis, orientation, colours=not mask)
    if is_dicom_name(path.name):
        width, height, count, spacing, place = dicom.read_header(path)
    else:
        (width, height, count), spacing, place = pages.read_header(path), None, None
    frames = tuple(Frame("f", number) for number in range(count)) if count > 1 else None
    return Planes(frames, width, height, spacing, None, None, place if place and any(place) else None)


def expand(record: Record, planes: Planes, times: Sequence[int] | None = None) -> list[Record]:
    """One record a plane, ``ID/z017`` or ``ID/t03z017``; a plain file gives the record itself. The group stays: that
    planes of a file belong together is seen from their file (``duplicates.twin_groups``).

    The numbers in the ids have as many digits as the last one needs, so that ids sort as the planes do. A spacing that
    the record has (spacing.csv, a table) wins over that of the file. times: which times of a series are meant, by
    default all. Raises DataError on a time that the file does not have.
    """
    known = replace(record, spacing=record.spacing or planes.spacing, width=planes.width, height=planes.height)
    if planes.frames is None:
        return [known]
    frames = planes.frames
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
        found.append(replace(known, id=name, frame=frame, slice_mm=record.slice_mm or planes.slice_mm))
    return found


def in_planes(
    root: Path,
    records: Sequence[Record],
    problems: Problems,
    axis: Axis = "auto",
    orientation: Orientation = "stored",
    patients: bool = False,
    excluded: Container[str] = (),
) -> list[Record]:
    """The records of a layout, those of a file that may hold several planes expanded by its header, and those of slices
    of a DICOM series as planes of one volume. patients: DICOM headers say which images are of one patient.

    The masks of such an image must hold the same planes, in volumes that are stored in the same orientation. What
    cannot be read or does not fit goes to ``problems`` and is left out. A record that has a frame already stays one
    record and gets what it lacks of spacing; one that has a size already is left as it is. A file that cannot be read
    or does not fit, and which the user leaves out (excluded, ids), is passed on as one record without a problem.
    """
    found: list[Record] = []
    places: dict[int, Place] = {}
    unlike: dict[tuple[str, str, Axis, Orientation], str | None] = {}
    for record in records:
        if record.width or not any(map(may_hold_planes, (record.image, *record.masks))):
            found.append(record)
            continue
        try:
            how = _way(record.frame) or (axis, orientation)
            whole = planes(resolve_inside(root, record.image), *how)
            wrong: dict[str, str] = {}  # line -> mask
            of_series = record.frame is not None and whole.frames is None  # a slice in a file of its own, by a table
            for mask in () if of_series else record.masks:
                pair = (record.image, mask, *how)
                if pair not in unlike:
                    unlike[pair] = _unlike(root, record.image, whole, mask, of_frame=record.frame is not None)
                wrong |= {line: mask} if (line := unlike[pair]) else {}
        except DataError as error:
            if record.id in excluded:
                found.append(record)
            else:
                problems.add("file that cannot be used", str(error))
            continue
        if wrong and record.id in excluded:
            found.append(record)
            continue
        for line, mask in wrong.items():
            problems.add("size of image and mask differ", line, mask)
        if not wrong and record.frame is not None:
            places |= {len(found): whole.place} if whole.place else {}
            spacing, slice_mm = record.spacing or whole.spacing, record.slice_mm or whole.slice_mm
            found.append(replace(record, spacing=spacing, slice_mm=slice_mm))
        elif not wrong:
            planes_of = expand(record, whole)
            places |= {len(found) + k: whole.place for k in range(len(planes_of)) if whole.place}
            found += planes_of
    if patients:
        found = with_patients(found, places)
    return join_series(root, found, places, problems, excluded) if places else found


def may_hold_planes(name: str) -> bool:
    """Whether a file of this ending can hold several planes; else it need not be opened to know."""
    return is_volume_name(name) or is_dicom_name(name) or name.lower().endswith((".tif", ".tiff"))


def _unlike(root: Path, image: str, whole: Planes, mask: str, *, of_frame: bool) -> str | None:
    """What is different in the planes of a mask; None if nothing is. of_frame: one volume is the mask of any time."""
    way = _way(whole.frames[0] if whole.frames else None) or ("auto", "stored")
    of_mask = planes(resolve_inside(root, mask), *way, mask=True)
    if (_one_time(of_mask)[:3] != _one_time(whole)[:3]) if of_frame else (of_mask[:3] != whole[:3]):
        return f"{image} is {_size_text(whole)}, {mask} is {_size_text(of_mask)}"
    if whole.orientation and of_mask.orientation and whole.orientation != of_mask.orientation:
        stored = f"{image} is stored {whole.orientation}, {mask} {of_mask.orientation}"
        mend = "save the mask with the voxel order and the affine of its image"
        return f"{stored}; {mend}, or set data.orientation to patient if both affines are right"
    return None


def _one_time(found: Planes) -> Planes:
    frames = found.frames and tuple(dict.fromkeys(frame._replace(time=None) for frame in found.frames))
    return found._replace(frames=frames)


def _way(frame: Frame | None) -> tuple[Axis, Orientation] | None:
    """How a volume is cut where a frame of it is given; None where there is none."""
    if frame is None or frame.across < 0:
        return None
    return _AXES[frame.across], "patient" if frame.turned else "stored"


def _size_text(found: Planes) -> str:
    if found.frames is None:
        return f"{found.width} x {found.height}"
    times = {frame.time for frame in found.frames}
    series = f" at {len(times)} times" if len(times) > 1 else ""
    return f"{found.width} x {found.height} in {len(found.frames) // len(times)} planes{series}"


def _volume(path: Path, axis: Axis, orientation: Orientation, *, colours: bool) -> Planes:
    header = voxels.read_header(path, colours)
    turned = orientation == "patient" and len(header.shape) > 2
    if turned:
        header = volume.in_patient_axes(header, path)
    shape, mm = header.shape, header.spacing
    if len(shape) == 2:
        frames, across, columns, rows = None, None, 0, 1
    else:
        across = volume.slice_axis(header, axis)
        columns, rows = (number for number in range(3) if number != across)
        times = range(shape[3]) if len(shape) == 4 else (None,)
        letter = _TURNED[across] if turned else _AXES[across]
        frames = tuple(Frame(letter, number, time) for time in times for number in range(shape[across]))
    row_mm, column_mm = mm[rows], mm[columns]
    spacing = None if row_mm is None or column_mm is None else (row_mm, column_mm)
    return Planes(
        frames, shape[columns], shape[rows], spacing, None if across is None else mm[across], header.orientation
    )
