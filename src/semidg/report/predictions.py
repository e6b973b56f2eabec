"""Image files in; masks, confidence maps, overlays and a table with the expected Dice of each image out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from semidg.augmentation.fourier import reference_view
from semidg.data.images import is_image_name, read_image, resize_image
from semidg.errors import ConfigError, DataError
from semidg.evaluation.confidence import temper, variance
from semidg.evaluation.predict import confidence_map, label_map, to_original
from semidg.experiment.bundle import Bundle, to_inference
from semidg.files import atomic_path
from semidg.networks.ensemble import Ensemble
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


class Prediction(NamedTuple):
    """A row of predictions.csv: what is known of a predicted image without its truth.

    mask: path of the mask relative to the folder of the table. expected_dice: 0 to 1. foreground: predicted share of
    the pixels that are not background, 0 to 1. refer: whether a person should look at it first.
    """

    image: str
    mask: str
    expected_dice: float
    foreground: float
    refer: bool


class Predicted(NamedTuple):
    """rows: one a predicted image. problems: one line for each file that could not be read."""

    rows: list[Prediction]
    problems: list[str]


def predict_files(
    bundle: Bundle,
    jobs: Sequence[Job],
    out: Path,
    device: torch.device,
    *,
    batch: int = 16,
    threads: int = 2,
    confidence: Literal["probability", "variance"] = "probability",
    refer_below: float = 0.0,
    table: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Write NAME_mask.png (0 / 255, or class numbers), NAME_confidence.png and NAME_overlay.png for each image, and
    OUT/predictions.csv, the table of all of them.

    All at the image's own size. Images are read, predicted and written in batches, so memory does not grow with their
    number. A file that cannot be read is passed over. confidence: what the map shows, the calibrated probability or
    exp(-V) of the method's variance. refer_below: images of a lower expected Dice are marked for review. Rows of
    images that are not among the jobs, of an earlier call, stay in the table. table: False leaves it to the caller.
    """
    ensemble = to_inference(bundle.ensemble, device)
    rows: list[Prediction] = []
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
                    each = ensemble.predict_each(x.contiguous(memory_format=torch.channels_last))
                    maps = _maps(bundle, ensemble, x, each, confidence)
                    probabilities = each.mean(0).float().cpu()
                tasks = [(job, item[0], p, m) for (job, item), p, m in zip(good, probabilities, maps, strict=True)]
                foreground = pool.map(lambda task: _write(*task), tasks)
                for (job, _, p, _), share in zip(tasks, foreground, strict=True):
                    expected = bundle.calibration.expected_dice(p)
                    mask = job.target.with_name(f"{job.target.name}_mask.png").relative_to(out).as_posix()
                    rows.append(Prediction(str(job.image), mask, expected, share, expected < refer_below))
            done += len(chunk)
            if progress:
                progress(done, len(jobs))
    if rows and table:
        write_table(rows, out / "predictions.csv")
    return Predicted(rows, problems)


def _maps(bundle: Bundle, ensemble: Ensemble, x: Tensor, each: Tensor, confidence: str) -> Tensor:
    """The confidence of each image at the size of the networks, (B, size, size) in [0, 1]; each: (N, B, K, H, W)."""
    if confidence == "probability":
        tempered = (temper(p, bundle.calibration.temperature) for p in each.mean(0).float().cpu())
        return torch.stack([torch.from_numpy(confidence_map(p)) for p in tempered])
    views = None
    if bundle.references is not None:
        mixed = [
            reference_view(x, window.to(x.device), bundle.view_lam, bundle.fourier.window)
            for window in bundle.references
        ]
        views = torch.stack([ensemble.predict_each(z.contiguous(memory_format=torch.channels_last)) for z in mixed])
    return (
        torch.stack([variance(each[:, b], None if views is None else views[:, :, b]) for b in range(len(x))])
        .neg()
        .exp()
        .cpu()
    )


def write_table(rows: Sequence[Prediction], path: Path) -> None:
    """predictions.csv, sorted by expected Dice, least certain first; rows of other masks in it are kept."""
    table = pd.DataFrame(rows, columns=list(Prediction._fields))
    try:
        old = pd.read_csv(path, keep_default_na=False)[list(Prediction._fields)]
    except FileNotFoundError:
        old = table.iloc[:0]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: exists, but is no table of predictions; choose another --out") from error
    kept = old[~old["mask"].isin(table["mask"])]
    if len(kept):
        table = pd.concat([kept, table], ignore_index=True)
    table = table.sort_values(["expected_dice", "mask"], kind="stable")
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f")


def _load(job: Job, bundle: Bundle) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] | str:
    try:
        image = read_image(job.image, bundle.channels)
    except DataError as error:
        return str(error)
    return image, resize_image(image, bundle.size)


def _write(job: Job, image: npt.NDArray[np.uint8], probabilities: Tensor, confidence: Tensor) -> float:
    """Write the three pictures; returns the share of foreground pixels."""
    height, width = image.shape[:2]
    full = to_original(probabilities, height, width)
    labels = label_map(full)
    binary = len(full) == 2
    shown = to_original(confidence[None], height, width)[0].numpy()
    job.target.parent.mkdir(parents=True, exist_ok=True)
    for kind, picture in (
        ("overlay", overlay(image, labels)),
        ("confidence", confidence_image(shown)),
        ("mask", labels * 255 if binary else labels),
    ):
        save_png(picture, job.target.with_name(f"{job.target.name}_{kind}.png"))
    return float(np.count_nonzero(labels) / labels.size)


def _is_mask(path: Path) -> bool:
    match = _MASK_NAME.match(path.stem)
    return match is not None and any(path.with_name(match.group(1) + s).exists() for s in (path.suffix, ".png", ".jpg"))


def _chunks(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    rest = iter(jobs)
    while chunk := list(islice(rest, size)):
        yield chunk
