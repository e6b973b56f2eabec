"""A small data set of volumes, as NIfTI files in the folders layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from semidg.data.index import build_index
from semidg.types import Frame, Record

HEIGHT, WIDTH = 24, 30
#: Distance in mm from plane to plane, row to row, column to column.
SPACING = (3.0, 0.8, 0.5)


def planes_of(name: str, depth: int, domain: str, **changes: Any) -> list[Record]:
    """Records of a volume ``DOMAIN/images/NAME.nii`` that is not there."""
    values: dict[str, Any] = {
        "image": f"{domain}/images/{name}.nii",
        "masks": (f"{domain}/masks/{name}.nii",),
        "domain": domain,
        "class_name": "",
        "group": f"{domain}/{name}",
        "width": WIDTH,
        "height": HEIGHT,
        "spacing": SPACING[1:],
        "slice_mm": SPACING[0],
    }
    return [Record(id=f"{domain}/{name}/z{z}", frame=Frame("z", z), **(values | changes)) for z in range(depth)]


def write_volumes(
    root: Path, domains: Sequence[str] = ("aster", "borea", "delta"), each: int = 5
) -> tuple[Record, ...]:
    """``each`` volumes a domain of 3 to 5 planes, a bright ellipsoid on noise, largest in the middle plane."""
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    for number, domain in enumerate(domains):
        for part in ("images", "masks"):
            (root / domain / part).mkdir(parents=True, exist_ok=True)
        for k in range(each):
            generator = np.random.default_rng([number, k])
            depth = 3 + k % 3
            x, y, z = np.indices((WIDTH, HEIGHT, depth))
            centre = generator.uniform(10, 20), generator.uniform(8, 16), depth // 2
            inside = ((x - centre[0]) / 7) ** 2 + ((y - centre[1]) / 6) ** 2 + ((z - centre[2]) / 1.6) ** 2 < 1
            grey = (generator.normal(70 + 20 * number, 20, inside.shape) + 90 * inside).clip(0, 255)
            for part, values in (("images", grey), ("masks", inside)):
                nib.save(nib.Nifti1Image(values.astype(np.uint8), affine), root / domain / part / f"p{k}.nii.gz")
    return build_index(root).records
