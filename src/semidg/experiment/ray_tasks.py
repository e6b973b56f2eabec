"""Pieces of work as tasks of a Ray cluster whose machines share the file system and the installation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from semidg.experiment.ray_executor import connect

_RETRIES = 3  # of a task whose worker or machine has died


class RayTasks:
    """A callable: calls each of ``work`` somewhere and gives (its number, error or None) as they are done.

    A task whose worker dies is computed again, three times at most; an error of its own is not. What a task loads and
    keeps, a model say, serves the later ones that come to the same worker.
    """

    def __init__(
        self, slots: int | None = None, *, cpus: int = 1, gpus: float = 0.0, address: str | None = None
    ) -> None:
        """slots: tasks at once, None for as many as fit. Raises ConfigError as ``RayExecutor`` does."""
        self.slots, self.cpus, self.gpus, self.address = slots, cpus, gpus, address

    def __call__(self, work: Sequence[Callable[[], None]]) -> Iterator[tuple[int, str | None]]:
        ray, owns, fit = connect(self.cpus, self.gpus, self.address)
        try:
            task = ray.remote(max_retries=_RETRIES, num_cpus=self.cpus, num_gpus=self.gpus)(_call)
            running = {}
            waiting = enumerate(work)
            while True:
                for number, one in waiting:
                    running[task.remote(one)] = number
                    if len(running) >= min(self.slots or fit, fit):
                        break
                if not running:
                    return
                ready, _ = ray.wait([*running], num_returns=1)
                for reference in ready:
                    number, error = running.pop(reference), None
                    try:
                        ray.get(reference)
                    except ray.exceptions.RayError as failure:
                        cause = getattr(failure, "cause", None) or failure
                        lines = (line.strip() for line in str(cause).splitlines())
                        error = next((line for line in lines if line), type(cause).__name__)
                    yield number, error
        finally:
            if owns:
                with contextlib.suppress(Exception):
                    ray.shutdown()


def _call(work: Callable[[], None]) -> None:
    work()
