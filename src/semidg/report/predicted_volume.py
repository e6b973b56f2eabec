"""A volume in; mask and confidence as NIfTI files with its geometry, and one overlay out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from semidg.data.images import resize_image
from semidg.evaluation.confidence import PredictionSums
from semidg.evaluation.predict import label_map, to_original
from semidg.experiment.bundle import Bundle
from semidg.report.figures import overlay
from semidg.report.png import save_png
from semidg.report.prediction_jobs import Volume
from semidg.report.prediction_lanes import Lanes
from semidg.report.volume_files import open_volume
from semidg.types import Frame

#: Images (size, size, C) uint8 -> probabilities (B, K, size, size) and confidence in [0, 1] (B, size, size) or None.
Networks = Callable[[Sequence[npt.NDArray[np.uint8]]], tuple[Tensor, Tensor | None]]


def predict_volume(
    work: Volume, bundle: Bundle, networks: Networks, lanes: Lanes, batch: int, masks_only: bool
) -> tuple[float, float]:
    """Write NAME_mask.nii.gz (class numbers) and, without masks_only, NAME_confidence.nii.gz (0 to 1, in steps of
    1/255) and NAME_overlay.png, the plane with the largest mask (the middle one if all are empty); returns (expected
    Dice, share of foreground). ``batch`` planes are one piece of work in the lanes.

    The expected Dice is that of the volume as one case: the score of a class is the mean of its probability over all
    voxels where it is predicted, so that a plane counts by its predicted area, as it does in the Dice of a volume.
    Raises DataError that names the file.
    """
    job, planes, volume = work.job, work.planes, open_volume(work)
    frames: list[Frame | None] = list(planes.frames or (None,))
    labels, confidence = (np.zeros(volume.shape, np.uint8, order="F") for _ in range(2))

    def predict(chunk: Sequence[Frame | None]) -> Tensor:
        """Fill in these planes; returns their probabilities."""
        images = [volume.image(frame, bundle.channels) for frame in chunk]
        probabilities, maps = networks([resize_image(image, bundle.size) for image in images])
        for k, frame in enumerate(chunk):
            found = label_map(to_original(probabilities[k], planes.height, planes.width))
            volume.plane(labels, frame)[...] = found
            if maps is not None:
                shown = to_original(maps[k][None], *found.shape)[0].numpy()
                volume.plane(confidence, frame)[...] = np.rint(shown * 255)
        return probabilities

    sums: PredictionSums | None = None
    chunks = [frames[start : start + batch] for start in range(0, len(frames), batch)]
    for probabilities in lanes.in_order(predict, chunks):
        for p in probabilities:
            sums = sums or PredictionSums(len(p))
            sums.add(p)
    assert sums is not None  # a file has a plane at least
    if not masks_only:
        areas = [int(np.count_nonzero(volume.plane(labels, frame))) for frame in frames]
        frame = frames[int(np.argmax(areas)) if any(areas) else len(frames) // 2]
        picture = overlay(volume.image(frame, bundle.channels), volume.plane(labels, frame))
        save_png(picture, job.target.with_name(f"{job.target.name}_overlay.png"))
        volume.save(job.target.with_name(f"{job.target.name}_confidence.nii.gz"), confidence, 1 / 255)
    volume.save(job.target.with_name(f"{job.target.name}_mask.nii.gz"), labels)
    return bundle.calibration.expected_dice_of(sums.scores()), float(np.count_nonzero(labels) / labels.size)
