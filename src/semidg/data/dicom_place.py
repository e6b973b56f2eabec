"""Where a DICOM file says that it belongs: whose image it is, of which study and series, and where a slice lies."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from pydicom import Dataset

#: Modalities whose series are volumes even where no position is given: their instances are numbered in order.
TOMOGRAPHY = ("CT", "MR", "PT", "NM")


class Place(NamedTuple):
    """What is empty or None is not said, or not so that it could be used.

    position: of the centre of the first pixel, mm, in the patient's axes (left, back, head). directions: in which the
    columns are counted and in which the rows are, two unit vectors (6 numbers). number: of the instance in its series.
    between: mm from slice to slice.
    """

    patient: str
    study: str
    series: str
    modality: str
    position: tuple[float, ...] | None
    directions: tuple[float, ...] | None
    number: int | None
    between: float | None

    @property
    def is_slice(self) -> bool:
        """Whether a file of one frame is a slice of a series, if there are others of it."""
        return bool(self.series) and (self.position is not None or self.modality in TOMOGRAPHY)


def place_of(dataset: Dataset) -> Place:
    """The place by the header of a file."""
    names = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality")
    patient, study, series, modality = (str(dataset.get(name) or "").strip() for name in names)
    between = _numbers(dataset.get("SpacingBetweenSlices"), 1)
    number = _numbers(dataset.get("InstanceNumber"), 1)
    directions = _numbers(dataset.get("ImageOrientationPatient"), 6)
    if directions is not None and not _are_directions(np.array(directions)):
        directions = None
    return Place(
        patient,
        study,
        series,
        modality,
        _numbers(dataset.get("ImagePositionPatient"), 3),
        directions,
        None if number is None else int(number[0]),
        abs(between[0]) if between and between[0] else None,
    )


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    try:
        found = tuple(float(number) for number in ([value] if count == 1 else value))
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and np.isfinite(found).all() else None


def _are_directions(six: np.ndarray[Any, Any]) -> bool:
    """Whether they are two unit vectors at right angles."""
    columns, rows = six[:3], six[3:]
    return bool(np.allclose([columns @ columns, rows @ rows, columns @ rows], [1, 1, 0], atol=0.01))
