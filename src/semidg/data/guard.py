"""What a reader does not believe: whatever goes wrong with a file names it, and no claim of a header is too large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from semidg.errors import DataError

#: Bytes that the pixels of one file may have, decoded, in all its planes together: 4 GiB.
MAX_BYTES = 2**32

#: Planes (slices, frames, times) of one file.
MAX_PLANES = 2**16

#: Bytes that one byte of a deflate stream (gzip, deflated DICOM) can become at most.
DEFLATE_RATIO = 1032


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the file inside the block becomes a DataError that names it and the mend."""
    try:
        yield
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: claims far too many pixels ({error}); check the file, or store it smaller") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; restore the file or correct the path") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder, not an image file; give the path of a file") from error
    except PermissionError as error:
        raise DataError(f"{path}: may not be read (permission denied); change the permissions of the file") from error
    except UnidentifiedImageError as error:
        kind = "is empty (0 bytes)" if path.stat().st_size == 0 else "is not an image of a known format"
        raise DataError(f"{path}: {kind}; replace or remove the file") from error
    except Exception as error:  # a damaged file can make a decoder raise nearly anything
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged or truncated ({text[:200]}); replace or remove the file") from error


def refuse_size(path: Path, width: int, height: int, planes: int, pixel_bytes: int) -> None:
    """Raise DataError where a header claims no pixels, or more than the stated limits, before any is decoded."""
    claimed = f"{path}: claims {width} x {height} pixels" + (f" in {planes} planes" if planes != 1 else "")
    if width < 1 or height < 1 or planes < 1:
        raise DataError(f"{claimed}; replace or remove the file")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise DataError(f"{claimed}, more than the safe limit of {limit}; check the file, or store it smaller")
    if planes > MAX_PLANES:
        raise DataError(f"{claimed}, more than the safe limit of {MAX_PLANES}; check the file, or divide it")
    if width * height * planes * pixel_bytes > MAX_BYTES:
        raise DataError(f"{claimed}, more than the safe limit of {MAX_BYTES} bytes; check the file, or divide it")
