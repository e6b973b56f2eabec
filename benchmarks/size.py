"""Time and peak memory of a training step against the size of images and batch, each in a process of its own."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.evaluation import exponent
from benchmarks.figure import Figure, figure
from benchmarks.process import in_child, peak_mb


def measure(folder: str, size: int, batch: int, steps: int) -> dict[str, float]:
    """Median seconds of a step of dual_level with ``batch`` labelled and as many unlabelled images of size x size
    pixels, and the peak memory of the process in MB."""
    from benchmarks.training import configure, first_batch, repeated, train, write_data

    write_data(Path(folder), quick=True)
    config = configure(Path(folder), "dual_level", size=size, batch_labelled=batch, batch_unlabelled=batch)
    seconds = train(config, repeated(first_batch(config), steps + 1))
    return {"seconds": statistics.median(seconds[1:]), "peak": peak_mb()}


def figures(quick: bool) -> list[Figure]:
    """Sizes at the batch of the preset, batches at its size; exponents by pixels and by images."""
    sizes, batches, at = ((32, 64), (1, 2), 32) if quick else ((64, 96, 128, 192, 256), (4, 8, 16), 128)
    result: list[Figure] = []
    measured: dict[tuple[int, int], dict[str, float]] = {}  # the size of the preset stands in both
    for what, points, by in (
        ("pixels", [(size, batches[0]) for size in sizes], [size**2 for size in sizes]),
        ("images", [(at, batch) for batch in batches], batches),
    ):
        seconds = []
        for size, batch in points:
            if (size, batch) not in measured:
                with tempfile.TemporaryDirectory() as folder:
                    one = in_child("benchmarks.size:measure", folder, size, batch, 1 if quick else 5)
                measured[size, batch] = one
                row = f"{size} x {size}, {batch} + {batch} images"
                result.append(figure(f"{row}: ms a step", [1000 * one["seconds"]]))
                result.append(figure(f"{row}: peak", [one["peak"]], unit="MB"))
            seconds.append(measured[size, batch]["seconds"])
        result.append(figure(f"exponent by {what}: ms a step", [exponent(by, seconds)]))
    return result
