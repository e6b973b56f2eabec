"""Files of one picture (PNG, JPEG, TIFF, ...) -> arrays, by Pillow; ``data/reading.py`` chooses the reader of a file.

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
from semidg.data.masks import BINARY, Coding, labels, unblurred, unite
from semidg.errors import DataError

#: Endings, in lower case, of the files taken for images.
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
NIFTI_SUFFIXES, META_SUFFIXES, NRRD_SUFFIXES = (".nii", ".nii.gz"), (".mha", ".mhd"), (".nrrd", ".nhdr")

#: Modes of Pillow with more than 8 bits; their variants (I;16B, ...) begin alike.
DEEP_MODES = ("I", "F")

#: Formats that change pixels on the way, as Pillow names them.
_BLURRING = ("JPEG", "MPO")


def is_image_name(name: str) -> bool:
    """Whether a file name has the ending of an image and is not hidden (``._x.png`` of macOS is)."""
    known = Path(name).suffix.lower() in IMAGE_SUFFIXES or is_dicom_name(name) or is_volume_name(name)
    return known and not name.startswith(".")


def is_nifti_name(name: str) -> bool:
    """Whether a file name has the ending of a NIfTI file."""
    return name.lower().endswith(NIFTI_SUFFIXES)


def is_nrrd_name(name: str) -> bool:
    """Whether a file name has the ending of a NRRD file."""
    return name.lower().endswith(NRRD_SUFFIXES)


def is_volume_name(name: str) -> bool:
    """Whether a file name has the ending of a volume: NIfTI, MetaImage or NRRD."""
    return name.lower().endswith(NIFTI_SUFFIXES + META_SUFFIXES + NRRD_SUFFIXES)


def is_dicom_name(name: str) -> bool:
    """Whether a file name has the ending of a DICOM file."""
    return Path(name).suffix.lower() in DICOM_SUFFIXES


def stem(name: str) -> str:
    """A file name or path without its ending, of which ``.nii.gz`` is one."""
    for ending in (".nii.gz", Path(name).suffix):
        if ending and name.lower().endswith(ending.lower()):
            return name[: -len(ending)]
    return name


def read_image(path: Path, channels: int) -> NDArray[np.uint8]:
    """One image of any mode as uint8 (H, W, channels), ``channels`` 1 (grey, ITU-R 601 luma) or 3 (RGB).

    Transparency is composited on black. 16-bit and 32-bit integers are divided by the largest number of the smallest
    depth (8, 10, 12, 14 or 16 bits) that holds the image's maximum; negative or still larger numbers are stretched
    from minimum to maximum. Floating point in [0, 1] is multiplied by 255, in [0, 255] rounded, else stretched.
    Raises DataError that names the file and the mend.
    """
    if channels not in (1, 3):
        raise DataError(f"{path}: cannot be read with {channels} channels; set data.channels to 1 or 3")
    with opened(path) as stored:
        if stored.mode.startswith(DEEP_MODES):
            values = np.asarray(stored)
            image = Image.fromarray(to_8_bit(values, *depth(values, path)))
        else:
            image = on_black(stored) if stored.has_transparency_data else stored
        pixels = np.array(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def read_mask(paths: Sequence[Path], coding: Coding = BINARY) -> NDArray[np.uint8]:
    """One mask as uint8 (H, W) of class numbers from 0 to classes - 1; several files are united.

    Two classes: a file holds 0 and one other value or colour, which is the foreground; JPEG, which blurs them, is cut
    at half (``unblurred``). More classes: a file holds the class numbers themselves (in a palette file, the numbers of
    its entries), and files that give one pixel two different classes are refused. Rules stand in place of all
    this. Pixels that are not known become IGNORE_INDEX. Raises DataError that names the file, the values and the mend.
    """
    if not paths:
        raise DataError("a mask was asked for, but no mask file was given")
    found = []
    for path in paths:
        with opened(path) as image:
            values = stored_values(image, path, coding)
            if coding == BINARY and image.format in _BLURRING:
                values = unblurred(np.asarray(image.convert("RGB")), values)
            found.append(labels(values, path, coding))
    return unite(found, paths)


def resize_image(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, C) uint8 -> (size, size, C): antialiased bilinear, squashed to a square whatever the aspect ratio."""
    channels = pixels.shape[2]
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(size, size, channels)


def resize_mask(mask: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W) uint8 class numbers -> (size, size): nearest neighbour, so that no new value can arise."""
    return np.array(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The opened file; whatever goes wrong with it inside the block becomes a DataError that names it."""
    with named(path), Image.open(path) as image:
        refuse_unsuitable(image, path)
        yield image


def refuse_unsuitable(image: Image.Image, path: Path) -> None:
    refuse_size(path, image.width, image.height, 1, 4)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a photograph with its preview
        raise DataError(f"{path}: holds {frames} frames; save each of them as an image of its own")


def depth(values: NDArray[np.generic], path: Path) -> tuple[float, float]:
    """(offset, scale) with which grey values deeper than 8 bits become uint8, by the rule in ``read_image``."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise DataError(f"{path}: holds NaN or infinite grey values; replace them")
    if values.dtype.kind == "f":
        scale = 1.0 if high <= 1 else 255.0
    else:
        scale = next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if high < 2**bits), np.inf)
    if low < 0 or high > scale:
        return low, (high - low) or 1.0
    return 0.0, scale


def to_8_bit(values: NDArray[np.generic], offset: float, scale: float) -> NDArray[np.uint8]:
    """round(255 (v - offset) / scale)."""
    return np.rint((values.astype(np.float64) - offset) * (255.0 / scale)).astype(np.uint8)


def on_black(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)


def stored_values(image: Image.Image, path: Path, coding: Coding) -> NDArray[np.generic]:
    """(H, W) of what an opened mask file says: for two classes a value or a number for each colour, 0 for black; for
    more, or with rules, the values as they are, of colours numbers of 24 bits where the rules name colours. Raises
    DataError for a mask in transparency only, and for values in colour where none are named."""
    if coding.colours:
        return colour_numbers(np.asarray((on_black(image) if image.has_transparency_data else image).convert("RGB")))
    if coding.numbers:
        if image.mode in ("P", "1", "L") or image.mode.startswith(DEEP_MODES):
            return np.asarray(image)
        channels = np.asarray((on_black(image) if image.has_transparency_data else image).convert("RGB"))
        if (channels != channels[..., :1]).any():
            raise unnamed_colours(path, coding.classes)
        return channels[..., 0]
    indices = np.asarray(image) if image.mode == "P" else None
    transparent = image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255
    if image.mode.startswith(DEEP_MODES) or image.mode in ("1", "L"):
        values = np.asarray(image)
    else:
        values = one_channel(np.asarray((on_black(image) if transparent else image).convert("RGB")))
    if indices is not None and not transparent and values.max() == 0 and not any(image.getpalette() or ()):
        values = indices  # a palette that is black throughout: only the numbers tell the classes apart
    if transparent and values.max() == 0:
        raise DataError(f"{path}: mask drawn in transparency only; save it as grey PNG with 0 and 255")
    return values


def unnamed_colours(path: Path, classes: int) -> DataError:
    """The error for a mask in colour of which only the numbers would count."""
    return DataError(
        f"{path}: a mask of {classes} classes in colour; say what its colours mean with data.mask_values, "
        "'#000000:0,#ff0000:1' say, or save the class numbers as grey image"
    )


def one_channel(colours: NDArray[np.uint8]) -> NDArray[np.generic]:
    """(H, W, 3) -> (H, W): the grey value where the channels agree, else one number a colour, 0 for black."""
    red, green, blue = (colours[..., channel] for channel in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    return colour_numbers(colours)


def colour_numbers(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(H, W, 3) -> (H, W): a number of 24 bits for each colour."""
    combined: NDArray[np.int64] = colours.astype(np.int64) @ np.array([65536, 256, 1])
    return combined
