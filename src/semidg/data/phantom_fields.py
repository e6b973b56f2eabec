"""Random fields and soft borders from which the tissue of the phantom is drawn; positions in mm."""

from __future__ import annotations

import numpy as np

from semidg.data.phantom_scanners import Array


def step(distance: Array, width: float) -> Array:
    """Smooth step from 0 to 1 over about 4 ``width``: a logistic function."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / (2 * width)), dtype=np.float32)


def smooth(axial: tuple[int, float], lateral: tuple[int, float], z: Array, x: Array, rng: np.random.Generator) -> Array:
    """A random field of about unit variance, smooth over the given lengths in mm: (knots, length) of each axis.

    Gaussian bumps at regular knots with normal weights: two matrix products, and the same field on every grid. ``z``
    may be (Nz, 1), or (Nz, Nx) where the field follows a curved layer; beyond the last knot the pattern repeats.
    """
    (rows, length_z), (columns, length_x) = axial, lateral
    weights = rng.standard_normal((rows, columns)).astype(np.float32)
    across = _bumps(x[0], columns, length_x) @ weights.T  # (Nx, rows)
    if z.shape[1] == 1:
        return np.asarray(_bumps(z[:, 0], rows, length_z) @ across.T)
    # curved: look the straight field up along depth, beam by beam, linearly between fine samples
    fine = _bumps(np.arange(rows * 4, dtype=np.float32) * length_z / 4, rows, length_z) @ across.T  # (4 rows, Nx)
    position = z * 4 / length_z
    lower = np.floor(position).astype(np.int64)
    column = np.arange(x.shape[1])[None, :]
    part = (position - lower).astype(np.float32)
    size = fine.shape[0]
    return np.asarray((1 - part) * fine[lower % size, column] + part * fine[(lower + 1) % size, column])


def _bumps(position: Array, knots: int, length: float) -> Array:
    """Periodic basis of ``knots`` Gaussian bumps, ``length`` apart: (N, knots), rows of unit norm."""
    period = knots * length
    away = (position[:, None] - np.arange(knots) * length + period / 2) % period - period / 2
    basis = np.exp(-((away / length) ** 2))
    return np.asarray(basis / np.linalg.norm(basis, axis=1, keepdims=True), dtype=np.float32)
