"""Values of mask files -> class numbers: the rules that all formats share, and how several files make one mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from semidg.data.counting import counts
from semidg.errors import DataError
from semidg.mask_values import parse_mask_values
from semidg.types import IGNORE_INDEX


class Coding(NamedTuple):
    """How the values of a mask file are read: into how many classes, and either by convention, with ``ignore`` for the
    value of pixels that are not known, or by ``rules`` (``mask_values.py``), which are empty where there are none."""

    classes: int = 2
    ignore: int | None = None
    rules: str = ""

    @property
    def numbers(self) -> bool:
        """Whether the values themselves count, and not only whether they are 0."""
        return self.classes > 2 or bool(self.rules)

    @property
    def colours(self) -> bool:
        """Whether the rules name colours."""
        return bool(self.rules) and parse_mask_values(self.rules).colours


#: Two classes, by the convention.
BINARY = Coding()


def binary(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """0 and 1 of a file that holds 0 and one other value, in an array of any shape; raises DataError if it does not."""
    found = levels(values)
    if len(found) > 2 or (len(found) == 2 and found[0] != 0) or not np.isfinite(found.astype(float)).all():
        raise DataError(
            f"{path}: mask with grey values ({_some(found)}); a mask holds 0 and one other value: say what its values "
            "mean with data.mask_values, '0-127:0,128-255:1' say, or save it as PNG with 0 and 255 (JPEG blurs the "
            "border), or set network.classes"
        )
    foreground: NDArray[np.uint8] = (values != 0).astype(np.uint8)
    return foreground


def unblurred(colours: NDArray[np.uint8], values: NDArray[np.generic]) -> NDArray[np.generic]:
    """0 and 255 of a mask of black and one colour that JPEG has blurred, cut at half; ``values`` as they are where that
    is in doubt.

    colours: (H, W, 3). In doubt is a mask whose largest value is below 128, as a class number is; of which more than
    2 % of the pixels are between a quarter and three quarters of it; and one that, where it is flat (its 5 x 5
    neighbours within 16), has more than 0.1 % of the pixels that are neither black (to 20) nor the median colour of its
    bright pixels (each channel to 40): a picture, a third value, another colour.
    """
    grey = colours.max(-1)
    high = int(grey.max(initial=0))
    bright = grey > high / 2
    between = (grey > high / 4) & (grey < high * 3 / 4)
    if high < 128 or between.mean() > 0.02 or not (grey <= 20).any():
        return values
    colour = np.median(colours[grey >= high * 3 / 4], axis=0)
    flat = maximum_filter(grey, 5).astype(int) - minimum_filter(grey, 5) <= 16
    known = (grey <= 20) | (np.abs(colours - colour).max(-1) <= 40)
    if (flat & ~known).sum() > 0.001 * flat.sum():
        return values
    return np.where(bright, np.uint8(255), np.uint8(0))


def class_numbers(values: NDArray[np.generic], path: Path, classes: int) -> NDArray[np.uint8]:
    """Class numbers as they are, in an array of any shape; raises DataError unless all are whole and below
    ``classes``."""
    found = levels(values)
    numbers = found.astype(float)
    if not (numbers[0] >= 0 and numbers[-1] < classes and (numbers == np.rint(numbers)).all()):
        raise DataError(
            f"{path}: holds the values {_some(found)}, but the classes are 0 to {classes - 1}; "
            "say what they mean with data.mask_values, '0:0,128:1,255:2' say, or set network.classes"
        )
    return values.astype(np.uint8)


def named_values(values: NDArray[np.generic], path: Path, classes: int, rules: str) -> NDArray[np.uint8]:
    """Class numbers by ``rules`` (``mask_values.py``), in an array of any shape; raises DataError for a value that they
    do not name, and for a class number that is not below ``classes``."""
    parsed, found = parse_mask_values(rules), levels(values)
    numbers = parsed.find(found)
    if (numbers < 0).any():
        some = _some(found[numbers < 0], parsed.colours)
        raise DataError(
            f"{path}: holds the values {some}, which the mask values {rules!r} do not name; add them, or *:0"
        )
    if (wrong := (numbers >= classes) & (numbers != IGNORE_INDEX)).any():
        raise DataError(
            f"{path}: the mask values {rules!r} make class {numbers[wrong].max()} of some pixels, but the classes are "
            f"0 to {classes - 1}; correct them or set network.classes"
        )
    return numbers.astype(np.uint8)[np.searchsorted(found, values)]


def labels(values: NDArray[np.generic], path: Path, coding: Coding) -> NDArray[np.uint8]:
    """``named_values`` where there are rules; else ``binary`` for two classes, ``class_numbers`` for more, and
    IGNORE_INDEX where a value is ``ignore``."""
    classes, ignore, rules = coding
    if rules:
        return named_values(values, path, classes, rules)
    unknown = None if ignore is None else values == ignore
    if unknown is not None and unknown.any():
        values = np.where(unknown, np.zeros((), values.dtype), values)
    numbers = binary(values, path) if classes == 2 else class_numbers(values, path, classes)
    if unknown is not None:
        numbers[unknown] = IGNORE_INDEX
    return numbers


def marks_frame(mask: NDArray[np.uint8]) -> bool:
    """Whether nine of ten known pixels along the four edges of a mask of class numbers (H, W) are foreground."""
    frame = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
    known = frame[frame != IGNORE_INDEX]
    return len(known) > 0 and bool((known > 0).mean() >= 0.9)


def unite(masks: Sequence[NDArray[np.uint8]], paths: Sequence[Path]) -> NDArray[np.uint8]:
    """The union of masks of class numbers (H, W), ignored where one of them ignores; raises DataError where two differ
    in size or in the class of a pixel that both mark."""
    union = masks[0]
    for mask, path in zip(masks[1:], paths[1:], strict=True):
        _require_size(mask, path, union, paths[0])
        known = (mask != IGNORE_INDEX) & (union != IGNORE_INDEX)
        if (known & (mask != union) & (mask > 0) & (union > 0)).any():
            raise DataError(f"{path}: gives pixels another class than {paths[0].name}; each pixel has one class")
        union = np.maximum(union, mask)
    return union


def majority(masks: Sequence[NDArray[np.uint8]], paths: Sequence[Path], classes: int) -> NDArray[np.uint8]:
    """What most raters say, each of them one mask of class numbers (H, W), pixel by pixel.

    The most frequent class wins; of two that are as frequent, the lower number, so that with two classes a tie is
    background. Who ignores a pixel has no vote on it; one that all ignore is ignored. Raises DataError where two masks
    differ in size.
    """
    votes = np.zeros((classes, *masks[0].shape), dtype=np.uint16)
    for mask, path in zip(masks, paths, strict=True):
        _require_size(mask, path, masks[0], paths[0])
        for number in range(classes):
            votes[number] += mask == number
    winner: NDArray[np.uint8] = votes.argmax(0).astype(np.uint8)  # argmax takes the first of several largest
    winner[~votes.any(0)] = IGNORE_INDEX
    return winner


def levels(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The different values, ascending."""
    counted = counts(values)
    return np.unique(values) if counted is None else np.flatnonzero(counted[1]) + counted[0]


def _require_size(mask: NDArray[np.uint8], path: Path, first: NDArray[np.uint8], first_path: Path) -> None:
    if mask.shape != first.shape:
        raise DataError(
            f"{path}: is {_size_text(mask)}, but {first_path.name} is {_size_text(first)}; "
            "all mask files of an image must have its size"
        )


def _some(found: NDArray[np.generic], colours: bool = False) -> str:
    shown = ", ".join(f"#{int(level):06x}" if colours else f"{level:g}" for level in found[:6].astype(float))
    return shown if len(found) <= 6 else f"{shown}, ... {len(found)} different ones"


def _size_text(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
