"""Image and mask files -> arrays: the only module that reads image files.

Pixels are taken in the order in which the file stores them: an EXIF orientation is ignored for images and masks
alike, so that the two always lie on one another and a predicted mask fits the file it was made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semidg.data.guard import named, refuse_size
from semidg.errors import DataError

#: Endings, in lower case, of the files taken for images.
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
NIFTI_SUFFIXES = (".nii", ".nii.gz")

_DEEP_MODES = ("I", "F")  # with the variants I;16, I;16B, I;16L, I;16N


def is_image_name(name: str) -> bool:
    """Whether a file name has the ending of an image and is not hidden (``._x.png`` of macOS is)."""
    known = Path(name).suffix.lower() in IMAGE_SUFFIXES or is_dicom_name(name) or is_nifti_name(name)
    return known and not name.startswith(".")


def is_nifti_name(name: str) -> bool:
    """Whether a file name has the ending of a NIfTI file."""
    return name.lower().endswith(NIFTI_SUFFIXES)


def is_dicom_name(name: str) -> bool:
    """Whether a file name has the ending of a DICOM file."""
    return Path(name).suffix.lower() in DICOM_SUFFIXES


def stem(name: str) -> str:
    """A file name or path without its ending, of which ``.nii.gz`` is one."""
    for ending in (".nii.gz", Path(name).suffix):
        if ending and name.lower().endswith(ending.lower()):
            return name[: -len(ending)]
    return name


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels from the header, without decoding; raises DataError that names the file."""
    with _opened(path) as image:
        return image.size


def tiff_pages(path: Path) -> tuple[int, int, int]:
    """(width, height, pages) of a file that Pillow reads, without decoding: several pages for a TIFF, else one.

    Raises DataError that names the file, as where its pages differ in size.
    """
    with named(path), Image.open(path) as image:
        pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
        refuse_size(path, image.width, image.height, pages, 4)
        if pages == 1:
            _refuse_unsuitable(image, path)
        size = image.size
        for number in range(1, pages):
            image.seek(number)
            if image.size != size:
                raise DataError(
                    f"{path}: page {number} is {image.width} x {image.height}, the first one {size[0]} x {size[1]}; "
                    "save pages of different sizes (previews, resolutions) as files of their own"
                )
        return *size, pages


def read_image(path: Path, channels: int) -> NDArray[np.uint8]:
    """One image of any mode as uint8 (H, W, channels), ``channels`` 1 (grey, ITU-R 601 luma) or 3 (RGB).

    Transparency is composited on black. 16-bit and 32-bit integers are divided by the largest number of the smallest
    depth (8, 10, 12, 14 or 16 bits) that holds the image's maximum; negative or still larger numbers are stretched
    from minimum to maximum. Floating point in [0, 1] is multiplied by 255, in [0, 255] rounded, else stretched.
    Raises DataError that names the file and the mend.
    """
    if channels not in (1, 3):
        raise DataError(f"{path}: cannot be read with {channels} channels; set data.channels to 1 or 3")
    with _opened(path) as stored:
        if stored.mode.startswith(_DEEP_MODES):
            image = Image.fromarray(_to_8_bit(np.asarray(stored), path))
        else:
            image = _on_black(stored) if stored.has_transparency_data else stored
        pixels = np.array(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def read_mask(paths: Sequence[Path], classes: int = 2) -> NDArray[np.uint8]:
    """One mask as uint8 (H, W) of class numbers from 0 to classes - 1; several files are united.

    Two classes: a file holds 0 and one other value or colour, which is the foreground. More classes: a file holds the
    class numbers themselves (in a palette file, the numbers of its entries), and files that give one pixel two
    different classes are refused. Raises DataError that names the file, the values and the mend.
    """
    if not paths:
        raise DataError("a mask was asked for, but no mask file was given")
    union: NDArray[np.uint8] | None = None
    for path in paths:
        mask = _binary(path) if classes == 2 else _class_numbers(path, classes)
        if union is None:
            union = mask
            continue
        if mask.shape != union.shape:
            raise DataError(
                f"{path}: is {_size_text(mask)}, but {paths[0].name} is {_size_text(union)}; "
                "all mask files of an image must have its size"
            )
        if ((mask != union) & (mask > 0) & (union > 0)).any():
            raise DataError(f"{path}: gives pixels another class than {paths[0].name}; each pixel has one class")
        union = np.maximum(union, mask)
    assert union is not None
    return union


def resize_image(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, C) uint8 -> (size, size, C): antialiased bilinear, squashed to a square whatever the aspect ratio."""
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)


def resize_mask(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W) uint8 class numbers -> (size, size): nearest neighbour, so that no new value can arise."""
    return np.array(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The opened file; whatever goes wrong with it inside the block becomes a DataError that names it."""
    with named(path), Image.open(path) as image:
        _refuse_unsuitable(image, path)
        yield image


def _refuse_unsuitable(image: Image.Image, path: Path) -> None:
    refuse_size(path, image.width, image.height, 1, 4)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph with its preview
        raise DataError(f"{path}: holds {frames} frames; save each of them as an image of its own")


def _to_8_bit(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Grey values deeper than 8 bits -> uint8, by the rule in ``read_image``."""
    grey = values.astype(np.float64)
    if not np.isfinite(grey).all():
        raise DataError(f"{path}: holds NaN or infinite grey values; replace them")
    low, high = float(grey.min()), float(grey.max())
    offset = 0.0
    if values.dtype.kind == "f":
        scale = 1.0 if high <= 1 else 255.0
    else:
        scale = next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits), np.inf)
    if low < 0 or high > scale:
        offset, scale = low, (high - low) or 1.0
    return np.rint((grey - offset) * (255.0 / scale)).astype(np.uint8)


def _on_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)


def _binary(path: Path) -> NDArray[np.uint8]:
    """(H, W) of 0 and 1 from a file with 0 and one other value or colour."""
    with _opened(path) as image:
        indices = np.asarray(image) if image.mode == "P" else None
        transparent = image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255
        if image.mode.startswith(_DEEP_MODES) or image.mode in ("1", "L"):
            values = np.asarray(image)
        else:
            values = _one_channel(np.asarray((_on_black(image) if transparent else image).convert("RGB")))
    if indices is not None and not transparent and values.max() == 0:
        values = indices  # a palette that is black throughout: only the numbers tell the classes apart
    levels = _levels(values)
    if len(levels) > 2 or (len(levels) == 2 and levels[0] != 0) or not np.isfinite(levels.astype(float)).all():
        raise DataError(
            f"{path}: mask with grey values ({_some(levels)}); a mask holds 0 and one other value: "
            "threshold it and save it as PNG with 0 and 255 (JPEG blurs the border)"
        )
    if transparent and levels[-1] == 0:
        raise DataError(f"{path}: mask drawn in transparency only; save it as grey PNG with 0 and 255")
    foreground: NDArray[np.uint8] = (values != 0).astype(np.uint8)
    return foreground


def _class_numbers(path: Path, classes: int) -> NDArray[np.uint8]:
    """(H, W) of class numbers, checked to be below ``classes``."""
    with _opened(path) as image:
        if image.mode.startswith(_DEEP_MODES) or image.mode in ("1", "L", "P"):
            values = np.asarray(image)
        else:
            channels = np.asarray((_on_black(image) if image.has_transparency_data else image).convert("RGB"))
            if (channels != channels[..., :1]).any():
                raise DataError(f"{path}: a mask of {classes} classes in colour; save the class numbers as grey PNG")
            values = channels[..., 0]
    levels = _levels(values)
    if levels[0] < 0 or levels[-1] >= classes or (levels != np.rint(levels)).any():
        raise DataError(
            f"{path}: holds the values {_some(levels)}, but the classes are 0 to {classes - 1}; "
            "renumber the mask or set network.classes"
        )
    return values.astype(np.uint8)


def _one_channel(colours: NDArray[np.uint8]) -> NDArray[np.generic]:
    """(H, W, 3) -> (H, W): the grey value where the channels agree, else one number a colour, 0 for black."""
    red, green, blue = (colours[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    combined: NDArray[np.int64] = colours.astype(np.int64) @ np.array([65536, 256, 1])
    return combined


def _levels(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """The different values, ascending; much faster than np.unique for 1-bit and 8-bit files."""
    if values.dtype.itemsize > 1:
        return np.unique(values)
    return np.flatnonzero(np.bincount(values.reshape(-1), minlength=2))


def _some(levels: NDArray[np.generic]) -> str:
    shown = ", ".join(f"{level:g}" for level in levels[:6].astype(float))
    return shown if len(levels) <= 6 else f"{shown}, ... {len(levels)} different ones"


def _size_text(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
