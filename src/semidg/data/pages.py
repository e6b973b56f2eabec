"""Files that Pillow reads, page by page: a TIFF may hold several pages, which are the frames of a film."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semidg.data.guard import named, refuse_size
from semidg.data.images import DEEP_MODES, depth, on_black, refuse_unsuitable, stored_values, to_8_bit
from semidg.data.masks import Coding, labels
from semidg.errors import DataError


def read_header(path: Path) -> tuple[int, int, int]:
    """(width, height, pages) without decoding; several pages only for a TIFF.

    Raises DataError that names the file, as where its pages differ in size or an animation is no TIFF.
    """
    with _opened(path) as image:
        pages = _count(image)
        size = image.size
        for number in range(1, pages):
            image.seek(number)
            _require_alike(image.size, size, number, path)
        return *size, pages


def read_pages(path: Path) -> NDArray[np.uint8]:
    """All pages as uint8 (F, H, W) if grey, else (F, H, W, 3); the rules of ``images.read_image``, with one maximum
    for all pages of a file deeper than 8 bits. Raises DataError that names the file and the mend."""
    with _opened(path) as image:
        stack = _stack([_native(image, number) for number in range(_count(image))], path)
        if stack.dtype == np.uint8:
            return stack.astype(np.uint8, copy=False)
        scale = depth(stack, path)
        return np.stack([to_8_bit(page, *scale) for page in stack])


def read_labels(path: Path, coding: Coding) -> NDArray[np.uint8]:
    """Class numbers of all pages (F, H, W), by the rules of ``masks`` for the values of the whole file."""
    with _opened(path) as image:
        found = []
        for number in range(_count(image)):
            image.seek(number)
            found.append(stored_values(image, path, coding))
        return labels(_stack(found, path), path, coding)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with named(path), Image.open(path) as image:
        refuse_size(path, image.width, image.height, _count(image), 4)
        if _count(image) == 1:
            refuse_unsuitable(image, path)
        yield image


def _count(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1


def _native(image: Image.Image, number: int) -> NDArray[np.generic]:
    """A page as it is stored if it is deeper than 8 bits, else uint8, grey or RGB."""
    image.seek(number)
    if image.mode.startswith(DEEP_MODES):
        return np.array(image)
    flat = on_black(image) if image.has_transparency_data else image
    return np.array(flat.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _stack(found: list[NDArray[np.generic]], path: Path) -> NDArray[np.generic]:
    for number, page in enumerate(found[1:], start=1):
        _require_alike((page.shape[1], page.shape[0]), (found[0].shape[1], found[0].shape[0]), number, path)
        if page.shape != found[0].shape or page.dtype != found[0].dtype:
            raise DataError(
                f"{path}: page {number} is of another kind (depth or colour) than the first; save all alike"
            )
    return np.stack(found)


def _require_alike(size: tuple[int, int], first: tuple[int, int], number: int, path: Path) -> None:
    if size != first:
        raise DataError(
            f"{path}: page {number} is {size[0]} x {size[1]}, the first one {first[0]} x {first[1]}; "
            "save pages of different sizes (previews, resolutions) as files of their own"
        )
