"""The lesions of the phantom: shape, border and echo, in millimetres; the same distribution for every scanner."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from semidg.data.phantom_scanners import SCANNERS, Array

_SIDE_MM = 0.3  # between a lesion and the side of the narrowest picture


@dataclass(frozen=True, slots=True)
class Lesion:
    """A lesion in mm; lateral position x from the middle of the picture, depth z from the skin.

    Its border is radius(theta) = 1 + sum_k a_k cos(k theta + phase_k), scaled by ``radius_x`` and ``radius_z`` and
    turned by ``angle`` (radians); ``harmonics`` holds (k, a_k, phase_k).
    """

    kind: str
    x: float
    z: float
    radius_x: float
    radius_z: float
    angle: float
    harmonics: tuple[tuple[int, float, float], ...]
    blur_mm: float
    """Half-width of the transition at the border."""
    contrast_db: float
    """Backscatter relative to glandular tissue; near 0: iso-echoic."""
    attenuation: float
    """dB/cm/MHz on top of the surroundings': positive makes a shadow, negative enhancement."""
    halo_db: float
    """Echogenic rim."""
    capsule: float
    """Amplitude of the coherent echo of front and back wall."""
    calcifications: int

    @property
    def half_width(self) -> float:
        """Largest lateral distance of the border from the centre, in mm."""
        theta = np.linspace(0, 2 * np.pi, 721)
        border = 1 + sum(a * np.cos(k * theta + phase) for k, a, phase in self.harmonics)
        u, v = self.radius_x * border * np.cos(theta), self.radius_z * border * np.sin(theta)
        return float(np.abs(u * np.cos(self.angle) - v * np.sin(self.angle)).max())

    def distance(self, x: Array, z: Array) -> Array:
        """Signed distance to the border in mm, about, positive inside; x and z broadcast."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        u = ((x - self.x) * cos + (z - self.z) * sin) / self.radius_x
        v = ((z - self.z) * cos - (x - self.x) * sin) / self.radius_z
        # the border from a table of 4096 directions: many times faster than a sum of cosines a pixel
        theta = np.arange(4096) * (2 * np.pi / 4096)
        table = 1 + sum(a * np.cos(k * theta + phase) for k, a, phase in self.harmonics)
        border = table[np.rint(np.arctan2(v, u) * (4096 / (2 * np.pi))).astype(np.intp) % 4096]
        return np.asarray((border - np.hypot(u, v)) * np.sqrt(self.radius_x * self.radius_z), dtype=np.float32)


def draw_lesion(top: float, bottom: float, rng: np.random.Generator) -> Lesion:
    """A lesion between the depths ``top`` and ``bottom`` of the glandular tissue, in mm."""
    kind = str(rng.choice(["oval", "lobulated", "spiculated"], p=[0.4, 0.35, 0.25]))
    spiculated = kind == "spiculated"
    radius_x = 3.0 * 3.2 ** rng.uniform(0, 1)  # log-uniform
    aspect = rng.uniform(0.75, 1.15) if spiculated else rng.uniform(0.5, 0.85)
    radius_z = min(radius_x * aspect, 0.48 * (bottom - top) + 1)
    orders, scale = {"oval": (4, 0.03), "lobulated": (6, 0.08), "spiculated": (14, 0.09)}[kind]
    lesion = Lesion(
        kind=kind,
        x=rng.uniform(-8, 8),
        z=rng.uniform(top + 0.7 * radius_z, max(top + 0.75 * radius_z, bottom - 0.7 * radius_z)),
        radius_x=radius_x,
        radius_z=radius_z,
        angle=rng.normal(0, 0.15),
        harmonics=tuple(
            (k, scale * rng.standard_normal() / np.sqrt(k - 1), rng.uniform(0, 2 * np.pi)) for k in range(2, orders)
        ),
        blur_mm=rng.uniform(0.15, 0.6) if spiculated else rng.uniform(0.08, 0.35),
        contrast_db=rng.uniform(-10, -7) if rng.random() < 0.15 else rng.uniform(-22, -12),
        attenuation=rng.uniform(0.2, 1.3) if rng.random() < (0.8 if spiculated else 0.15) else rng.uniform(-0.45, 0),
        halo_db=rng.uniform(0, 5) if spiculated else 0.0,
        capsule=0.0 if spiculated else max(0.0, rng.uniform(-0.6, 0.8)),
        calcifications=int(rng.integers(2, 9)) if rng.random() < (0.4 if spiculated else 0.1) else 0,
    )
    # the widest lesions would leave the narrowest picture at its side
    room = min(scanner.width_mm for scanner in SCANNERS.values()) / 2 - _SIDE_MM - lesion.half_width
    return replace(lesion, x=float(np.clip(lesion.x, -room, room)))
