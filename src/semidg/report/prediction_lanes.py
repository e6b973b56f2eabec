"""Several batches on their way at once: a thread takes one from the files that are read to those that are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from types import TracebackType
from typing import Self, TypeVar

import torch

_MOST = 8  # batches in the networks at once; more of them wait for Python's lock

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Threads for batches that do not wait for one another.

    On the CPU as many batches as there are threads are in the networks at once, each with one thread of its own (with
    fewer batches or more than 8 threads, each with its share of them): threads that divide a layer among them would
    wait for one another at each layer, and for whichever of them has just read or written a file. On another device one
    batch is in the networks. One batch more is read or written meanwhile, as files may have to be waited for.
    """

    def __init__(self, threads: int, batches: int, device: torch.device) -> None:
        """threads: of the CPU, in all. batches: how many there will be, about."""
        cpu = device.type == "cpu"
        at_once = max(1, min(threads, _MOST, batches))
        self.count = at_once + 1
        self._in_networks = BoundedSemaphore(at_once if cpu else 1)
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(
            self.count, initializer=torch.set_num_threads, initargs=(max(1, threads // at_once) if cpu else 1,)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Batches that have begun are ended, those that have not are dropped."""
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)

    @contextmanager
    def networks(self) -> Iterator[None]:
        """Inside it a batch is in the networks."""
        with self._in_networks:
            yield

    def in_order(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """``work`` of each item, in their order; items are taken, and results kept, only a few ahead."""
        ahead: deque[Future[Result]] = deque()
        for item in items:
            ahead.append(self._pool.submit(work, item))
            if len(ahead) > self.count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
