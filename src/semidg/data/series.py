"""Records of DICOM files brought together: slices of a series as one volume, images of a patient as one group."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from semidg.data.dicom_place import Place
from semidg.data.dicom_series import Series, arrange, in_folder
from semidg.data.paths import Problems
from semidg.errors import DataError
from semidg.types import Frame, Record


def join_series(
    root: Path,
    records: Sequence[Record],
    places: Mapping[int, Place],
    problems: Problems,
    excluded: Container[str] = (),
) -> list[Record]:
    """The records, those of slices with frame, series and spacing. places: number of a record -> where it belongs.

    A volume holds all files of its series that lie in the folder, whether they are records or not. Records of a series
    that is none are left out, and what is wrong goes to ``problems``, once a series; those that the user leaves out
    (excluded, ids) are passed on. A film is no slice, whatever series its header names.
    """
    folders: dict[str, dict[str, Series | str]] = {}
    found: list[Record] = []
    told: dict[str, None] = {}
    for number, record in enumerate(records):
        place = places.get(number)
        if place is None or not place.is_slice or (record.frame is not None and record.frame.axis == "f"):
            found.append(record)
            continue
        folder = PurePosixPath(record.image).parent.as_posix()
        if folder not in folders:
            folders[folder] = _volumes(root, folder)
        series = folders[folder].get(place.series)
        name = PurePosixPath(record.image).as_posix()
        if series is None or (record.id in excluded and (isinstance(series, str) or name not in series.files)):
            found.append(record)
        elif isinstance(series, str):
            told.setdefault(series, None)
        elif name not in series.files:
            text = f"{root / name}: is not among the files of its series in that folder (a hidden file?); rename it"
            problems.add("file that cannot be used", text)
        else:
            spacing, slice_mm = record.spacing or series.spacing, record.slice_mm or series.slice_mm
            frame = Frame("z", series.files.index(name))
            volume = replace(record, spacing=spacing, slice_mm=slice_mm, frame=frame, series=series.files[0])
            found.append(volume if volume.group else replace(volume, group=f"series {place.series}"))
    for text in told:
        problems.add("series that is no volume", text)
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


def _volumes(root: Path, folder: str) -> dict[str, Series | str]:
    """The series of a folder that have several files; of one that is no volume, why."""
    found: dict[str, Series | str] = {}
    for uid, slices in in_folder(root, folder).items():
        if len(slices) > 1:
            try:
                found[uid] = arrange(slices, root)
            except DataError as error:
                found[uid] = str(error)
    return found
