"""Hearts in short axis as the phantom's scanners would see them: four classes, three of which touch one another.

The left cavity lies in a ring of muscle, the right cavity is a crescent beside it: the shapes of cine data sets with
several vendors, at the scale of the scanners, that is of a small animal. For examples of several classes only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from semidg.data.phantom_fields import smooth, step
from semidg.data.phantom_scanners import Array, Scanner, Tissue, display, envelope, make_grid

#: Name of each class number in a mask.
CLASS_NAMES = ("background", "left cavity", "myocardium", "right cavity")
#: Red, green, blue of each class number, for viewers.
PALETTE = (0, 0, 0, 230, 159, 0, 0, 158, 115, 204, 121, 167)

# mean backscatter, dB relative to glandular tissue, and one-way attenuation, dB/cm/MHz
BLOOD_DB, MUSCLE_DB, TISSUE_DB = -28.0, -5.0, -12.0
BLOOD_LOSS, TISSUE_LOSS = 0.15, 0.6


@dataclass(frozen=True, slots=True)
class Heart:
    """A heart in mm; lateral position x from the middle of the picture, depth z from the skin.

    The left cavity is an ellipse of radii ``radius_x`` and ``radius_z``, its wall ``wall`` thick; the right cavity is
    what an ellipse 1.15 times as high as the wall, ``shift`` to its side, has outside of it. ``side`` is -1 or 1. All
    is turned by ``angle`` (radians).
    """

    x: float
    z: float
    radius_x: float
    radius_z: float
    wall: float
    shift: float
    side: int
    angle: float


def draw_heart(rng: np.random.Generator) -> Heart:
    """A heart that every scanner has wholly in its picture, but for the edge of the largest right cavities."""
    radius = rng.uniform(3.2, 5.2)
    side = int(rng.choice([-1, 1]))
    return Heart(
        x=rng.uniform(-1.5, 1.5) - 3.0 * side,
        z=rng.uniform(14, 19),
        radius_x=radius,
        radius_z=radius * rng.uniform(0.85, 1.1),
        wall=rng.uniform(1.8, 3.0),
        shift=rng.uniform(4.0, 6.5),
        side=side,
        angle=rng.normal(0, 0.3),
    )


def simulate_heart(scanner: Scanner, size: int, rng: np.random.Generator) -> tuple[Array, Array, dict[str, Any]]:
    """One picture of one new heart: the image, (H, ``size``) uint8, its mask of class numbers, the same, and the heart.

    The same state of ``rng`` gives the same heart on every scanner.
    """
    grid = make_grid(scanner, size)
    patient = np.random.default_rng(rng.integers(2**63))
    heart = draw_heart(patient)
    z, x = grid.z, grid.x
    # borders bent by some tenths of a mm, so that they are no ellipses
    bent = x + 0.4 * smooth((16, 3), (24, 3), z, x, patient), z + 0.4 * smooth((16, 3), (24, 3), z, x, patient)
    inner, outer, right = _distances(heart, *bent)
    in_wall, in_left, in_right = step(outer, 0.15), step(inner, 0.15), step(right, 0.15)

    echo = TISSUE_DB + 3 * smooth((16, 4), (16, 6), z, x, patient) + 3 * smooth((48, 0.9), (24, 3), z, x, patient)
    muscle = MUSCLE_DB + 2 * smooth((32, 1.2), (24, 3), z, x, patient)
    for inside, level in ((in_right, BLOOD_DB), (in_wall, muscle), (in_left, BLOOD_DB)):
        echo = echo + (level - echo) * inside
    loss = TISSUE_LOSS + (BLOOD_LOSS - TISSUE_LOSS) * np.maximum(in_left, in_right)
    gain_db = rng.normal(0, 1.5)
    tissue = Tissue(echo, np.asarray(loss), np.zeros_like(x))
    image = display(scanner, grid, envelope(scanner, grid, tissue, rng), gain_db)

    labels = np.zeros(echo.shape, np.uint8)
    labels[right > 0], labels[outer > 0], labels[inner > 0] = 3, 2, 1
    mask = labels[: grid.height, grid.margin : grid.margin + size]
    return image, np.ascontiguousarray(mask), {"heart": asdict(heart), "gain_db": gain_db}


def _distances(heart: Heart, x: Array, z: Array) -> tuple[Array, Array, Array]:
    """Signed distances in mm, about, positive inside: to the left cavity, the outside of its wall, the right cavity."""
    cos, sin = np.cos(heart.angle), np.sin(heart.angle)
    u, v = (x - heart.x) * cos + (z - heart.z) * sin, (z - heart.z) * cos - (x - heart.x) * sin

    def ellipse(centre: float, radius_u: float, radius_v: float) -> Array:
        return np.asarray((1 - np.hypot((u - centre) / radius_u, v / radius_v)) * np.sqrt(radius_u * radius_v))

    wide, high = heart.radius_x + heart.wall, heart.radius_z + heart.wall
    right = ellipse(heart.side * heart.shift, wide, 1.15 * high)
    return ellipse(0, heart.radius_x, heart.radius_z), ellipse(0, wide, high), right
