"""How preparing a run grows with the number of images: index, near-duplicates, cache, split, and the first step.

Images are those of ``pictures.py``, 128 x 128 pixels, with masks. Each number is measured in a process of its own, with
the time and the peak memory of each stage; Python and the libraries loaded until then are in every peak. The search for
near-duplicates is part of the index, and is measured again alone. Exponents are slopes of log time over log number.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evaluation import exponent
from benchmarks.figure import Figure, figure
from benchmarks.pictures import write_images
from benchmarks.process import forget_peak, in_child, peak_mb

SIDE, SIMILARITY = 128, 0.95
STAGES = ("index", "search alone", "cache", "split", "first step")
MOST = 10_000  # images that the targets of the index speak of: 60 s and 1,000 MB


def measure(folder: str, quick: bool) -> dict[str, Any]:
    """Each stage for FOLDER/data: {"seconds", "peak"}, and the number of groups."""
    import numpy as np
    from PIL import Image

    from semidg.data.duplicates import near_duplicate_groups, thumbnail
    from semidg.data.index import build_index

    result: dict[str, Any] = {}

    def stage(name: str, work: Callable[[], Any]) -> Any:
        forget_peak()
        start = time.perf_counter()
        found = work()
        result[name] = {"seconds": time.perf_counter() - start, "peak": peak_mb()}
        return found

    index = stage("index", lambda: build_index(Path(folder) / "data", similarity=SIMILARITY))
    small = np.stack([thumbnail(np.asarray(Image.open(index.root / record.image))) for record in index.records])
    groups = stage("search alone", partial(near_duplicate_groups, small, SIMILARITY))
    del small

    # now, not before: the libraries of training are no part of what an index takes
    from benchmarks.training import configure, new_method
    from semidg.data.splits import make_split
    from semidg.experiment.loaders import training_loader
    from semidg.experiment.prepare import open_images
    from semidg.types import Progress

    config = configure(Path(folder), "dual_level", quick)
    cache = stage("cache", lambda: open_images(config, index))
    split = stage("split", lambda: make_split(index.records, config.data.split, config.labelled, config.seed))

    def first() -> None:
        batch = next(iter(training_loader(cache, split, config)))
        sum(new_method(config).losses(batch, Progress(0, 10)).values()).backward()

    stage("first step", first)
    return result | {"groups": int(groups.max()) + 1}


def figures(quick: bool) -> list[Figure]:
    """Seconds and peaks of each stage for 1,000 to 100,000 images, and exponents."""
    counts = (20, 40) if quick else (1000, MOST, 100_000)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for before, count in zip((0, *counts), counts, strict=False):
            write_images(Path(folder) / "data", count, 64 if quick else SIDE, before)
            found.append(in_child("benchmarks.growth:measure", folder, quick))
    result = []
    for name in STAGES:
        limits = (60, 1000) if name == "index" else (None, None)
        seconds = [one[name]["seconds"] for one in found]
        for kind, values, unit, limit in (
            ("time", seconds, "s", limits[0]),
            ("peak", [one[name]["peak"] for one in found], "MB", limits[1]),
        ):
            for count, value in zip(counts, values, strict=True):
                goal = limit if count == MOST else None
                result.append(figure(f"{name}: {kind} at {count:,}", [value], unit=unit, target=goal))
        result.append(figure(f"{name}: exponent", [exponent(counts, seconds)]))
    return result
