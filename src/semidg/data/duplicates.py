"""Near-duplicate images: connected components over normalised cross-correlation."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.fft import dct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from semidg.errors import DataError
from semidg.types import Record

#: Side in pixels of the grey thumbnails that are compared.
THUMBNAIL = 64

_BLOCK, _COLUMNS = 512, 4096  # rows and columns of the correlation matrix held at once
_ROWS = 64  # of which so many are searched at once: what they join need not be looked at again
_PAIRS = 2048  # of them, up to which each is compared by itself, beyond it the whole block
_COARSE = 16  # frequencies in each direction by which pairs are told apart first
_SLACK = 1e-3  # more than the rounding of single precision


def thumbnail(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) uint8 grey -> (64, 64) uint8: squashed, antialiased bilinear, smoothed by a Gaussian of 1 pixel.

    Without the smoothing, speckle that is shifted by a pixel or cropped a little lowers the correlation of true twins
    (on BUSI to 0.86) and their number hangs on the threshold.
    """
    small = Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return np.array(small.filter(ImageFilter.GaussianBlur(1)))


def near_duplicate_groups(thumbnails: NDArray[np.generic], threshold: float) -> NDArray[np.int64]:
    """Group number of each of N thumbnails (N, h, w) of grey values: (N,) int64, numbered by first appearance.

    Two images are joined where r = sum_p a_p b_p > threshold, with a and b their grey values minus the mean over the
    norm, r in [-1, 1]; a group is a connected component, so that a chain of twins is one group. A constant image has
    no correlation with anything and is joined only to constant images of the same grey value.

    Every pair is compared, most of them by a bound alone. With x the coefficients of a in some of the vectors of an
    orthonormal basis (here the lowest 16 x 16 of the discrete cosine transform) and e the norm of what is left of it,
    r <= x_a x_b + e_a e_b (Cauchy and Schwarz). r itself is computed for pairs whose bound lies above the threshold and
    that are not in one group already, so that neither time nor memory grows with the number of twins. Blocks of the
    matrix are held, never all of it. Raises DataError on another number of dimensions or values that are not finite.
    """
    if thumbnails.ndim != 3:
        raise DataError(f"thumbnails must be (N, height, width), not {thumbnails.shape}")
    count = len(thumbnails)
    if not thumbnails.size:
        return np.zeros(count, dtype=np.int64)
    bounding, constant = _bounding(thumbnails)
    labels = np.arange(count)
    members = np.flatnonzero(constant)
    if len(members):
        _, first, same = np.unique(thumbnails[members, 0, 0].astype(np.float32), return_index=True, return_inverse=True)
        labels[members] = members[first[same]]
    for start, other in ((i, j) for i in range(0, count, _BLOCK) for j in range(i, count, _COLUMNS)):
        bound = bounding[start : start + _BLOCK] @ bounding[other : other + _COLUMNS].T
        exact: NDArray[np.float32] | None = None
        for row in range(0, len(bound), _ROWS):
            near = bound[row : row + _ROWS] > threshold - _SLACK
            if not near.any():
                continue
            near &= labels[start + row : start + row + len(near), None] != labels[other : other + near.shape[1]]
            rows, columns = np.nonzero(near)
            if not len(rows):
                continue
            if len(rows) > _PAIRS or exact is not None:
                if exact is None:
                    left, right = thumbnails[start : start + _BLOCK], thumbnails[other : other + _COLUMNS]
                    exact = _normalised(left) @ _normalised(right).T
                r = exact[rows + row, columns]
            else:
                r = _of_pairs(thumbnails, rows + start + row, columns + other)
            joined = np.minimum(r, 1.0) > threshold
            if joined.any():
                labels = _join(labels, rows[joined] + start + row, columns[joined] + other)
    return _by_first_appearance(labels)


def _normalised(thumbnails: NDArray[np.generic]) -> NDArray[np.float32]:
    """(N, h, w) -> (N, h w) of mean 0 and norm 1; constant ones are all 0."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    same = (flat == flat[:, :1]).all(axis=1)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.where(same[:, None] | (norms == 0), 1, norms)
    flat[same] = 0
    return flat


def _bounding(thumbnails: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors (N, 257) whose product is not below the correlation of two thumbnails, and which are constant."""
    count, height, width = thumbnails.shape
    down, across = (dct(np.eye(n, dtype=np.float32), norm="ortho", axis=0)[:_COARSE] for n in (height, width))
    found = np.empty((count, len(down) * len(across) + 1), dtype=np.float32)
    constant = np.zeros(count, dtype=bool)
    for start in range(0, count, _BLOCK):
        block = thumbnails[start : start + _BLOCK]
        if not np.isfinite(block).all():
            raise DataError("thumbnails hold NaN or infinite grey values")
        flat = _normalised(block)
        grey = block.astype(np.float32)
        constant[start : start + _BLOCK] = (grey == grey[:, :1, :1]).all(axis=(1, 2))
        lowest = (down @ flat.reshape(block.shape) @ across.T).reshape(len(block), -1)
        rest = (flat.astype(np.float64) ** 2).sum(axis=1) - (lowest.astype(np.float64) ** 2).sum(axis=1)
        found[start : start + _BLOCK, :-1] = lowest
        found[start : start + _BLOCK, -1] = np.sqrt(rest.clip(0) + _SLACK**2)  # never below the true one
    return found, constant


def _of_pairs(
    thumbnails: NDArray[np.generic], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.floating[Any]]:
    """The correlation of each pair."""
    images, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    values, places = _normalised(thumbnails[images]), places.reshape(2, -1)
    parts = range(0, len(left), _BLOCK)
    return np.concatenate([np.einsum("ij,ij->i", *(values[side[k : k + _BLOCK]] for side in places)) for k in parts])


def twin_groups(records: Sequence[Record], thumbnails: NDArray[np.generic], threshold: float) -> NDArray[np.int64]:
    """Group number of each of N records, (N,) int64, numbered by first appearance: near-duplicates share one.

    Plain images are compared with one another by ``near_duplicate_groups``. The planes of a file are one group, and
    two such files are joined only where all their thumbnails are equal: slices of two patients at one height look
    alike, and so do the empty ones at the ends of any two volumes, so that likeness would chain all volumes together.
    """
    plain = np.flatnonzero([record.frame is None for record in records])
    labels = np.arange(len(records))
    if len(plain):
        compared = thumbnails if len(plain) == len(records) else thumbnails[plain]  # no copy of 4 KB an image
        labels[plain] = plain[near_duplicate_groups(compared, threshold)]
    planes: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        if record.frame is not None:
            planes.setdefault(record.file, []).append(number)
    copies: dict[bytes, int] = {}
    for members in planes.values():
        content = sha256(np.ascontiguousarray(thumbnails[members]).tobytes()).digest()
        labels[members] = copies.setdefault(content, members[0])
    return _by_first_appearance(labels)


def _join(labels: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge the components ``labels`` (each a node number) with new edges; only one edge a node is carried on."""
    count = len(labels)
    sources = np.concatenate([np.arange(count), left])
    targets = np.concatenate([labels, right])
    graph = coo_array((np.ones(len(sources), dtype=np.int8), (sources, targets)), shape=(count, count))
    _, components = connected_components(graph, directed=False)
    _, first = np.unique(components, return_index=True)
    merged: NDArray[np.int64] = first[components].astype(np.int64)
    return merged


def _by_first_appearance(numbers: NDArray[np.generic]) -> NDArray[np.int64]:
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: NDArray[np.int64] = rank[inverse.reshape(-1)]
    return numbered
