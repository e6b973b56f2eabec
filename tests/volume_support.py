"""A small data set of volumes: the planes of each stand below one another in one PNG, cut apart by their frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semidg.data.images import read_image, read_mask
from semidg.data.index import Index
from semidg.types import Frame, Record

HEIGHT, WIDTH = 24, 30
READERS = ("semidg.data.dataset", "semidg.experiment.scoring", "semidg.experiment.calibrate", "semidg.report.scored")


def planes_of(image: str, depth: int, domain: str, **changes: object) -> list[Record]:
    """The records of a volume at ``DOMAIN/images/NAME.png`` with its mask."""
    name = image.removesuffix(".png")
    values = {
        "image": f"{domain}/images/{image}",
        "masks": (f"{domain}/masks/{image}",),
        "domain": domain,
        "class_name": "",
        "group": f"{domain}/{name}",
        "width": WIDTH,
        "height": HEIGHT,
        "spacing": (0.8, 0.5),
        "slice_mm": 3.0,
    }
    return [Record(id=f"{domain}/{name}:z{z}", frame=Frame("z", z), **(values | changes)) for z in range(depth)]


def write_volumes(root: Path, domains: Sequence[str] = ("aster", "borea", "delta"), each: int = 5) -> list[Record]:
    """Volumes of 3 to 5 planes with a bright ellipsoid on noise; the records of all planes."""
    records: list[Record] = []
    for number, domain in enumerate(domains):
        for k in range(each):
            generator = np.random.default_rng([number, k])
            depth = 3 + k % 3
            z, y, x = np.indices((depth, HEIGHT, WIDTH))
            centre = depth // 2, generator.uniform(8, 16), generator.uniform(10, 20)
            inside = ((z - centre[0]) / 1.6) ** 2 + ((y - centre[1]) / 6) ** 2 + ((x - centre[2]) / 7) ** 2 < 1
            grey = generator.normal(70 + 20 * number, 20, inside.shape) + 90 * inside
            for part, values in (("images", grey.clip(0, 255)), ("masks", 255 * inside)):
                (root / domain / part).mkdir(parents=True, exist_ok=True)
                tall = values.reshape(depth * HEIGHT, WIDTH).astype(np.uint8)
                Image.fromarray(tall).save(root / domain / part / f"p{k}.png")
            records += planes_of(f"p{k}.png", depth, domain)
    return records


def plane(pixels: np.ndarray, record: Record) -> np.ndarray:
    """The rows of a tall picture that a record means."""
    return pixels if record.frame is None else pixels[record.frame.number * HEIGHT :][:HEIGHT]


def read_volumes(monkeypatch: pytest.MonkeyPatch, records: Sequence[Record]) -> None:
    """Lets everything that reads records find the planes in the tall pictures, and the index find ``records``."""

    def image(root: Path, record: Record, channels: int) -> np.ndarray:
        return plane(read_image(root / record.image, channels), record)

    def mask(root: Path, record: Record, classes: int = 2) -> np.ndarray:
        return plane(read_mask([root / m for m in record.masks], classes), record)

    for module in READERS:
        for name, function in (("record_image", image), ("record_mask", mask)):
            monkeypatch.setattr(f"{module}.{name}", function, raising=False)
    monkeypatch.setattr(
        "semidg.experiment.prepare.build_index", lambda root, *_, **__: Index(Path(root), "folders", tuple(records))
    )
