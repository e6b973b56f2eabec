"""Other scores of a mask, to compare with ``semidg.experiment.label_quality.mask_quality``; two classes.

Those of cleanlab (pip install 'semidg[audit]') are its own functions with their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from semidg.evaluation.predict import label_map
from semidg.experiment.label_quality import HeldOut, mask_quality
from semidg.experiment.scoring import overlap_dice

Floats = npt.NDArray[np.float64]


def candidates(items: Sequence[HeldOut]) -> dict[str, Floats]:
    """Name -> score of each mask of a data set, high is good."""
    from cleanlab.segmentation.rank import get_label_quality_scores

    labels = np.stack([item.mask for item in items]).astype(np.int64)
    stacked = np.stack([item.probabilities.numpy() for item in items])
    found: dict[str, Floats] = {}
    for temperature in (0.1, 0.02):
        values, _ = get_label_quality_scores(labels, stacked, temperature=temperature, verbose=False)
        found[f"cleanlab softmin, T {temperature}"] = values
    found["cleanlab num_pixel_issues"], _ = get_label_quality_scores(
        labels, stacked, method="num_pixel_issues", n_jobs=1, verbose=False
    )
    own = np.array([mask_quality(item.probabilities, item.mask) for item in items])
    best = np.array([mask_quality(item.probabilities, label_map(item.probabilities)) for item in items])
    found["Dice with the prediction"] = np.array(
        [overlap_dice(label_map(item.probabilities), item.mask, 2) for item in items]
    )
    found["soft Dice, shortfall"] = 1 - np.maximum(0, best - own)
    found["soft Dice, ratio"] = np.minimum(1, own / best)
    found["mean log-likelihood"] = np.array([likelihood(item) for item in items])
    return found


def likelihood(item: HeldOut) -> float:
    """exp of the mean over pixels of log p of the mask's class."""
    chosen = item.probabilities.gather(0, torch.from_numpy(item.mask.astype(np.int64))[None])
    return float(chosen.double().clamp_min(1e-7).log().mean().exp())
