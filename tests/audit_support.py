"""A data set with every fault that an audit of files, masks and twins can find, one image a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semidg.data_config import DataConfig
from semidg.experiment.audit import Audit
from semidg.experiment.audit import audit as look

Grey = NDArray[np.uint8]


def audit(root: Path, classes: int = 2, *, split: Path | None = None, similarity: float = 0.95, **keys: Any) -> Audit:
    """The audit of a folder; keys: of ``data``."""
    chosen = {"root": root, "include_normal": True, "split": {"similarity": similarity}, **keys}
    return look(DataConfig.model_validate(chosen), classes, split=split)


def texture(seed: int, width: int = 64, height: int = 48) -> Grey:
    """Coarse noise of middle greys, (height, width), that no other seed resembles."""
    coarse = np.random.default_rng(seed).integers(20, 110, (8, 6), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def square(top: int = 10, left: int = 10, side: int = 20, width: int = 64, height: int = 48) -> Grey:
    """A mask of 0 and 255."""
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def save(root: Path, name: str, image: Grey, *masks: Grey) -> None:
    """Write ``DOMAIN/NAME`` in the folders layout, with its masks."""
    domain, _, stem = name.partition("/")
    for part in ("images", "masks"):
        (root / domain / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / domain / "images" / f"{stem}.png")
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(root / domain / "masks" / f"{stem}{f'_mask_{number}' if number else ''}.png")


def cross(image: Grey, row: int, column: int, arm: int = 7) -> Grey:
    """The image with a calliper of lines one pixel wide."""
    marked = image.copy()
    marked[row - arm : row + arm + 1, column] = 230
    marked[row, column - arm : column + arm + 1] = 230
    return marked


#: Kind -> what is found at once: the id of the record ("" for a file of none), and the twin.
FAULTS = {
    "mask with other values": {("a/blurred", "")},
    "size of image and mask differ": {("a/small", "")},
    "mask without image": {("", "")},
    "path that is not accepted": {("", "")},
    "twins of different domains": {("a/0", "b/copy")},
    "twins with different masks": {("a/1", "a/redrawn")},
    "near-duplicate": {("a/1", "a/redrawn")},
    "empty mask": {("a/nothing", "")},
    "mask files that overlap": {("b/doubled", "")},
    "several mask files": {("b/doubled", "")},
    "specks": {("b/speck", "")},
    "calliper at the lesion": {("b/measured", "")},
    "colour at the lesion": {("b/coloured", "")},
    "holes": {("b/hole", "")},
    "mask at the border": {("b/cut", "")},
    "file that cannot be used": {("a/damaged", ""), ("a/zero", ""), ("b/badmask", "")},
}


def make_broken(root: Path) -> Path:
    """Two domains, each with images without fault, and those of FAULTS."""
    for number in range(4):
        save(root, f"a/{number}", texture(number), square())
        save(root, f"b/{number}", texture(100 + number), square())
    save(root, "a/blurred", texture(10), np.clip(square().astype(int) - np.arange(64), 0, 255).astype(np.uint8))
    save(root, "a/small", texture(11), square()[:40])
    save(root, "a/nothing", texture(12), np.zeros((48, 64), np.uint8))
    save(root, "a/redrawn", texture(1), square(20, 35))
    save(root, "b/copy", texture(0), square())
    save(root, "b/doubled", texture(14), square(), square(15, 15))
    save(root, "b/speck", texture(15), square() | square(40, 50, 1))
    save(root, "b/hole", texture(16), square() & ~square(15, 15, 3))
    save(root, "b/cut", texture(17), square(0, 10))
    save(root, "b/measured", cross(texture(18), 20, 30), square())
    coloured = np.repeat(texture(19)[..., None], 3, axis=2)
    coloured[8:13, 8:13] = (240, 220, 0)
    save(root, "b/coloured", coloured, square())
    save(root, "b/badmask", texture(20), square())
    save(root, "a/damaged", texture(21), square())
    (root / "b" / "masks" / "badmask.png").write_text("no picture")
    damaged = root / "a" / "images" / "damaged.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    (root / "a" / "images" / "zero.png").touch()
    Image.fromarray(square()).save(root / "a" / "masks" / "orphan.png")
    (root / "a" / "images" / "link.png").symlink_to(root / "nowhere.png")
    return root
