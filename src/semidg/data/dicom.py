"""DICOM files (.dcm, .dicom) -> arrays of pixels, by pydicom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian

from semidg.data.guard import DEFLATE_RATIO, MAX_BYTES, named, refuse_size
from semidg.errors import DataError

_MEND = "store it uncompressed (Explicit VR Little Endian), for example with gdcmconv --raw or dcmdjpeg"
_CM = 3  # unit code of an ultrasound region


class Header(NamedTuple):
    """What the header of a file says, checked. frames: 1 for a single image. spacing: mm from row to row and from
    column to column, None if the file does not tell it."""

    width: int
    height: int
    frames: int
    spacing: tuple[float, float] | None


def read_header(path: Path) -> Header:
    """The header, no pixels; raises DataError for a file that is no DICOM image, cannot be decoded here or claims more
    than the limits of ``guard``."""
    with named(path):
        return _checked(path, _dataset(path, stop_before_pixels=True))


def _dataset(path: Path, stop_before_pixels: bool) -> pydicom.Dataset:
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            size = path.stat().st_size
            if size * DEFLATE_RATIO > MAX_BYTES:
                raise DataError(f"{path}: Deflated Explicit VR Little Endian of {size} bytes may not be safe; {_MEND}")
        return pydicom.dcmread(path, stop_before_pixels=stop_before_pixels)
    except InvalidDicomError as error:
        kind = "is empty (0 bytes)" if path.stat().st_size == 0 else "is not a DICOM file (no preamble)"
        raise DataError(f"{path}: {kind}; replace or remove the file") from error


def _checked(path: Path, dataset: pydicom.Dataset) -> Header:
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise DataError(f"{path}: a DICOM file without an image (no Rows and Columns); leave it out of the data set")
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    refuse_size(path, columns, rows, frames, samples * max(1, int(dataset.get("BitsAllocated") or 8) // 8))
    _require_decoder(path, dataset)
    return Header(columns, rows, frames, _spacing(dataset))


def _require_decoder(path: Path, dataset: pydicom.Dataset) -> None:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise DataError(f"{path}: names no transfer syntax; {_MEND}")
    if not syntax.is_compressed or syntax == DeflatedExplicitVRLittleEndian:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DataError(f"{path}: the transfer syntax {syntax.name} cannot be decoded here; {_MEND}")


def _spacing(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """PixelSpacing, that of the shared functional groups, that of the ultrasound regions, else ImagerPixelSpacing."""
    measures = [group.get("PixelMeasuresSequence") for group in dataset.get("SharedFunctionalGroupsSequence") or ()]
    candidates: list[Any] = [dataset.get("PixelSpacing")]
    candidates += [sequence[0].get("PixelSpacing") for sequence in measures if sequence]
    candidates += _regions(dataset)
    candidates.append(dataset.get("ImagerPixelSpacing"))
    for found in candidates:
        try:
            row, column = (float(mm) for mm in found)
        except (TypeError, ValueError):
            continue
        if 0 < row < float("inf") and 0 < column < float("inf"):
            return row, column
    return None


def _regions(dataset: pydicom.Dataset) -> Iterator[tuple[float, float]]:
    """The one spacing of all calibrated ultrasound regions in cm; none where two regions differ."""
    found = {
        (abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10)
        for region in dataset.get("SequenceOfUltrasoundRegions") or ()
        if region.get("PhysicalUnitsXDirection") == _CM and region.get("PhysicalUnitsYDirection") == _CM
    }
    if len(found) == 1:
        yield found.pop()
