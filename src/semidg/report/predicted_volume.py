"""A NIfTI file in; mask and confidence as NIfTI files with its geometry, and one overlay out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt
from torch import Tensor

from semidg.data import nifti
from semidg.data.frames import Planes
from semidg.data.images import resize_image
from semidg.data.reading import plane_image
from semidg.evaluation.confidence import PredictionSums
from semidg.evaluation.predict import label_map, to_original
from semidg.experiment.bundle import Bundle
from semidg.report.figures import overlay, save_png
from semidg.report.prediction_jobs import Job
from semidg.types import Frame

#: Images (size, size, C) uint8 -> probabilities (B, K, size, size) and confidence in [0, 1] (B, size, size).
Networks = Callable[[Sequence[npt.NDArray[np.uint8]]], tuple[Tensor, Tensor]]


def predict_volume(
    job: Job, planes: Planes, bundle: Bundle, networks: Networks, batch: int, pool: Executor
) -> tuple[float, float]:
    """Write NAME_mask.nii.gz (class numbers), NAME_confidence.nii.gz (0 to 1, in steps of 1/255) and NAME_overlay.png,
    the plane with the largest mask (the middle one if all are empty); returns (expected Dice, share of foreground).

    The expected Dice is that of the volume as one case: the score of a class is the mean of its probability over all
    voxels where it is predicted, so that a plane counts by its predicted area, as it does in the Dice of a volume.
    Raises DataError that names the file.
    """
    frames: list[Frame | None] = list(planes.frames or (None,))
    shape = nifti.read_header(job.image).shape
    labels, confidence = (np.zeros(shape, np.uint8, order="F") for _ in range(2))
    sums: PredictionSums | None = None
    largest, shown = 0, None
    for start in range(0, len(frames), batch):
        chunk = frames[start : start + batch]
        images = list(pool.map(lambda frame: plane_image(job.image, frame, bundle.channels), chunk))
        probabilities, maps = networks([resize_image(image, bundle.size) for image in images])
        for frame, image, p, m in zip(chunk, images, probabilities, maps, strict=True):
            sums = sums or PredictionSums(len(p))
            sums.add(p)
            found = label_map(to_original(p, planes.height, planes.width))
            nifti.plane(labels, frame)[...] = found
            nifti.plane(confidence, frame)[...] = np.rint(to_original(m[None], *found.shape)[0].numpy() * 255)
            area = int(np.count_nonzero(found))
            if area > largest or (not largest and (shown is None or frame == frames[len(frames) // 2])):
                largest, shown = area, (image, found)
    assert sums is not None  # a file has a plane at least
    assert shown is not None
    save_png(overlay(*shown), job.target.with_name(f"{job.target.name}_overlay.png"))
    nifti.save_like(job.target.with_name(f"{job.target.name}_confidence.nii.gz"), job.image, confidence, 1 / 255)
    nifti.save_like(job.target.with_name(f"{job.target.name}_mask.nii.gz"), job.image, labels)
    return bundle.calibration.expected_dice_of(sums.scores()), float(np.count_nonzero(labels) / labels.size)
