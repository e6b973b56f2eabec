"""Records of DICOM files brought together: slices of a series as one volume, images of a patient as one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from semidg.data.dicom_place import Place
from semidg.data.dicom_series import Series, arrange, in_folder
from semidg.data.paths import Problems
from semidg.errors import DataError
from semidg.types import Frame, Record


def join_series(root: Path, records: Sequence[Record], places: Mapping[int, Place], problems: Problems) -> list[Record]:
    """The records, those of slices with frame, series and spacing. places: number of a record -> where it belongs.

    A volume holds all files of its series that lie in the folder, whether they are records or not. Records of a series
    that is none are left out, and what is wrong goes to ``problems``, once a series.
    """
    folders: dict[str, dict[str, Series | None]] = {}
    found: list[Record] = []
    for number, record in enumerate(records):
        place = places.get(number)
        if place is None or not place.is_slice:
            found.append(record)
            continue
        folder = PurePosixPath(record.image).parent.as_posix()
        if folder not in folders:
            folders[folder] = _volumes(root, folder, problems)
        if place.series not in folders[folder]:
            found.append(record)
        elif (series := folders[folder][place.series]) is not None:
            spacing = record.spacing or series.spacing
            frame = Frame("z", series.files.index(PurePosixPath(record.image).as_posix()))
            volume = replace(record, spacing=spacing, slice_mm=series.slice_mm, frame=frame, series=series.files[0])
            found.append(volume if volume.group else replace(volume, group=f"series {place.series}"))
    return found


def with_patients(records: Sequence[Record], places: Mapping[int, Place]) -> list[Record]:
    """The records; those without a group get that of their PatientID, else of their StudyInstanceUID.

    A PatientID that all images have is a placeholder and says nothing.
    """
    patients = {place.patient for place in places.values()}
    found = list(records)
    for number, place in places.items():
        patient = f"patient {place.patient}" if place.patient and len(patients) > 1 else ""
        label = patient or (f"study {place.study}" if place.study else "")
        found[number] = replace(found[number], group=found[number].group or label)
    return found


def _volumes(root: Path, folder: str, problems: Problems) -> dict[str, Series | None]:
    """The series of a folder that have several files; None for one that is no volume."""
    found: dict[str, Series | None] = {}
    for uid, slices in in_folder(root, folder).items():
        if len(slices) > 1:
            try:
                found[uid] = arrange(slices, root)
            except DataError as error:
                problems.add("series that is no volume", str(error))
                found[uid] = None
    return found
