"""Decoded, resized images and masks, memory-mapped: made once for a data set and a size."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semidg.data.images import is_dicom_name, resize_image, resize_mask
from semidg.data.paths import cpu_threads, resolve_inside
from semidg.data.reading import by_file, hold, record_image, record_mask
from semidg.data.voxels import stamp
from semidg.errors import DataError
from semidg.types import IGNORE_INDEX, Record

_VERSION = 2  # one more with every change of what is decoded from a file
_CHECKED_BYTES = 512 * 2**20  # of a larger cache only evenly spaced rows are compared with their checksum


class ImageCache:
    """N images of one size, read-only and memory-mapped; a copy sent to another process maps the same files.

    images: (N, size, size, C) uint8. masks: (N, size, size) uint8 class numbers, all 255 where unlabelled.
    ids: the ids of the rows, sorted.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / "cache.json").read_text("utf-8"))
        self.folder = folder
        self.ids: tuple[str, ...] = tuple(meta["ids"])
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.masks = np.load(folder / "masks.npy", mmap_mode="r")
        self._rows = {name: row for row, name in enumerate(self.ids)}

    def row(self, id: str) -> int:
        """The row of a record; raises DataError if the cache was made without it."""
        try:
            return self._rows[id]
        except KeyError:
            raise DataError(f"{id!r} is not in the image cache {self.folder}; open it with all records") from None

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[type[ImageCache], tuple[Path]]:
        return ImageCache, (self.folder,)


def default_folder() -> Path:
    """$SEMIDG_CACHE, or ``semidg`` in the user's cache folder."""
    if chosen := os.environ.get("SEMIDG_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "semidg"
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "semidg"


def open_cache(
    index_root: Path,
    records: Sequence[Record],
    size: int,
    channels: int,
    classes: int = 2,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageCache:
    """The cache of ``records`` at size x size pixels, made now if there is none that fits, else opened.

    Images are resized with antialiased bilinear, masks with nearest neighbour, both squashed to a square. A cache
    belongs to the ids, paths, file sizes and times of change of its sources, to size, channels and classes; any change
    makes a new one, and a damaged one is made again. Two processes may ask at once. progress: called with (images
    done, images in all). Raises DataError on a source that cannot be read or a folder that cannot be written.
    """
    if not records:
        raise DataError(f"{index_root}: no images to put in the cache")
    parent = Path(folder) if folder is not None else default_folder()
    ordered = sorted(records, key=lambda record: record.id)
    key = _key(Path(index_root), ordered, size, channels, classes)
    place = parent / key
    if _intact(place):
        return ImageCache(place)
    needed = len(ordered) * size * size * (channels + 1)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent / f"{key}.lock") as alone:
            if alone:
                _clear_stale(place)
            if not _intact(place):
                _require_space(parent, needed)
                _build(place, Path(index_root), ordered, (size, channels, classes), progress)
    except OSError as error:
        raise DataError(
            f"{parent}: the image cache of {needed:,} bytes cannot be written ({error.strerror or error}); "
            "free space, or choose another folder with data.cache or SEMIDG_CACHE"
        ) from error
    return ImageCache(place)


def _key(root: Path, records: Sequence[Record], size: int, channels: int, classes: int) -> str:
    """Hash of everything the cache depends on."""
    sources = []
    folders: dict[str, list[object]] = {}  # a series is shown by the grey values of all its files, listed or not
    for record in records:
        if record.series and (folder := PurePosixPath(record.series).parent.as_posix()) not in folders:
            files = sorted(p for p in resolve_inside(root, folder).iterdir() if is_dicom_name(p.name))
            folders[folder] = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
        for relative in (record.image, *record.masks):
            path = resolve_inside(root, relative)
            try:
                source: list[object] = [record.id, relative, *stamp(path)]
            except OSError as error:
                raise DataError(f"{path}: {error.strerror}; restore the file or index the data again") from error
            if record.frame is not None or record.vote:
                source += [str(record.frame), record.vote, *filter(None, [record.series])]
            if record.ignore is not None:
                source.append({"ignore": record.ignore})
            if record.mask_values:
                source.append({"mask_values": record.mask_values})
            sources.append(source)
    content = json.dumps([_VERSION, str(root.resolve()), size, channels, classes, sources, folders])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _build(
    place: Path,
    root: Path,
    records: Sequence[Record],
    shape: tuple[int, int, int],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the cache to a temporary folder beside ``place`` and rename it; leave nothing behind on failure."""
    size, channels, classes = shape
    count = len(records)
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{place.name}.", suffix=".tmp"))
    new = temporary / "new"  # with the permissions of any new folder, where mkdtemp's are the user's alone
    checksums: list[tuple[int, int]] = []
    try:
        new.mkdir()
        with (
            (new / "images.npy").open("wb") as images,
            (new / "masks.npy").open("wb") as masks,
            contextlib.closing(_decoded(root, records, size, channels, classes)) as rows,
        ):
            _write_header(images, (count, size, size, channels))
            _write_header(masks, (count, size, size))
            for done, (image, mask) in enumerate(rows, start=1):
                images.write(image)
                masks.write(mask)
                checksums.append((zlib.crc32(image), zlib.crc32(mask)))
                if progress is not None:
                    progress(done, count)
        meta = {
            "format": "semidg-cache",
            "version": _VERSION,
            "images": [count, size, size, channels],
            "ids": [record.id for record in records],
            "crc32": checksums,
        }
        (new / "cache.json").write_text(json.dumps(meta), "utf-8")
        if place.exists() and not _intact(place):
            place.replace(temporary / "old")
        try:
            new.replace(place)
        except OSError:
            if not _intact(place):  # else another process was faster, where files cannot be locked
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _decoded(
    root: Path, records: Sequence[Record], size: int, channels: int, classes: int
) -> Generator[tuple[bytes, bytes]]:
    """The bytes of each resized image and mask, in order, decoded by several threads a few files ahead."""

    def decode(record: Record) -> tuple[bytes, bytes]:
        image = resize_image(record_image(root, record, channels), size)
        if record.masks:
            mask = resize_mask(record_mask(root, record, classes), size)
        else:
            mask = np.full((size, size), IGNORE_INDEX, dtype=np.uint8)
        return image.tobytes(), mask.tobytes()

    def decode_file(unit: list[Record]) -> list[tuple[bytes, bytes]]:
        held = hold(root, unit[0], classes)  # all planes of a file from one decoding
        decoded = [decode(record) for record in unit]
        del held
        return decoded

    threads = cpu_threads()
    pool = ThreadPoolExecutor(threads)
    try:
        waiting = by_file(records)
        ahead = [pool.submit(decode_file, unit) for unit in islice(waiting, 2 * threads)]
        while ahead:
            yield from ahead.pop(0).result()
            ahead += [pool.submit(decode_file, unit) for unit in islice(waiting, 1)]
    finally:
        pool.shutdown(cancel_futures=True)


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _intact(place: Path) -> bool:
    """Whether ``place`` holds a complete cache: shapes as noted, rows with their checksums."""
    try:
        meta = json.loads((place / "cache.json").read_text("utf-8"))
        cache = ImageCache(place)
        count, size, _, channels = meta["images"]
        if cache.images.shape != (count, size, size, channels) or cache.masks.shape != (count, size, size):
            return False
        if len(cache) != count or len(meta["crc32"]) != count:
            return False
        step = 1 + (cache.images.nbytes + cache.masks.nbytes) // _CHECKED_BYTES
        return all(
            [zlib.crc32(cache.images[row]), zlib.crc32(cache.masks[row])] == meta["crc32"][row]
            for row in range(0, count, step)
        )
    except (OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError):
        return False


def _clear_stale(place: Path) -> None:
    """Remove what a killed process left; only for the holder of the lock, others may be writing."""
    for stale in place.parent.glob(f"{place.name}.*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{folder}: the image cache needs {needed:,} bytes, but only {free:,} are free; "
            "free space, or choose another folder with data.cache or SEMIDG_CACHE"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock file and give True; False where there are no such locks and the rename decides who was first."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except OSError:  # a network file system without locks
            alone = False
        yield alone
