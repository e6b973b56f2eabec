"""Other scores of a mask, to compare with ``semidg.experiment.label_quality.mask_quality``; two classes.

Those of cleanlab (pip install 'semidg[audit]') are its own functions with their defaults.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from semidg.errors import ConfigError
from semidg.evaluation.confidence import FLOOR
from semidg.evaluation.predict import label_map
from semidg.experiment.label_quality import CREDIT, HeldOut, shortfall, surprise
from semidg.experiment.scoring import overlap_dice

Floats = npt.NDArray[np.float64]


def candidates(items: Sequence[HeldOut]) -> dict[str, Floats]:
    """Name -> score of each mask of a data set, high is good."""
    pairs = [(item.probabilities, item.mask) for item in items]
    singles = {
        "surprise alone": lambda p, m: -surprise(p, m),
        "shortfall alone": lambda p, m: -shortfall(p, m),
        "surprise beyond that of the prediction": lambda p, m: surprise(p, label_map(p)) - surprise(p, m),
        "soft Dice": soft_dice,
        "Dice with the prediction": lambda p, m: overlap_dice(label_map(p), m, 2),
        "mean log-likelihood of the pixels": likelihood,
    }
    found: dict[str, Floats] = {name: np.array([score(*pair) for pair in pairs]) for name, score in singles.items()}
    labels = np.stack([mask for _, mask in pairs]).astype(np.int64)
    stacked = np.stack([probabilities.numpy() for probabilities, _ in pairs])
    for method in ("softmin", "num_pixel_issues"):
        found[f"cleanlab {method}"] = cleanlab_scores(labels, stacked, method)
    return found


def cleanlab_scores(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], method: str) -> Floats:
    """Those of cleanlab's get_label_quality_scores, defaults but for one process; (N, S, S), (N, K, S, S) -> (N,)."""
    try:
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError as error:
        raise ConfigError("--candidates needs the package cleanlab: pip install 'semidg[audit]'") from error
    scores, _ = get_label_quality_scores(labels, probabilities, method=method, n_jobs=1, verbose=False)
    return np.asarray(scores, np.float64)


def soft_dice(probabilities: Tensor, mask: npt.NDArray[np.uint8]) -> float:
    """2 sum m p / (sum m + sum p), with the credit of ``shortfall``."""
    p, credit = probabilities[1].double().numpy(), CREDIT * mask.size
    return float((2 * p[mask == 1].sum() + credit) / (np.count_nonzero(mask) + p.sum() + credit))


def likelihood(probabilities: Tensor, mask: npt.NDArray[np.uint8]) -> float:
    """Mean over all pixels of log p of the mask's class."""
    chosen = probabilities.gather(0, torch.from_numpy(mask.astype(np.int64))[None])
    return float(chosen.double().clamp_min(FLOOR).log().mean())
