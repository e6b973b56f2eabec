"""Image files in, masks, confidence maps and overlays out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semidg.data.images import is_image_name, read_image, resize_image
from semidg.errors import ConfigError, DataError
from semidg.evaluation.predict import confidence_map, label_map, to_original
from semidg.experiment.bundle import Bundle, to_inference
from semidg.report.figures import confidence_image, overlay, save_png

_MASK_NAME = re.compile(r"(.+)_mask(_\d+)?$")


class Job(NamedTuple):
    """An image, and where its results go: the path without ``_mask.png``."""

    image: Path
    target: Path


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
            jobs += [Job(p, out / p.relative_to(source).with_suffix("")) for p in files]
        elif source.exists():
            jobs.append(Job(source, out / source.stem))
        else:
            raise DataError(f"{source}: does not exist; give image files or folders of images")
    taken: dict[Path, Path] = {}
    for job in jobs:
        other = taken.setdefault(job.target, job.image)
        if other != job.image:
            raise ConfigError(f"{other} and {job.image} would both become {job.target}_mask.png; predict them apart")
    return list({job.target: job for job in jobs}.values())


def predict_files(
    bundle: Bundle,
    jobs: Sequence[Job],
    device: torch.device,
    batch: int = 16,
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write NAME_mask.png (0 / 255, or class numbers), NAME_confidence.png and NAME_overlay.png for each image.

    All at the image's own size. Images are read, predicted and written in batches, so memory does not grow with their
    number. A file that cannot be read is passed over; the problems are returned, a line each.
    """
    ensemble = to_inference(bundle.ensemble, device)
    problems: list[str] = []
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        for chunk in _chunks(jobs, batch):
            loaded = list(pool.map(lambda job: _load(job, bundle), chunk))
            good = [(job, item) for job, item in zip(chunk, loaded, strict=True) if not isinstance(item, str)]
            problems += [item for item in loaded if isinstance(item, str)]
            if good:
                images = np.stack([item[1] for _, item in good])
                with torch.inference_mode():
                    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device).float() / 255
                    probabilities = ensemble.predict(x.contiguous(memory_format=torch.channels_last)).float().cpu()
                tasks = [(job, item[0], p) for (job, item), p in zip(good, probabilities, strict=True)]
                list(pool.map(lambda task: _write(*task), tasks))
            done += len(chunk)
            if progress:
                progress(done, len(jobs))
    return problems


def _load(job: Job, bundle: Bundle) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | str:
    try:
        image = read_image(job.image, bundle.channels)
    except DataError as error:
        return str(error)
    return image, resize_image(image, bundle.size)


def _write(job: Job, image: npt.NDArray[np.uint8], probabilities: Tensor) -> None:
    full = to_original(probabilities, image.shape[0], image.shape[1])
    labels = label_map(full)
    binary = len(full) == 2
    job.target.parent.mkdir(parents=True, exist_ok=True)
    for kind, picture in (
        ("overlay", overlay(image, labels)),
        ("confidence", confidence_image(confidence_map(full))),
        ("mask", labels * 255 if binary else labels),
    ):
        save_png(picture, job.target.with_name(f"{job.target.name}_{kind}.png"))


def _is_mask(path: Path) -> bool:
    match = _MASK_NAME.match(path.stem)
    return match is not None and any(path.with_name(match.group(1) + s).exists() for s in (path.suffix, ".png", ".jpg"))


def _chunks(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    rest = iter(jobs)
    while chunk := list(islice(rest, size)):
        yield chunk
