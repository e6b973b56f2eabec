"""Time of the metrics of a case against a bare count of its Dice, and of the summary of 1,000 cases.

    python -m benchmarks.evaluation [--n 100 300 1000] [--size 500] [--spacing 0.2 0.2]

Cases are drawn from a seed: ellipses with wobbly borders and a prediction of the same kind near them; every 25th case
holds several lesions, every 50th a prediction of dense noise, every 50th a missed lesion. Both sides run in one
process, one after the other on each case; drawing the cases is not timed. A row of the table sums the first n cases.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from semidg.evaluation.metrics import case_metrics
from semidg.evaluation.statistics import summarise

Mask = npt.NDArray[np.uint8]
COLUMNS = ("cases", "seconds", "cases/s", "ms a case, median", "ms a case, largest", "ratio to bare Dice")
SUMMARISED = 1000


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


def row(ours: list[float], bare: list[float]) -> str:
    """A line of the table."""
    total = sum(ours)
    cells = (len(ours), f"{total:.2f}", f"{len(ours) / total:.0f}", f"{1000 * np.median(ours):.1f}",
             f"{1000 * max(ours):.0f}", f"{total / sum(bare):.0f}")  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--size", type=int, default=500)
    parser.add_argument("--spacing", type=float, nargs=2, default=None, metavar="MM", help="adds the metrics in mm")
    options = parser.parse_args()
    ours: list[float] = []
    bare: list[float] = []
    cases: list[dict[str, Any]] = []
    case_metrics(*draw_case(0, options.size), spacing=options.spacing)  # warm-up
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for number in range(max(options.n)):
        pair = draw_case(number, options.size)
        timed, values = seconds(lambda pair=pair: case_metrics(*pair, spacing=options.spacing))
        ours.append(timed)
        bare.append(seconds(lambda pair=pair: bare_dice(*pair))[0])
        cases.append({"id": str(number), "domain": f"d{number % 4}", "class": f"c{number % 2}"} | values)
        if number + 1 in options.n:
            print(row(ours, bare), flush=True)
    # repeated up to a fixed number, so that the time means the same whatever --n
    table = pd.DataFrame([cases[k % len(cases)] for k in range(SUMMARISED)])
    table["id"] = [str(k) for k in range(SUMMARISED)]
    table["group"] = [str(k // 2) for k in range(SUMMARISED)]
    timed, _ = seconds(lambda: summarise(table))
    print(f"\nSummary of {SUMMARISED} cases in {SUMMARISED // 2} groups: {timed:.2f} s")


if __name__ == "__main__":
    main()
