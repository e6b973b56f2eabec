"""Images of a hospital, at the size of the networks, to which a model is adapted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from semidg.data.frames import Axis, Orientation
from semidg.data.images import resize_image
from semidg.data.reading import plane_image
from semidg.errors import DataError
from semidg.experiment.bundle import Bundle
from semidg.report.prediction_jobs import Job, Volume, pieces
from semidg.report.volume_files import open_volume
from semidg.types import Frame

#: Most images looked at: their statistics change little with more.
MOST = 512

_T = TypeVar("_T")


def sample_images(
    bundle: Bundle,
    jobs: Sequence[Job],
    axis: Axis = "auto",
    orientation: Orientation = "stored",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """(n, S, S, C) with n of 1 to MOST, of files and planes evenly spread, and a line for each file that cannot be
    read; raises DataError where none can.
    """
    chosen = _spread(jobs, MOST)
    planes = max(1, MOST // len(chosen))  # of one file
    found: list[npt.NDArray[np.uint8]] = []
    problems: list[str] = []
    for done, job in enumerate(chosen, start=1):
        for _, work in pieces([job], MOST, axis, orientation, problems, frozenset()):
            try:
                images = (
                    _of_volume(work, bundle, planes) if isinstance(work, Volume) else _of_jobs(work, bundle, planes)
                )
            except DataError as error:
                problems.append(str(error))
            else:
                found += [resize_image(image, bundle.size) for image in images]
        if progress:
            progress(done, len(chosen))
    if not found:
        raise DataError("\n".join(problems))
    return np.stack(found[:MOST]), problems


def _of_volume(work: Volume, bundle: Bundle, most: int) -> list[npt.NDArray[np.uint8]]:
    volume = open_volume(work)
    frames: Sequence[Frame | None] = work.planes.frames or (None,)
    return [volume.image(frame, bundle.channels) for frame in _spread(frames, most)]


def _of_jobs(work: Sequence[Job], bundle: Bundle, most: int) -> list[npt.NDArray[np.uint8]]:
    return [plane_image(job.image, job.frame, bundle.channels) for job in _spread(work, most)]


def _spread(items: Sequence[_T], most: int) -> list[_T]:
    """At most ``most`` of them, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[int(at)] for at in np.linspace(0, len(items) - 1, most).round()]
