"""Errors planted in masks, with a seed: what ``benchmarks.planted`` then looks for.

Lengths are in equivalent diameters of the lesion, d = 2 sqrt(area / pi), so that an error is as bad in a large lesion
as in a small one:

- shifted: by 0.3 to 0.5 d in a direction drawn at random;
- dilated, eroded: the border moves outwards, inwards by 0.15 d all round (inwards at most half way to the middle);
- swapped: two images have each other's mask; wrong: an image has the mask of another one, which keeps it;
- emptied: nothing is left.

A mask from another image is resized to its new place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import distance_transform_edt

Mask = npt.NDArray[np.uint8]

KINDS = ("shifted", "dilated", "eroded", "swapped", "wrong", "emptied")
BORDER = 0.15
SHIFT = (0.3, 0.5)


def plant(masks: Sequence[Mask], share: float, seed: int) -> tuple[list[Mask], list[str]]:
    """The masks, (H, W) of 0 and 1 each, with errors in ``share`` of them, and the kind of each: "" where none is.

    All kinds are equally frequent, to one; of an odd number of swapped masks the last one is a wrong one. Masks
    without a lesion are left alone.
    """
    rng = np.random.default_rng(seed)
    lesions = np.array([k for k, mask in enumerate(masks) if mask.any()])
    chosen = rng.permutation(lesions)[: round(share * len(masks))]
    kinds = [""] * len(masks)
    for place, number in enumerate(chosen):
        kinds[number] = KINDS[place % len(KINDS)]
    swapped = [number for number in chosen if kinds[number] == "swapped"]
    if len(swapped) % 2:
        kinds[swapped.pop()] = "wrong"
    source = {a: b for first, second in zip(swapped[::2], swapped[1::2], strict=True) for a, b in
              ((first, second), (second, first))}  # fmt: skip
    changed = list(masks)
    for number in chosen:
        mask, kind = masks[number], kinds[number]
        if kind == "wrong":
            source[number] = rng.choice(lesions[lesions != number])
        if number in source:
            changed[number] = _resized(masks[source[number]], mask.shape)
        elif kind == "shifted":
            angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(*SHIFT) * diameter(mask)
            changed[number] = shifted(mask, round(length * np.sin(angle)), round(length * np.cos(angle)))
        elif kind == "dilated":
            changed[number] = (distance_transform_edt(mask == 0) <= BORDER * diameter(mask)).astype(np.uint8)
        elif kind == "eroded":
            depth = distance_transform_edt(mask)
            changed[number] = (depth > min(BORDER * diameter(mask), depth.max() / 2)).astype(np.uint8)
        else:
            changed[number] = np.zeros_like(mask)
    return changed, kinds


def diameter(mask: Mask) -> float:
    """Of the disc with the area of the mask, in pixels."""
    return float(2 * np.sqrt(np.count_nonzero(mask) / np.pi))


def shifted(mask: Mask, down: int, right: int) -> Mask:
    """The mask moved by whole pixels; what leaves the picture is lost."""
    height, width = mask.shape
    result = np.zeros_like(mask)
    rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
    result[rows, columns] = mask[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    return result


def _resized(mask: Mask, shape: tuple[int, ...]) -> Mask:
    return np.array(Image.fromarray(mask).resize((shape[1], shape[0]), Image.Resampling.NEAREST))
