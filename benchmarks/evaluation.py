"""All metrics of a case against a bare count of its Dice, and both metrics and summary against the number of cases.

Cases are drawn from a seed: ellipses with wobbly borders and a prediction of the same kind near them; every 25th case
holds several lesions, every 50th a prediction of dense noise, every 50th a missed lesion. Drawing is not timed. The
exponent is the slope of log time over log n, 1 where twice the cases take twice the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.figure import Figure, figure
from semidg.evaluation.metrics import case_metrics
from semidg.evaluation.statistics import summarise

Mask = npt.NDArray[np.uint8]


def draw_case(number: int, size: int) -> tuple[Mask, Mask]:
    """Prediction and truth of one case, (size, size) of 0 and 1."""
    rng = np.random.default_rng(number)
    truth = np.zeros((size, size), np.uint8)
    prediction = truth.copy()
    for _ in range(rng.integers(3, 9) if number % 25 == 1 else 1):
        centre, radii = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.04, 0.2, 2) * size
        truth |= blob(size, centre, radii, rng)
        near = centre + rng.normal(0, 0.02, 2) * size, radii * rng.uniform(0.8, 1.25, 2)
        prediction |= blob(size, *near, rng)
    if number % 50 == 2:
        prediction[:] = rng.random((size, size)) < 0.5
    elif number % 50 == 3:
        prediction[:] = 0
    return prediction, truth


def blob(size: int, centre: npt.NDArray[Any], radii: npt.NDArray[Any], rng: np.random.Generator) -> Mask:
    """An ellipse whose radius follows a sum of sines of the angle."""
    y, x = ((np.arange(size) - c) / r for c, r in zip(centre, radii, strict=True))
    angle = np.arctan2(y[:, None], x[None, :])
    waves = sum(rng.normal(0, 0.3 / k) * np.sin(k * angle + rng.uniform(0, 2 * np.pi)) for k in (3, 5, 8, 13, 21))
    return (np.hypot(y[:, None], x[None, :]) < 1 + waves).astype(np.uint8)


def bare_dice(prediction: Mask, truth: Mask) -> float:
    """The count that no scoring can do without."""
    p, t = prediction == 1, truth == 1
    total = np.count_nonzero(p) + np.count_nonzero(t)
    return 2 * np.count_nonzero(p & t) / total if total else 1.0


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Wall time of a call, and its result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def scored(numbers: range, size: int, rounds: int) -> tuple[list[list[float]], list[float], pd.DataFrame]:
    """Seconds of the metrics of each case, a list a round; of its bare Dice; and the table of all cases."""
    ours: list[list[float]] = [[] for _ in range(rounds)]
    bare: list[float] = []
    cases: list[dict[str, Any]] = []
    case_metrics(*draw_case(0, size))  # warm-up
    for number in numbers:
        pair = draw_case(number, size)
        for times in ours:
            timed, values = seconds(lambda pair=pair: case_metrics(*pair))
            times.append(timed)
        bare.append(seconds(lambda pair=pair: bare_dice(*pair))[0])
        group = str(number // 2)
        cases.append(
            {"id": str(number), "domain": f"d{number % 4}", "class": f"c{number % 2}", "group": group} | values
        )
    return ours, bare, pd.DataFrame(cases)


def exponent(counts: Sequence[float], times: Sequence[float]) -> float:
    """Slope of the least-squares line through log seconds over log counts."""
    return float(np.polyfit(np.log(counts), np.log(times), 1)[0])


def figures(quick: bool) -> list[Figure]:
    """Of 125 to 1,000 cases of 500 x 500 pixels."""
    counts = (4, 8) if quick else (125, 250, 500, 1000)
    ours, bare, table = scored(range(max(counts)), 64 if quick else 500, 2 if quick else 3)
    summing = [[seconds(lambda n=n: summarise(table[:n]))[0] for n in counts] for _ in ours]
    metrics = [[sum(times[:n]) for n in counts] for times in ours]
    last = f"{max(counts):,} cases"
    return [
        figure(f"metrics of {last}", [times[-1] for times in metrics], unit="s"),
        figure("metrics of a case", [1000 * np.median(times) for times in ours], unit="ms",
               details={"largest, ms": 1000 * max(map(max, ours))}),
        figure("metrics / bare Dice", [times[-1] / sum(bare) for times in metrics]),
        figure(f"summary of {last}", [times[-1] for times in summing], unit="s"),
        figure("exponent of the metrics", [exponent(counts, times) for times in metrics],
               details=_against(counts, metrics)),
        figure("exponent of the summary", [exponent(counts, times) for times in summing],
               details=_against(counts, summing)),
    ]  # fmt: skip


def _against(counts: Sequence[int], rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    return {
        f"{n} cases, s": float(np.median(times)) for n, times in zip(counts, zip(*rounds, strict=True), strict=True)
    }
