"""Image files in; masks, confidence maps, overlays and a table with the expected Dice of each image or volume out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from semidg.augmentation.fourier import reference_view
from semidg.data.frames import Axis
from semidg.data.images import resize_image
from semidg.data.reading import plane_image
from semidg.errors import DataError
from semidg.evaluation.confidence import temper, variance
from semidg.evaluation.predict import confidence_map, label_map, to_original
from semidg.experiment.bundle import Bundle, to_inference
from semidg.files import atomic_path, write_bytes
from semidg.networks.ensemble import Ensemble
from semidg.report.colours import legend_png, palette
from semidg.report.figures import confidence_image, overlay, save_png
from semidg.report.predicted_volume import predict_volume
from semidg.report.prediction_jobs import Job, Volume, pieces


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
    """rows: one a predicted image, volume or frame of a film. problems: one line for each file that could not be read.
    files: how many files were predicted."""

    rows: list[Prediction]
    problems: list[str]
    files: int


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
    slice_axis: Axis = "auto",
    table: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Write NAME_mask.png (0 / 255, or class numbers with a palette), NAME_confidence.png and NAME_overlay.png for each
    image, and OUT/predictions.csv, the table of all of them; of several classes also OUT/legend.png, their colours.

    All at the image's own size. Of a NIfTI file mask and confidence are NAME_mask.nii.gz and NAME_confidence.nii.gz
    (see ``predicted_volume.py``), of a film each frame has its pictures, NAME_f017_mask.png. Images are read,
    predicted and written in batches, volumes one after the other, so memory does not grow with their number. A file
    that cannot be read is passed over. confidence: what the map shows, the calibrated probability or exp(-V) of the
    method's variance. refer_below: images of a lower expected Dice are marked for review. slice_axis: see
    ``data.frames.planes``. Rows of images that are not among the jobs, of an earlier call, stay in the table. table:
    False leaves it to the caller.
    """
    ensemble = to_inference(bundle.ensemble, device)
    networks = partial(_predict, bundle, ensemble, device, confidence)
    rows: list[Prediction] = []
    problems: list[str] = []
    files: set[Path] = set()

    def add(job: Job, kind: str, expected: float, share: float) -> None:
        mask = job.target.with_name(f"{job.target.name}_mask.{kind}").relative_to(out).as_posix()
        files.add(job.image)
        rows.append(Prediction(job.name, mask, expected, share, expected < refer_below))

    with ThreadPoolExecutor(threads) as pool:
        for done, work in pieces(jobs, batch, slice_axis, problems):
            if isinstance(work, Volume):
                try:
                    add(work.job, "nii.gz", *predict_volume(*work, bundle, networks, batch, pool))
                except DataError as error:
                    problems.append(str(error))
            else:
                loaded = list(pool.map(lambda job: _load(job, bundle), work))
                good = [(job, item) for job, item in zip(work, loaded, strict=True) if not isinstance(item, str)]
                problems += [item for item in loaded if isinstance(item, str)]
                if good:
                    probabilities, maps = networks([item[1] for _, item in good])
                    tasks = [(job, item[0], p, m) for (job, item), p, m in zip(good, probabilities, maps, strict=True)]
                    shares = pool.map(lambda task: _write(*task), tasks)
                    for (job, _, p, _), share in zip(tasks, shares, strict=True):
                        add(job, "png", bundle.calibration.expected_dice(p), share)
            if progress:
                progress(done, len(jobs))
    if rows and table:
        write_table(rows, out / "predictions.csv")
    if rows and bundle.network.classes > 2:
        write_bytes(out / "legend.png", legend_png(bundle.network.names))
    return Predicted(rows, list(dict.fromkeys(problems)), len(files))  # of a film the same for each frame


def _predict(
    bundle: Bundle, ensemble: Ensemble, device: torch.device, confidence: str, images: Sequence[npt.NDArray[np.uint8]]
) -> tuple[Tensor, Tensor]:
    """Probabilities (B, K, size, size) and confidence (B, size, size) of images (size, size, C), on the CPU."""
    with torch.inference_mode():
        x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device).float() / 255
        each = ensemble.predict_each(x.contiguous(memory_format=torch.channels_last))
        maps = _maps(bundle, ensemble, x, each, confidence)
        return each.mean(0).float().cpu(), maps


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
        image = plane_image(job.image, job.frame, bundle.channels)
    except DataError as error:
        return str(error)
    return image, resize_image(image, bundle.size)


def _write(job: Job, image: npt.NDArray[np.uint8], probabilities: Tensor, confidence: Tensor) -> float:
    """Write the three pictures; returns the share of foreground pixels."""
    height, width = image.shape[:2]
    full = to_original(probabilities, height, width)
    labels = label_map(full)
    classes = len(full)
    shown = to_original(confidence[None], height, width)[0].numpy()
    job.target.parent.mkdir(parents=True, exist_ok=True)
    for kind, picture, colours in (
        ("overlay", overlay(image, labels), None),
        ("confidence", confidence_image(shown), None),
        ("mask", labels * 255 if classes == 2 else labels, None if classes == 2 else palette(classes)),
    ):
        save_png(picture, job.target.with_name(f"{job.target.name}_{kind}.png"), colours)
    return float(np.count_nonzero(labels) / labels.size)
