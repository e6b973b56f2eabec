"""Time and memory of indexing a data set and of the search for near-duplicates in it, against the number of images.

Images are those of ``pictures.py``, with masks. Each n is measured in a process of its own: first the whole index
(every file decoded and checked), then the search alone on the same thumbnails.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.evaluation import exponent
from benchmarks.figure import Figure, figure
from benchmarks.pictures import write_images
from benchmarks.process import in_child, peak_mb

SIMILARITY = 0.95


def measure(folder: str) -> dict[str, float]:
    """Index the folder, search again, and say how long it took and how much memory the process had at its peak."""
    import numpy as np
    from PIL import Image

    from semidg.data.duplicates import near_duplicate_groups, thumbnail
    from semidg.data.index import build_index

    imports = peak_mb()
    start = time.perf_counter()
    index = build_index(Path(folder), similarity=SIMILARITY)
    indexed = time.perf_counter() - start
    peak = peak_mb()
    thumbnails = np.stack([thumbnail(np.asarray(Image.open(index.root / record.image))) for record in index.records])
    start = time.perf_counter()
    groups = near_duplicate_groups(thumbnails, SIMILARITY)
    searched = time.perf_counter() - start
    return {"groups": int(groups.max()) + 1, "index, s": indexed, "search, s": searched,
            "peak, MB": peak, "imports, MB": imports}  # fmt: skip


def figures(quick: bool) -> list[Figure]:
    """Of 1,000 to 10,000 images of 128 x 128 pixels."""
    counts, side = ((20, 40), 64) if quick else ((1000, 2000, 5000, 10000), 128)
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for before, count in zip((0, *counts), counts, strict=False):
            write_images(Path(folder), count, side, before)
            found.append(in_child("benchmarks.duplicates:measure", folder))
    last, most = found[-1], f"{counts[-1]:,} images"
    details = {f"{count} images": one for count, one in zip(counts, found, strict=True)}
    return [
        figure(f"index of {most}", [last["index, s"]], unit="s", target=60, details=details),
        figure(f"of it the search in {most}", [last["search, s"]], unit="s"),
        figure(f"peak memory with {most}", [last["peak, MB"]], unit="MB", target=1000),
        figure("exponent of the index", [exponent(counts, [one["index, s"] for one in found])]),
        figure("exponent of the search", [exponent(counts, [one["search, s"] for one in found])]),
    ]
