"""What is scored as one: an image by itself, or all planes of a volume together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from semidg.data.paths import printable
from semidg.errors import DataError
from semidg.types import Record

#: Columns of cases.csv that hold text, though it may look like a number.
TEXTS = ("id", "domain", "class", "group")


@dataclass(frozen=True)
class Case:
    """A row of cases.csv. planes: one record, or those of a volume in the order of their numbers."""

    id: str
    planes: tuple[Record, ...]

    @property
    def is_volume(self) -> bool:
        """Whether the case is scored in three dimensions; a single plane of a volume is scored as an image."""
        return len(self.planes) > 1

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Distance in mm of two pixels on each axis, (slice, row, column) of a volume; None if not known."""
        first = self.planes[0]
        if not self.is_volume or first.spacing is None:
            return first.spacing
        return None if first.slice_mm is None else (first.slice_mm, *first.spacing)

    @property
    def domain(self) -> str:
        """Of most planes; styles derived from the looks of each plane may differ within a volume."""
        return Counter(plane.domain for plane in self.planes).most_common(1)[0][0]

    @property
    def class_name(self) -> str:
        """Of most planes."""
        return Counter(plane.class_name for plane in self.planes).most_common(1)[0][0]

    @property
    def group(self) -> str:
        """Of the first plane: all planes of a file are in one group."""
        return self.planes[0].group

    def stack(self, planes: Sequence[npt.NDArray[np.uint8]], missing: int) -> npt.NDArray[np.uint8]:
        """The planes as one array, (H, W) of an image and (D, H, W) of a volume, each at the place of its number.

        A plane between two that are there, but not there itself, is full of ``missing``: so distances across it are
        what they are. Raises DataError where planes differ in size.
        """
        if not self.is_volume:
            return planes[0]
        numbers = [plane.frame.number for plane in self.planes if plane.frame is not None]
        sizes = {
            f"{plane.shape[1]} x {plane.shape[0]}": record.id for record, plane in zip(self.planes, planes, strict=True)
        }
        if len(sizes) > 1:
            found = ", ".join(f"{printable(name)} {size}" for size, name in sizes.items())
            raise DataError(f"{printable(self.id)}: its planes differ in size ({found} pixels); index the data again")
        result = np.full((numbers[-1] - numbers[0] + 1, *planes[0].shape), missing, np.uint8)
        for number, plane in zip(numbers, planes, strict=True):
            result[number - numbers[0]] = plane
        return result


def cases_of(records: Sequence[Record]) -> list[Case]:
    """The records as cases, in the order in which each first appears.

    The id of a volume is what the ids of its planes have in common: without the frame at the end and what sets it
    apart, and with the time where there is one; of a DICOM series the folder in the id of its first slice. Where that
    names two cases, both take the name of their volume. Raises DataError for a plane that stands twice.
    """
    planes: dict[str, list[Record]] = {}
    for record in records:
        planes.setdefault(record.volume or f"\0{record.id}", []).append(record)
    found = [(_common_id(of[0]), tuple(sorted(of, key=_number))) for of in planes.values()]
    for _, of in found:
        for one, other in pairwise(of):
            if _number(one) == _number(other):
                raise DataError(
                    f"{printable(one.id)} and {printable(other.id)} are both plane {one.frame} of "
                    f"{printable(one.image)}; leave one out"
                )
    names = Counter(name for name, _ in found)
    return [Case(name if names[name] == 1 else of[0].volume or name, of) for name, of in found]


def _number(record: Record) -> int:
    return 0 if record.frame is None else record.frame.number


def _common_id(record: Record) -> str:
    frame = record.frame
    if record.volume is None or frame is None:
        return record.id
    if record.series:
        return record.id.rpartition("/")[0] or record.volume
    spelled = f"{frame.axis}0*{frame.number}"
    if frame.time is not None:
        spelled = f"(?:t0*{frame.time}{spelled}|{spelled}t0*{frame.time})"
    found = re.fullmatch(rf"(.+?)[ :#_\-/.@]*(?<![a-z0-9]){spelled}", record.id, re.DOTALL)
    if found is None:
        return record.volume
    return found[1] if frame.time is None else f"{found[1]}/t{frame.time}"
