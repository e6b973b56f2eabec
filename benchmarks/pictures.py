"""Many images in little time, to measure what depends on their number: speckled ellipses with masks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]
TWINS = 10  # every tenth image is a twin of another


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


def write_images(folder: Path, count: int, side: int, first: int = 0) -> None:
    """Write the images ``first`` to ``count`` - 1 with masks in the folders layout, four domains, by as many threads as
    there are cores."""
    for domain in range(4):
        for part in ("images", "masks"):
            (folder / f"scanner-{domain}" / part).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(partial(_save, folder=folder, side=side), range(first, count)):
            pass  # raises what a thread raised
