"""What is to be predicted, and in which pieces: files and folders -> jobs -> batches of images, or one volume."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from semidg.data.frames import Axis, Planes, may_hold_planes, planes
from semidg.data.images import is_image_name, is_nifti_name, stem
from semidg.errors import ConfigError, DataError
from semidg.types import Frame

_MASK_NAME = re.compile(r"(.+)_mask(_\d+)?$")


class Job(NamedTuple):
    """An image, and where its results go: the path without ``_mask.png``. frame: of a film, else None."""

    image: Path
    target: Path
    frame: Frame | None = None

    @property
    def name(self) -> str:
        """What the table calls it: the path, and the frame of a film."""
        return str(self.image) if self.frame is None else f"{self.image}:{self.frame}"


def find_jobs(inputs: Sequence[Path], out: Path) -> list[Job]:
    """Images of files and folders; sub-folders are kept. Masks beside their image (NAME_mask.png) are left out.

    Raises DataError for an input that is not there or holds no image, ConfigError where two would share a result.
    """
    jobs: list[Job] = []
    for source in inputs:
        if source.is_dir():
            inside = out.resolve()
            files = sorted(p for p in source.rglob("*") if is_image_name(p.name) and p.is_file())
            files = [p for p in files if inside not in p.resolve().parents and not _is_mask(p)]
            if not files:
                raise DataError(f"{source}: no image in this folder or below it")
            jobs += [Job(p, out / stem(str(p.relative_to(source)))) for p in files]
        elif source.exists():
            jobs.append(Job(source, out / stem(source.name)))
        else:
            raise DataError(f"{source}: does not exist; give image files or folders of images")
    taken: dict[Path, Path] = {}
    for job in jobs:
        other = taken.setdefault(job.target, job.image)
        if other != job.image:
            raise ConfigError(f"{other} and {job.image} would both become {job.target}_mask.png; predict them apart")
    return list({job.target: job for job in jobs}.values())


class Volume(NamedTuple):
    """A NIfTI file and what its header says."""

    job: Job
    planes: Planes


def pieces(
    jobs: Sequence[Job], batch: int, axis: Axis, problems: list[str]
) -> Iterator[tuple[int, list[Job] | Volume]]:
    """(files begun so far, up to ``batch`` images or one NIfTI file); a header that cannot be read is a problem."""
    waiting: list[Job] = []
    targets = {job.target for job in jobs}
    for done, job in enumerate(jobs, start=1):
        try:
            found = planes(job.image, axis) if may_hold_planes(job.image.name) else None
        except DataError as error:
            problems.append(str(error))
            continue
        if found is not None and is_nifti_name(job.image.name):
            yield done, Volume(job, found)
            continue
        for each in _frames(job, found):
            if each.frame is not None and each.target in targets:
                problems.append(
                    f"{each.name}: would become {each.target}_mask.png, as another file; predict them apart"
                )
                continue
            waiting.append(each)
            if len(waiting) == batch:
                yield done, waiting
                waiting = []
    if waiting or problems:
        yield len(jobs), waiting


def _frames(job: Job, found: Planes | None) -> Iterator[Job]:
    """The job itself, or one for each frame of a film."""
    if found is None or found.frames is None:
        yield job
        return
    digits = len(str(len(found.frames) - 1))
    for frame in found.frames:
        yield Job(job.image, job.target.with_name(f"{job.target.name}_f{frame.number:0{digits}}"), frame)


def _is_mask(path: Path) -> bool:
    name = stem(path.name)
    match = _MASK_NAME.match(name)
    endings = (path.name[len(name) :], ".png", ".jpg", ".nii.gz", ".nii", ".dcm")
    return match is not None and any(path.with_name(match.group(1) + ending).exists() for ending in endings)
