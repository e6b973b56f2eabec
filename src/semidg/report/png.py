"""Pictures as PNG, quickly compressed: speckle is noise, on which a higher level takes long and saves little."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from semidg.files import write_bytes

Picture = npt.NDArray[np.uint8]


def encode_png(array: Picture, palette: Picture | None = None) -> bytes:
    """(H, W) or (H, W, 3) uint8, no side of it 0, as the bytes of a PNG file.

    palette: (n, 3), n at most 256, the colour in which a viewer shows each number of (H, W); the file keeps the
    numbers. Raises ValueError for anything else.
    """
    if array.dtype != np.uint8:
        raise ValueError(f"a PNG is written from uint8, not {array.dtype}")
    colour = array.ndim == 3
    if not array.size or array.ndim not in (2, 3) or (colour and array.shape[2] != 3):
        raise ValueError(f"a PNG is written from (H, W) or (H, W, 3), not {array.shape}")
    if palette is not None and (colour or len(palette) > 256):
        raise ValueError("a palette is for (H, W), with 256 colours at most")
    picture = Image.fromarray(array)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def save_png(array: Picture, path: Path, palette: Picture | None = None) -> None:
    """Write ``encode_png``; the file appears whole or not at all. It can be made again, so the disk is not waited for.

    Raises SemidgError that names a file which cannot be written.
    """
    write_bytes(path, encode_png(array, palette), durable=False)
