"""What is to be predicted, and in which pieces: files and folders -> jobs -> batches of images, or one volume.

The slices of a DICOM series in a folder are one job; a slice that is given by itself is an image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from semidg.data.dicom_series import Series, arrange, in_folder
from semidg.data.frames import Axis, Orientation, Planes, may_hold_planes, planes
from semidg.data.images import is_dicom_name, is_image_name, is_volume_name, stem
from semidg.data.suggest import named_alike
from semidg.errors import ConfigError, DataError
from semidg.types import Frame

_MASK_NAME = re.compile(r"(.+)(?:[_-](?:mask|segmentation|seg|gt|label)(?:_?\d+)?|\.seg)", re.IGNORECASE)
_MASK_FOLDERS = {"masks": "images", "labelstr": "imagestr"}
_LIKE_MASKS = re.compile(
    r"(masks?|labels?|gt|ground[ _-]?truths?|annotations?|segmentations?)([ _-](mha|mhd|nii|nrrd|png))?", re.IGNORECASE
)


class Job(NamedTuple):
    """An image, and where its results go: the path without ``_mask.png``. frame: of a film, else None. series: all
    files of a DICOM series, of which ``image`` is the first by name."""

    image: Path
    target: Path
    frame: Frame | None = None
    series: tuple[Path, ...] = ()

    def absolute(self) -> Job:
        """The job for another working folder."""
        return self._replace(image=self.image.absolute(), series=tuple(path.absolute() for path in self.series))

    @property
    def name(self) -> str:
        """What the table calls it: the path, and the frame of a film."""
        return str(self.image) if self.frame is None else f"{self.image}:{self.frame}"


def find_jobs(inputs: Sequence[Path], out: Path) -> list[Job]:
    """Images of files and folders; sub-folders are kept. Masks are left out: beside their image (NAME_mask, NAME_seg),
    in a folder masks beside a folder images, or in one such as GT beside another whose images have their names or names
    alike.

    Raises DataError for an input that is not there or holds no image, ConfigError where two would share a result.
    """
    jobs: list[Job] = []
    for source in inputs:
        if source.is_dir():
            inside, whole = out.resolve(), source.resolve()
            if inside == whole:
                raise ConfigError(f"--out {out}: is the folder of the images; choose another, or one below it")
            folders = _Folders(source)
            files = sorted(p for p in source.rglob("*") if is_image_name(p.name) and p.is_file())
            files = [p for p in files if not folders.beside_its_image(p) and not folders.of_masks(p)]
            if whole in inside.parents:  # earlier results
                files = [p for p in files if inside not in p.resolve().parents]
            if not files:
                raise DataError(f"{source}: no image in this folder or below it")
            volumes = _series_in(source, files, out)
            slices = {path for job in volumes for path in job.series}
            jobs += volumes
            jobs += [Job(p, out / stem(str(p.relative_to(source)))) for p in files if p not in slices]
        elif source.exists():
            if source.resolve().parent == out.resolve():  # its NAME_mask.png may be the truth
                raise ConfigError(f"--out {out}: is the folder of {source}; choose another, or one below it")
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
    """A volume file or DICOM series and what the headers say."""

    job: Job
    planes: Planes
    series: Series | None = None


def like_frames(jobs: Sequence[Job]) -> frozenset[Path]:
    """The targets that are called like the frame of a film might be."""
    return frozenset(job.target for job in jobs if re.search(r"_f\d+$", job.target.name))


def pieces(
    jobs: Sequence[Job], batch: int, axis: Axis, orientation: Orientation, problems: list[str], taken: frozenset[Path]
) -> Iterator[tuple[int, list[Job] | Volume]]:
    """(files begun so far, up to ``batch`` images or one volume); a header that cannot be read is a problem, and so is
    the frame of a film that would become what is ``taken`` by another file, in whichever part that is."""
    waiting: list[Job] = []
    for done, job in enumerate(jobs, start=1):
        try:
            if job.series:
                yield done, _volume(job)
                continue
            found = planes(job.image, axis, orientation) if may_hold_planes(job.image.name) else None
        except DataError as error:
            problems.append(str(error))
            continue
        if found is not None and is_volume_name(job.image.name):
            yield done, Volume(job, found)
            continue
        for each in _frames(job, found):
            if each.frame is not None and each.target in taken:
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


def _series_in(source: Path, files: Sequence[Path], out: Path) -> list[Job]:
    """A job for each DICOM series of several files in one folder. It is called like the folder, or like its first file
    where the folder holds several series."""
    folders: dict[Path, set[Path]] = {}
    for path in files:
        if is_dicom_name(path.name):
            folders.setdefault(path.parent, set()).add(path)
    jobs = []
    for folder, own in folders.items():
        found = [[folder / each.name for each in slices] for slices in in_folder(folder, ".").values()]
        found = [some for names in found if len(some := [path for path in names if path in own]) > 1]
        within = folder.relative_to(source)
        for names in found:
            name = within / stem(names[0].name) if len(found) > 1 else within
            target = out / name if name.name else out / source.resolve().name
            jobs.append(Job(names[0], target, None, tuple(names)))
    return jobs


def _volume(job: Job) -> Volume:
    """Raises DataError that names the first file where the series is no volume."""
    folder = job.image.parent
    own = {path.name for path in job.series}
    slices = [each for some in in_folder(folder, ".").values() for each in some if each.name in own]
    if len(slices) != len(own):
        raise DataError(f"{job.image}: files of its series are gone; start again")
    try:
        series = arrange(slices, folder)
    except DataError as error:
        raise DataError(f"{folder / str(error)}") from error
    frames = tuple(Frame("z", number) for number in range(len(series.files)))
    return Volume(job, Planes(frames, series.width, series.height, series.spacing, series.slice_mm), series)


class _Folders:
    """Folders of images and of masks below ``source``; each is listed once."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._names: dict[Path, dict[str, None]] = {}
        self._alike: dict[tuple[Path, Path], bool] = {}

    def beside_its_image(self, path: Path) -> bool:
        """Whether a file is called like the mask of another in its folder, whatever the endings are."""
        match = _MASK_NAME.fullmatch(stem(path.name))
        return match is not None and match[1] in self._in(path.parent)

    def of_masks(self, path: Path) -> bool:
        """Whether a file lies in a folder of masks beside one of images, both in the source: of a data set."""
        for folder in path.parents[: len(path.relative_to(self._source).parents) - 1]:
            images = _MASK_FOLDERS.get(folder.name.lower())
            if images is None and not _LIKE_MASKS.fullmatch(folder.name):
                continue
            for other in folder.parent.iterdir():
                if other == folder or not other.is_dir() or _LIKE_MASKS.fullmatch(other.name):
                    continue
                beside = (other / path.relative_to(folder)).parent
                if other.name.lower() == images or stem(path.name) in self._in(beside):
                    return True
                if self._named_alike(beside, path.parent):
                    return True
        return False

    def _in(self, folder: Path) -> dict[str, None]:
        """The names of the images, sorted and without ending."""
        if folder not in self._names:
            there = folder.iterdir() if folder.is_dir() else ()
            names = sorted(stem(path.name) for path in there if is_image_name(path.name))
            self._names[folder] = dict.fromkeys(names)
        return self._names[folder]

    def _named_alike(self, images: Path, masks: Path) -> bool:
        if (images, masks) not in self._alike:
            self._alike[images, masks] = named_alike(list(self._in(images)), list(self._in(masks)))
        return self._alike[images, masks]
