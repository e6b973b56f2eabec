"""A batch of image files in; their masks, confidence maps and overlays out, and a row of the table for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semidg.augmentation.fourier import reference_view
from semidg.config import Augmentation
from semidg.data.frames import Axis, Orientation
from semidg.data.images import resize_image
from semidg.data.reading import plane_image
from semidg.errors import DataError
from semidg.evaluation.confidence import temper, variance
from semidg.evaluation.predict import confidence_map, label_map, to_original
from semidg.experiment.bundle import Bundle, to_inference
from semidg.report.colours import palette
from semidg.report.figures import CONFIDENCE_COLOURS, confidence_numbers, overlay
from semidg.report.png import save_png
from semidg.report.predicted_volume import predict_volume
from semidg.report.prediction_jobs import Job, Volume
from semidg.report.prediction_lanes import Lanes

Pixels = npt.NDArray[np.uint8]


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


@dataclass(frozen=True)
class Options:
    """How to predict. batch: images at once. threads: of the CPU, in all. confidence: what the map shows, the
    calibrated probability or exp(-V) of the method's variance. refer_below: images of a lower expected Dice are marked
    for review. slice_axis, orientation: see ``data.frames.planes``. masks_only: no confidence maps
    and no overlays. augmentation: in place of the model's own."""

    batch: int = 16
    threads: int = 2
    confidence: Literal["probability", "variance"] = "probability"
    refer_below: float = 0.0
    slice_axis: Axis = "auto"
    masks_only: bool = False
    orientation: Orientation = "stored"
    augmentation: Augmentation | None = None


class Found(NamedTuple):
    """rows: those of the images that could be read, with their job. problems: a line for each of the others."""

    rows: list[tuple[Job, Prediction]]
    problems: list[str]


class Predictor:
    """Networks on a device, and where and how to write what they predict; for any number of threads."""

    def __init__(self, bundle: Bundle, out: Path, device: torch.device, options: Options, lanes: Lanes) -> None:
        self.bundle, self.out, self.device, self.options, self.lanes = bundle, out, device, options, lanes
        self.ensemble = to_inference(bundle.ensemble, device)
        self.ensemble.augmentation = options.augmentation or bundle.ensemble.augmentation

    def images(self, jobs: Sequence[Job]) -> Found:
        """Read, predict and write plain images or frames of films."""
        loaded: list[tuple[Job, Pixels]] = []
        problems: list[str] = []
        for job in jobs:
            try:
                loaded.append((job, plane_image(job.image, job.frame, self.bundle.channels)))
            except DataError as error:
                problems.append(str(error))
        if not loaded:
            return Found([], problems)
        probabilities, maps = self.networks([resize_image(image, self.bundle.size) for _, image in loaded])
        rows = []
        for k, (job, image) in enumerate(loaded):
            share = self._write(job, image, probabilities[k], None if maps is None else maps[k])
            rows.append(self._row(job, "png", self.bundle.calibration.expected_dice(probabilities[k]), share))
        return Found(rows, problems)

    def volume(self, work: Volume) -> Found:
        """Read, predict and write a volume file or a DICOM series, its planes in batches in the lanes."""
        try:
            of = self.options
            found = predict_volume(work, self.bundle, self.networks, self.lanes, of.batch, of.masks_only)
        except DataError as error:
            return Found([], [str(error)])
        return Found([self._row(work.job, "nii.gz", *found)], [])

    def networks(self, images: Sequence[Pixels]) -> tuple[Tensor, Tensor | None]:
        """Probabilities (B, K, size, size) and confidence (B, size, size) of images (size, size, C), on the CPU;
        without confidence maps None."""
        with self.lanes.networks(), torch.inference_mode():
            x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.device).float() / 255
            each = self.ensemble.predict_each(x.contiguous(memory_format=torch.channels_last))
            probabilities = each.mean(0).float().cpu()
            return probabilities, None if self.options.masks_only else self._confidence(x, each, probabilities)

    def _confidence(self, x: Tensor, each: Tensor, probabilities: Tensor) -> Tensor:
        """The confidence of each image at the size of the networks, (B, size, size) in [0, 1]; each: (N, B, K, H, W),
        probabilities: their mean over N, on the CPU."""
        bundle = self.bundle
        if self.options.confidence == "probability":
            tempered = (temper(p, bundle.calibration.temperature) for p in probabilities)
            return torch.stack([torch.from_numpy(confidence_map(p)) for p in tempered])
        views = None
        if bundle.references is not None:
            mixed = [
                reference_view(x, window.to(x.device), bundle.view_lam, bundle.fourier.window)
                for window in bundle.references
            ]
            views = torch.stack(
                [self.ensemble.predict_each(z.contiguous(memory_format=torch.channels_last)) for z in mixed]
            )
        of = [variance(each[:, b], None if views is None else views[:, :, b]) for b in range(len(x))]
        return torch.stack(of).neg().exp().cpu()

    def _row(self, job: Job, kind: str, expected: float, share: float) -> tuple[Job, Prediction]:
        mask = job.target.with_name(f"{job.target.name}_mask.{kind}").relative_to(self.out).as_posix()
        return job, Prediction(job.name, mask, expected, share, expected < self.options.refer_below)

    def _write(self, job: Job, image: Pixels, probabilities: Tensor, confidence: Tensor | None) -> float:
        """Write the pictures, the mask last; returns the share of foreground pixels."""
        height, width = image.shape[:2]
        labels = label_map(to_original(probabilities, height, width))
        classes = len(probabilities)

        def path(kind: str) -> Path:
            return job.target.with_name(f"{job.target.name}_{kind}.png")

        if confidence is not None:
            save_png(overlay(image, labels), path("overlay"))
            shown = to_original(confidence[None], height, width)[0].numpy()
            save_png(confidence_numbers(shown), path("confidence"), CONFIDENCE_COLOURS)
        if classes == 2:
            save_png(labels * 255, path("mask"))
        else:
            save_png(labels, path("mask"), palette(classes))
        return float(np.count_nonzero(labels) / labels.size)
