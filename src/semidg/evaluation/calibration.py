"""Is the confidence true? Calibration of pixels, expected against real Dice, and what referring cases would bring.

Each case, an image or a whole volume, weighs the same, whatever its size: sums are taken over its pixels and divided
by their number. Cases of one group are resampled together, as everywhere (``statistics``).

    ECE    = sum_b w_b |accuracy_b - confidence_b|      over bins b of the confidence (the largest probability)
    Brier  = mean over pixels of sum_c (p_c - y_c)^2 / 2     for two classes (p_1 - y_1)^2, in [0, 1]

Most pixels of an image are easy background, which makes any ECE look small. The boundary ECE therefore takes only
the pixels within BOUNDARY_WIDTH of the true boundary of some class, where a contour is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import distance_transform_cdt
from scipy.stats import rankdata
from torch import Tensor

from semidg.evaluation.confidence import Calibration, temper
from semidg.types import IGNORE_INDEX

Floats = npt.NDArray[np.float64]

#: Bins of the confidence between 1 / K and 1.
BINS = 15
#: Half-width of the band along the true boundary, in pixels of the original image (chessboard distance).
BOUNDARY_WIDTH = 10
#: Shares of the cases sent to a person, in the table of referrals.
SHARES = (0.1, 0.2, 0.3, 0.5)

_COVERAGES = tuple(k / 20 for k in range(1, 21))


@dataclass
class PixelSums:
    """Sums over the pixels of each case, from which ECE and Brier score are made, before and after tempering.

    Rows are cases, an image or all planes of a volume; ``reliability`` holds for each bin (number of pixels, sum of
    confidence, number of correct ones), ``brier`` (sum over the pixels of the squared distance, their number).
    """

    calibration: Calibration
    reliability: dict[str, list[Floats]] = field(default_factory=dict)
    brier: dict[str, list[Floats]] = field(default_factory=dict)

    def add(
        self,
        probabilities: Tensor,
        prediction: npt.NDArray[np.integer[Any]],
        truth: npt.NDArray[Any],
        *,
        same_case: bool = False,
    ) -> None:
        """One image: probabilities (K, H, W) not tempered, their label map (H, W) and the true one (H, W).

        same_case: it is a further plane of the volume that the last one belonged to.
        """
        known = truth != IGNORE_INDEX
        band = boundary_band(truth, len(probabilities)) & known
        # one number a pixel for what it is counted under: in the band or not, correct or not, and later its bin
        kind = (band.astype(np.int16) * 2 + (prediction == truth)) * np.int16(BINS)
        target = np.where(known, truth, 0)[None].astype(np.int64)
        everywhere = bool(known.all())
        for name, values in (
            ("", temper(probabilities, self.calibration.temperature)),
            ("_uncalibrated", probabilities),
        ):
            p = values.numpy()
            confidence, lowest = p.max(0), 1 / len(p)
            place = kind + np.minimum((confidence - lowest) * (BINS / (1 - lowest)), BINS - 1).astype(np.int16)
            # sum_c (p_c - y_c)^2 = sum_c p_c^2 - 2 p_y + 1
            error = np.square(p).sum(0) - 2 * np.take_along_axis(p, target, 0)[0] + 1
            if not everywhere:
                place, confidence, error = place[known], confidence[known], error[known]
            _append(self.brier, name, np.array([error.sum(dtype=np.float64) / 2, error.size]), same_case)
            place = place.ravel()
            count, total = (
                np.bincount(place, weights, 4 * BINS).reshape(2, 2, BINS) for weights in (None, confidence.ravel())
            )
            # (band, correct, bin) -> of all pixels and of the band: count, sum of confidence, number of correct ones
            table = np.stack([count.sum(1), total.sum(1), count[:, 1]], -1)
            for where, sums in (("pixels", table.sum(0)), ("boundary", table[1])):
                _append(self.reliability, f"{where}{name}", sums, same_case)

    def summary(self, groups: npt.NDArray[Any], classes: int) -> dict[str, Any]:
        """The block ``pixels`` of a summary: ECE, Brier score and boundary ECE with intervals, reliability tables."""
        result: dict[str, Any] = {"boundary_width": BOUNDARY_WIDTH}
        for name in ("", "_uncalibrated"):
            table = _shares(self.reliability[f"pixels{name}"])
            result[f"ece{name}"] = _with_interval(lambda rows, t=table: ece(t[rows]), groups)  # type: ignore[misc]
            sums = np.stack(self.brier[name])
            brier = sums[:, 0] / sums[:, 1]
            result[f"brier{name}"] = _with_interval(lambda rows, b=brier: float(b[rows].mean()), groups)  # type: ignore[misc]
            edge = _shares(self.reliability[f"boundary{name}"])
            bounded = edge[:, :, 0].any(axis=1)
            if bounded.any():
                edge = edge[bounded]
                value = _with_interval(lambda rows, t=edge: ece(t[rows]), groups[bounded])  # type: ignore[misc]
            else:
                value = {"value": None, "interval": None}
            result[f"boundary_ece{name}"] = value
            result[f"reliability{name}"] = _reliability(table, 1 / classes)
        return result


def _append(rows: dict[str, list[Floats]], name: str, sums: Floats, same_case: bool) -> None:
    of = rows.setdefault(name, [])
    if same_case:
        of[-1] = of[-1] + sums
    else:
        of.append(sums)


def _shares(sums: Sequence[Floats]) -> Floats:
    """The table of each case divided by the number of pixels in it: (n, bins, 3); 0 where there are none."""
    table = np.stack(sums)
    shares: Floats = table / np.maximum(1, table[:, :, 0].sum(axis=1))[:, None, None]
    return shares


def boundary_band(truth: npt.NDArray[Any], classes: int, width: int = BOUNDARY_WIDTH) -> npt.NDArray[np.bool_]:
    """Pixels of (H, W) within ``width`` (chessboard distance) of the other side of a true class boundary."""
    band = np.zeros(truth.shape, np.bool_)
    for number in range(1, classes):
        inside = truth == number
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        if not rows.size:
            continue
        box = (
            slice(max(0, rows[0] - width), rows[-1] + 1 + width),
            slice(max(0, columns[0] - width), columns[-1] + 1 + width),
        )
        part = inside[box]
        if part.all():  # the class fills the picture: its boundary is the frame, which nobody drew
            continue
        # distance to the nearest pixel of the other side: 0 on the own side of neither
        outward = distance_transform_cdt(~part, "chessboard")
        inward = distance_transform_cdt(part, "chessboard")
        band[box] |= np.maximum(outward, inward) <= width
    return band


def ece(tables: Floats) -> float:
    """Expected calibration error of the mean over images; tables: (n, bins, 3) as in ``PixelSums``."""
    mean = tables.mean(0)
    return float(np.abs(mean[:, 1] - mean[:, 2]).sum() / max(mean[:, 0].sum(), 1e-300))


def _reliability(tables: Floats, lowest: float) -> list[dict[str, float]]:
    """A row a bin that holds something: its edges, share of pixels, mean confidence and accuracy."""
    edges = np.linspace(lowest, 1, BINS + 1)
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "weight": float(weight),
            "confidence": float(confidence / weight),
            "accuracy": float(correct / weight),
        }
        for b, (weight, confidence, correct) in enumerate(tables.mean(0))
        if weight > 0
    ]


def confidence_summary(cases: pd.DataFrame, pixels: PixelSums, part: str | None, classes: int = 2) -> dict[str, Any]:
    """All of it, JSON-ready (docs/reference/run-folder.md); ``cases`` has expected_dice, dice, group.

    part: which part of the run's own data was scored, None for other data: numbers on the part where the calibration
    was fitted are marked ``in_sample``.
    """
    calibration = pixels.calibration
    groups = cases["group"].to_numpy()
    expected, dice = cases["expected_dice"].to_numpy(np.float64), cases["dice"].to_numpy(np.float64)
    fitted = {"part": calibration.part, "n": calibration.n} if calibration.n else None
    return {
        "temperature": calibration.temperature,
        "calibrated_on": fitted,
        "in_sample": calibration.n > 0 and part == calibration.part,
        "pixels": pixels.summary(groups, classes),
        "expected_dice": {
            "n": len(dice),
            "pearson": _with_interval(lambda rows: pearson(expected[rows], dice[rows]), groups),
            "spearman": _with_interval(lambda rows: pearson(rankdata(expected[rows]), rankdata(dice[rows])), groups),
            "mae": _with_interval(lambda rows: float(np.abs(expected - dice)[rows].mean()), groups),
            "bias": _with_interval(lambda rows: float((expected - dice)[rows].mean()), groups),
        },
        "risk_coverage": risk_coverage(expected, dice),
        "referral": [referral(expected, dice, groups, share) for share in SHARES],
    }


def pearson(x: Floats, y: Floats) -> float:
    """Correlation of (n,) and (n,); nan where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > 1e-12 else float("nan")


def risk_coverage(expected: Floats, dice: Floats) -> dict[str, Any]:
    """Mean Dice of the share of cases with the largest expected Dice, and the area under risk = 1 - Dice.

    aurc = mean over k = 1..n of the mean risk of the k most certain cases (ties in their order; Geifman and El-Yaniv,
    NeurIPS 2017). aurc_random is what a random order gives on average, aurc_oracle what the real Dice as confidence
    would give.
    """
    kept = _mean_of_best(expected, dice)
    n = len(dice)
    places = [max(1, round(c * n)) - 1 for c in _COVERAGES]
    return {
        "coverage": [(k + 1) / n for k in places],
        "dice": [float(kept[k]) for k in places],
        "aurc": float(1 - kept.mean()),
        "aurc_random": float(1 - dice.mean()),
        "aurc_oracle": float(1 - _mean_of_best(dice, dice).mean()),
    }


def referral(expected: Floats, dice: Floats, groups: npt.NDArray[Any], share: float) -> dict[str, Any]:
    """The mean Dice of what remains, and of what is sent to a person, when ``share`` of the cases is referred."""
    order = np.argsort(-expected, kind="stable")
    keep = max(1, len(order) - round(share * len(order)))
    kept, referred = order[:keep], order[keep:]
    block = _with_interval(lambda rows: float(dice[kept][rows].mean()), groups[kept])
    return {
        "referred": share,
        "n_kept": keep,
        "dice_kept": block["value"],
        "interval_kept": block["interval"],
        "dice_referred": float(dice[referred].mean()) if len(referred) else None,
    }


def _mean_of_best(score: Floats, dice: Floats) -> Floats:
    """Mean Dice of the k cases with the largest score, for k = 1..n."""
    order = np.argsort(-score, kind="stable")
    means: Floats = np.cumsum(dice[order]) / np.arange(1, len(dice) + 1)
    return means


def _with_interval(
    statistic: Callable[[npt.NDArray[np.int64]], float],
    groups: Sequence[Any] | npt.NDArray[Any],
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """``{"value", "interval"}`` of a statistic of row numbers, by the cluster bootstrap over groups.

    A draw for which the statistic does not exist (a correlation of equal values) is left out; null where the value
    itself does not exist, or there are fewer than two groups or usable draws.
    """
    codes, names = pd.factorize(np.asarray(groups))
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1])
    value = statistic(np.arange(len(codes)))
    generator = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(np.concatenate([members[g] for g in generator.integers(len(names), size=len(names))]))
            for _ in range(draws if len(names) > 1 else 0)
        ]
    )
    values = values[np.isfinite(values)]
    interval = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist() if len(values) > 1 else None
    return {"value": value, "interval": interval} if np.isfinite(value) else {"value": None, "interval": None}
