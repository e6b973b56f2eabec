"""Time and memory of indexing a data set and of the search for near-duplicates in it, against the number of images.

    python -m benchmarks.duplicates [--n 1000 2000 5000 10000] [--side 128] [--folder FOLDER]

Images are speckled ellipses drawn from a seed, a tenth of them twins (cropped by a pixel, brighter, or with new
noise), with masks, in the folders layout. Each n is measured in a process of its own: first the whole index (every
file decoded and checked), then the search alone on the same thumbnails. Memory is the peak of that process, of which
the line "imports" is the part that Python and the libraries take. The exponent is the slope of log time over log n.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from semidg.data.duplicates import near_duplicate_groups, thumbnail
from semidg.data.index import build_index

Picture = npt.NDArray[np.uint8]
COLUMNS = ("images", "groups", "index, s", "of it search, s", "peak memory, MB")
TWINS = 10  # every tenth image is a twin of another
SIMILARITY = 0.95


def draw(number: int, side: int) -> tuple[Picture, Picture]:
    """Image and mask (side, side) of one number: a dark ellipse and bands in speckle; a twin for every tenth one."""
    twin = number % TWINS == TWINS - 1
    of = np.random.default_rng(number - 1 - (number // TWINS) % (TWINS - 2) if twin else number)
    y, x = np.mgrid[:side, :side] / side
    bands = sum(of.normal(0, 25 / k) * np.sin(2 * np.pi * (of.uniform(1, 4) * (y + of.uniform(-0.5, 0.5) * x)))
                for k in range(1, 9))  # fmt: skip
    centre, radii = of.uniform(0.3, 0.7, 2), of.uniform(0.08, 0.25, 2)
    inside = np.hypot((y - centre[0]) / radii[0], (x - centre[1]) / radii[1]) < 1
    coarse = of.normal(0, 30, (8, 8)).astype(np.float32)
    tissue = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    own = np.random.default_rng((number, 1))
    grey = (110 + bands + tissue - 70 * inside) * own.rayleigh(0.8, (side, side))
    if twin:
        grey = np.roll(grey, own.integers(-1, 2, 2), (0, 1)) * own.uniform(0.9, 1.1)
    return grey.clip(0, 255).astype(np.uint8), inside.astype(np.uint8) * 255


def _save(number: int, folder: Path, side: int) -> None:
    image, mask = draw(number, side)
    domain = folder / f"scanner-{number % 4}"
    Image.fromarray(image).save(domain / "images" / f"{number:06}.png", compress_level=1)
    Image.fromarray(mask).save(domain / "masks" / f"{number:06}.png", compress_level=1)


def write_images(folder: Path, count: int, side: int) -> None:
    """Write ``count`` images with masks in the folders layout, by as many processes as there are cores."""
    for domain in range(4):
        for part in ("images", "masks"):
            (folder / f"scanner-{domain}" / part).mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool() as pool:
        pool.map(partial(_save, folder=folder, side=side), range(count), chunksize=64)


def measure(folder: Path) -> dict[str, float]:
    """Index the folder, search again, and say how long it took and how much memory the process had at its peak."""
    before = _peak()
    start = time.perf_counter()
    index = build_index(folder, similarity=SIMILARITY)
    indexed = time.perf_counter() - start
    peak = _peak()
    thumbnails = np.stack([thumbnail(np.asarray(Image.open(index.root / record.image))) for record in index.records])
    start = time.perf_counter()
    groups = near_duplicate_groups(thumbnails, SIMILARITY)
    searched = time.perf_counter() - start
    return {"n": len(groups), "groups": int(groups.max()) + 1, "index": indexed, "search": searched,
            "peak": peak, "imports": before}  # fmt: skip


def exponent(counts: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of the least-squares line through log seconds over log counts."""
    return float(np.polyfit(np.log(counts), np.log(seconds), 1)[0]) if len(counts) > 1 else math.nan


def _peak() -> float:
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 2000, 5000, 10000])
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the images are written; default: a temporary one"
    )
    parser.add_argument("--measure", type=Path, default=None, help=argparse.SUPPRESS)  # in the process of its own
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure)))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    found: list[dict[str, float]] = []
    for count in options.n:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_images(Path(folder), count, options.side)
            command = [sys.executable, "-m", "benchmarks.duplicates", "--measure", folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        one = json.loads(output)
        found.append(one)
        cells = (one["n"], one["groups"], f"{one['index']:.1f}", f"{one['search']:.1f}", f"{one['peak']:.0f}")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    counts = [one["n"] for one in found]
    slopes = {name: exponent(counts, [one[name] for one in found]) for name in ("index", "search")}
    print(f"\nFitted exponent: {slopes['index']:.2f} (index), {slopes['search']:.2f} (search alone)")
    print(f"Imports: {found[0]['imports']:.0f} MB of the peak")


if __name__ == "__main__":
    main()
