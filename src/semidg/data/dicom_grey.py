"""Stored numbers of a grey DICOM image -> uint8 as it is to be looked at (PS3.3 C.11.1 modality, C.11.2 VOI)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from semidg.data.grey import stretch, window


class Window(NamedTuple):
    """A VOI window. function: LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str


def to_grey(dataset: Dataset, stack: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Stored numbers (F, H, W) -> uint8 of the same shape, by the rules in ``dicom.read_pixels``, not turned over.

    Raises DataError that names the file on NaN.
    """
    rescales = [_rescale(dataset, number) for number in range(len(stack))]
    table = bool(dataset.get("ModalityLUTSequence"))
    voi = first_window(dataset)
    if voi is not None or dataset.get("VOILUTSequence"):
        out = np.empty(stack.shape, np.uint8)
        for number, frame in enumerate(stack):
            values = apply_modality_lut(frame, dataset) if table else _affine(frame, *rescales[number])
            out[number] = _by_table(values, dataset) if voi is None else windowed(values, voi)
        return out
    if table:
        stack = np.stack([apply_modality_lut(frame, dataset) for frame in stack])
    elif len(set(rescales)) > 1:
        stack = np.stack(
            [_affine(frame, *pair).astype(np.float32) for frame, pair in zip(stack, rescales, strict=True)]
        )
    elif shows_itself(dataset, stack):
        return stack
    # the percentiles move along with a rescaling that is the same for all frames, so only its sign matters
    turned = not table and len(set(rescales)) == 1 and rescales[0][0] < 0
    return stretch(stack, *window(stack, path), turned=turned)


def shows_itself(dataset: Dataset, stack: NDArray[Any]) -> bool:
    """Whether stored numbers (F, ...) without a window are grey values as they are: 8 bits, no table, no rescaling."""
    rescaled = any(_rescale(dataset, number) != (1, 0) for number in range(len(stack)))
    return (
        stack.dtype == np.uint8 and dataset.BitsStored == 8 and not rescaled and not dataset.get("ModalityLUTSequence")
    )


def modality_values(dataset: Dataset, stack: NDArray[Any]) -> NDArray[Any]:
    """Stored numbers (F, H, W) -> the values that they stand for, by the modality table or the rescaling of each frame:
    float32 but where the stored numbers are the values."""
    if dataset.get("ModalityLUTSequence"):
        return np.stack([np.asarray(apply_modality_lut(frame, dataset), np.float32) for frame in stack])
    rescales = [_rescale(dataset, number) for number in range(len(stack))]
    if all(pair == (1, 0) for pair in rescales):
        return stack
    return np.stack([_affine(frame, *pair).astype(np.float32) for frame, pair in zip(stack, rescales, strict=True)])


def windowed(values: NDArray[Any], voi: Window) -> NDArray[np.uint8]:
    """Values through a VOI window, 0 to 255. LINEAR: 255 ((v - (c - 0.5)) / (w - 1) + 0.5); LINEAR_EXACT:
    255 ((v - c) / w + 0.5); both cut off; SIGMOID: 255 / (1 + exp(-4 (v - c) / w))."""
    center, width, function = voi
    values = values.astype(np.float64)
    if function == "SIGMOID":
        grey = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    elif function == "LINEAR_EXACT":
        grey = (values - center) / width + 0.5
    else:
        grey = (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5
    return np.rint(np.clip(np.nan_to_num(grey), 0, 1) * 255).astype(np.uint8)


def first_window(dataset: Dataset) -> Window | None:
    """The first VOI window of the file or of its functional groups; None if it has none that is usable."""
    source = dataset if dataset.get("WindowCenter") is not None else _group(dataset, "FrameVOILUTSequence", 0)
    center, width = (_first(source.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(source.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or not np.isfinite((center, width)).all():
        return None
    least = 1.0 if function == "LINEAR" else 1e-9
    return Window(center, width, function) if width >= least else None


def _rescale(dataset: Dataset, frame: int) -> tuple[float, float]:
    """(slope, intercept) of a frame; (1, 0) where the file has none that is usable."""
    source = dataset if "RescaleSlope" in dataset else _group(dataset, "PixelValueTransformationSequence", frame)
    slope, intercept = (_first(source.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None or slope == 0 or not np.isfinite((slope, intercept)).all():
        return 1.0, 0.0
    return slope, intercept


def _group(dataset: Dataset, name: str, frame: int) -> Dataset:
    """The item of a functional group macro for a frame, its own or the shared one; an empty data set if neither."""
    own = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())[frame : frame + 1]
    for groups in (*own, *(dataset.get("SharedFunctionalGroupsSequence") or ())):
        if groups.get(name):
            found: Dataset = groups[name][0]
            return found
    return Dataset()


def _first(value: Any) -> float | None:
    if isinstance(value, (MultiValue, list, tuple)):
        value = value[0] if value else None
    return None if value in (None, "") else float(value)


def _affine(values: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    return values if (slope, intercept) == (1, 0) else values * slope + intercept


def _by_table(values: NDArray[Any], dataset: Dataset) -> NDArray[np.uint8]:
    bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
    return stretch(apply_voi(values, dataset), 0, 2**bits - 1)
