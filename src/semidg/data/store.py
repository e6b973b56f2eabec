"""Decoded files, kept for the next of their planes: a file of many planes is decoded once, whatever asks for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from semidg.data.guard import named
from semidg.data.voxels import stamp
from semidg.errors import DataError


class Decoded:
    """The pixels of a file, or what is wrong with it, which is remembered too."""

    def __init__(self, read: Callable[[], NDArray[np.uint8]]) -> None:
        self._pixels: NDArray[np.uint8] | None = None
        self._error = ""
        try:
            self._pixels = read()
        except DataError as error:
            self._error = str(error)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The pixels; raises the DataError of the reader."""
        if self._pixels is None:
            raise DataError(self._error)
        return self._pixels

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return 0 if self._pixels is None else self._pixels.nbytes


class Store:
    """The decoded files used last, up to a number of bytes, and all that somebody holds; for any number of threads.

    A file that is asked for by several threads at once is decoded by one of them. A file that has changed (size, time
    of change) is decoded again.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._gates: dict[Hashable, Lock] = {}
        self._recent: OrderedDict[Hashable, Decoded] = OrderedDict()
        self._alive: WeakValueDictionary[Hashable, Decoded] = WeakValueDictionary()

    def get(self, path: Path, kind: Hashable, read: Callable[[], NDArray[np.uint8]], keep: int = 2) -> Decoded:
        """The decoded file, by ``read`` if it is not there. kind: what is read of it. keep: how many of the files used
        last stay whatever their size. Raises DataError where there is no such file."""
        with named(path):
            key = (path, kind, *stamp(path))
        with self._lock:
            gate = self._gates.setdefault(key, Lock())
        with gate:  # one gate a file: threads that need other files do not wait
            with self._lock:
                found = self._alive.get(key)
            if found is None:
                found = Decoded(read)
            with self._lock:
                self._gates.pop(key, None)
                self._alive[key] = self._recent[key] = found
                self._recent.move_to_end(key)
                size = sum(item.nbytes for item in self._recent.values())
                while size > self._limit and len(self._recent) > keep:
                    size -= self._recent.popitem(last=False)[1].nbytes
        return found
