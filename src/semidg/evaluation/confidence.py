"""Confidence: of a pixel, and of a whole image without its truth.

Three things are kept apart:

- the **variance** of the method itself, V = V_view + V_net, the disagreement between the views of a network
  (METHOD equation 3) and between the networks (equations 8, 9); exp(-V) is its confidence map, in (0, 1];
- the **calibrated probability**: p^(1/T) / sum p^(1/T) of the mean of the networks, T fitted on the validation part
  (temperature scaling, Guo et al., ICML 2017, on the logarithm of the averaged probabilities);
- the **expected Dice** of an image: the mean probability of the predicted pixels, brought to the scale of the real
  Dice by a straight line fitted on the validation part. Probabilities cannot say whether an empty prediction is right;
  what it is worth is counted on the validation part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from semidg.evaluation.predict import label_map

#: Probabilities below this are raised to it wherever a logarithm is taken.
FLOOR = 1e-7

#: Temperatures that can be fitted; beyond them the probabilities say nothing, or the fit has run away.
TEMPERATURES = (0.2, 10.0)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What turns probabilities into confidence: T, and expected Dice = clip(intercept + slope * mean p, 0, 1).

    empty: the expected Dice of an empty prediction. part, n: where it was fitted, and on how many images; n = 0 is the
    uncalibrated identity.
    """

    temperature: float = 1.0
    intercept: float = 0.0
    slope: float = 1.0
    empty: float = 0.0
    part: str | None = None
    n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Back from JSON; raises TypeError or ValueError for unknown or wrong values."""
        result = cls(**values)
        if not all(math.isfinite(v) for v in (result.temperature, result.intercept, result.slope, result.empty)):
            raise ValueError("calibration is not finite")
        if result.temperature <= 0:
            raise ValueError(f"temperature {result.temperature} is not positive")
        return result

    def expected_dice(self, probabilities: Tensor) -> float:
        """What Dice to expect of the label map of ``probabilities``, (K, H, W) or (K, D, H, W), not tempered.

        The mean over the foreground classes, in [0, 1].
        """
        return self.expected_dice_of(prediction_scores(probabilities))

    def expected_dice_of(self, scores: Sequence[float | None]) -> float:
        """The same from the score of each foreground class, which a volume has from all its planes together."""
        line = [self.empty if s is None else min(1.0, max(0.0, self.intercept + self.slope * s)) for s in scores]
        return float(np.mean(line))


def variance(plain: Tensor, views: Tensor | None = None) -> Tensor:
    """V = V_view + V_net a pixel, (H, W), >= 0.

    plain: probabilities of the N networks on the image, (N, K, H, W). views: the same on M views of it,
    (M, N, K, H, W). V_view = mean over networks and views of KL(P_F || P_O); 0 without views. V_net = mean over the
    ordered pairs of networks of KL(P_k || P_j); 0 for one network.
    """
    n = len(plain)
    result = torch.zeros_like(plain[0, 0])
    if n > 1:
        pairs = [(k, j) for k in range(n) for j in range(n) if k != j]
        result = torch.stack([kl_divergence(plain[k], plain[j]) for k, j in pairs]).mean(0)
    if views is not None and len(views):
        result = result + kl_divergence(views, plain.expand_as(views), dim=2).mean((0, 1))
    return result


def kl_divergence(p: Tensor, q: Tensor, dim: int = 0) -> Tensor:
    """sum_c p log(p / q) over the classes in dimension ``dim``; finite, >= 0."""
    return (p * (p.clamp_min(FLOOR).log() - q.clamp_min(FLOOR).log())).sum(dim).clamp_min(0)


def temper(probabilities: Tensor, temperature: float) -> Tensor:
    """p^(1/T) / sum_c p^(1/T) over the classes in dimension 0: (K, ...), same order of classes at each pixel."""
    if temperature == 1:
        return probabilities
    return torch.softmax(probabilities.clamp_min(FLOOR).log() / temperature, 0)


def fit_temperature(probabilities: Floats, labels: npt.NDArray[np.integer[Any]]) -> float:
    """The T in TEMPERATURES that minimises the mean of -log p^(1/T)[label] / sum p^(1/T).

    probabilities: (n, K), a row a pixel. labels: (n,) class numbers.
    """
    logs = np.log(np.maximum(probabilities, FLOOR))
    rows = np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        largest = scaled.max(1, keepdims=True)
        normaliser = largest[:, 0] + np.log(np.exp(scaled - largest).sum(1))
        return float((normaliser - scaled[rows, labels]).mean())

    low, high = (math.log(t) for t in TEMPERATURES)
    found = minimize_scalar(nll, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(math.exp(found.x))


def prediction_scores(probabilities: Tensor) -> list[float | None]:
    """For each foreground class the mean of its probability over the pixels where it is predicted; (K, H, W) or
    (K, D, H, W) in.

    None where it is predicted nowhere. It orders images as well as the soft Dice of prediction and probabilities does,
    and lies nearer to a straight line with the real Dice (docs/results.md).
    """
    sums = PredictionSums(len(probabilities))
    sums.add(probabilities)
    return sums.scores()


class PredictionSums:
    """``prediction_scores`` of a case whose planes are seen one after the other, without keeping them."""

    def __init__(self, classes: int) -> None:
        self.totals, self.counts = [0.0] * (classes - 1), [0] * (classes - 1)

    def add(self, probabilities: Tensor) -> None:
        """One plane, (K, H, W)."""
        labels, values = label_map(probabilities), probabilities.detach().cpu().numpy()
        for k in range(len(self.totals)):
            inside = values[k + 1][labels == k + 1]
            self.totals[k] += float(torch.from_numpy(inside).sum(dtype=torch.float64))
            self.counts[k] += inside.size

    def scores(self) -> list[float | None]:
        """Of all that was added, one a foreground class."""
        return [total / n if n else None for total, n in zip(self.totals, self.counts, strict=True)]


def fit_expected_dice(scores: Floats, dice: Floats) -> tuple[float, float]:
    """(intercept, slope) of the least-squares line dice = intercept + slope * score; both arrays (n,).

    A slope that comes out negative, or cannot be known because all scores agree, is set to 0: the mean Dice is then
    the best guess for every image.
    """
    centred = scores - scores.mean()
    spread = float(centred @ centred)
    slope = max(0.0, float(centred @ dice) / spread) if spread > 1e-12 else 0.0
    return float(dice.mean() - slope * scores.mean()), slope


def fit_empty(dice_of_empty: Floats, share_without: float) -> float:
    """What an empty prediction is worth: the mean of its Dice on n validation images, (n,), and of one more case.

    The one more is ``share_without``, the share of the images in which the class is absent in truth: all that is known
    where no prediction was empty.
    """
    return float((dice_of_empty.sum() + share_without) / (len(dice_of_empty) + 1))
