"""DICOM files (.dcm, .dicom) -> arrays of pixels, by pydicom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from semidg.data.dicom_grey import to_grey
from semidg.data.dicom_place import Place, place_of
from semidg.data.grey import stretch
from semidg.data.guard import DEFLATE_RATIO, MAX_BYTES, named, refuse_size
from semidg.data.images import colour_numbers, one_channel, unnamed_colours
from semidg.data.masks import Coding, labels
from semidg.errors import DataError

_MEND = "store it uncompressed (Explicit VR Little Endian), for example with gdcmconv --raw or dcmdjpeg"
_CM = 3  # unit code of an ultrasound region


class Header(NamedTuple):
    """What the header of a file says, checked. frames: 1 for a single image. spacing: mm from row to row and from
    column to column, None if the file does not tell it. place: whose image it is, and where in its series."""

    width: int
    height: int
    frames: int
    spacing: tuple[float, float] | None
    place: Place


def read_header(path: Path) -> Header:
    """The header, no pixels; raises DataError for a file that is no DICOM image, cannot be decoded here or claims more
    than the limits of ``guard``."""
    with named(path):
        return _checked(path, _dataset(path, stop_before_pixels=True))


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """All frames as they are to be looked at: uint8 (F, H, W) grey or (F, H, W, 3) colour.

    Colour: palettes are looked up, YBR becomes RGB, deeper than 8 bits is divided by the largest number of its depth.
    Grey: the rescaling of the file, then its first VOI window, else its VOI table; without either, 8-bit values stay
    as they are and deeper ones go from percentile 0.5 to 99.5 of the whole file. MONOCHROME1 is turned over.
    Raises DataError that names the file and the mend.
    """
    with named(path):
        return shown(*read_stored(path), path)


def shown(dataset: pydicom.Dataset, stack: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """The frames of ``read_stored`` by the rules of ``read_pixels``."""
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        stack = np.stack([apply_color_lut(frame, dataset) for frame in stack])
        bits = 8 * stack.dtype.itemsize
    else:
        bits = int(dataset.BitsStored)
    if stack.ndim == 4:
        return stack.astype(np.uint8) if bits == 8 else stretch(stack, 0, 2**bits - 1)
    grey = to_grey(dataset, stack, path)
    return 255 - grey if kind == "MONOCHROME1" else grey


def read_labels(path: Path, coding: Coding) -> NDArray[np.uint8]:
    """Class numbers of all frames (F, H, W), by the rules of ``masks`` for the stored numbers of the whole file: in a
    palette file the numbers of its entries, in a colour file (two classes, or rules of colours) a number a colour."""
    with named(path):
        _, stack = read_stored(path)
        if stack.ndim == 4:
            if coding.numbers and not coding.colours and (stack != stack[..., :1]).any():
                raise unnamed_colours(path, coding.classes)
            stack = np.stack([colour_numbers(frame) if coding.colours else one_channel(frame) for frame in stack])
        return labels(stack, path, coding)


def read_stored(path: Path) -> tuple[pydicom.Dataset, NDArray[Any]]:
    """The data set and its frames as they are stored, decoded: (F, H, W) or (F, H, W, 3)."""
    dataset = _dataset(path, stop_before_pixels=False)
    header = _checked(path, dataset)
    stack: NDArray[Any] | None = None
    for number in range(header.frames):  # one at a time: a claimed number costs no memory
        frame = _frame(path, dataset, number)
        if frame.shape not in ((header.height, header.width), (header.height, header.width, 3)):
            raise DataError(f"{path}: decodes to the shape {frame.shape}, not to its Rows and Columns; replace it")
        if stack is None:
            stack = np.empty((header.frames, *frame.shape), frame.dtype)
        stack[number] = frame
    assert stack is not None  # _checked wants a frame at least
    return dataset, stack


def _frame(path: Path, dataset: pydicom.Dataset, number: int) -> NDArray[Any]:
    try:
        return pixel_array(dataset, index=number)
    except RuntimeError as error:  # what pydicom raises if all its decoders give up
        syntax = dataset.file_meta.TransferSyntaxUID
        if not syntax.is_encapsulated:
            raise
        text = " ".join(str(error).split()).rpartition("plugins: ")[2][:120]
        raise DataError(
            f"{path}: damaged, or of a kind of {syntax.name} that cannot be decoded here ({text}); {_MEND}"
        ) from error


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
    return Header(columns, rows, frames, _spacing(dataset), place_of(dataset))


def _require_decoder(path: Path, dataset: pydicom.Dataset) -> None:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise DataError(f"{path}: names no transfer syntax; {_MEND}")
    if not syntax.is_compressed or syntax == DeflatedExplicitVRLittleEndian:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:  # by which get_decoder says that it knows no such syntax
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
