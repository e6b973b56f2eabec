"""Near-duplicate images: connected components over normalised cross-correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from semidg.errors import DataError
from semidg.types import Record

#: Side in pixels of the grey thumbnails that are compared.
THUMBNAIL = 64

_BLOCK = 512  # rows of the correlation matrix held at once
_ROWS = 64  # of which so many are searched at once: what they join need not be looked at again


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
    no correlation with anything and is joined only to constant images of the same grey value. The matrix is made in
    blocks of 512 rows, and pairs that are in one group already are passed over, so that many twins take no more memory
    than few. Raises DataError on another number of dimensions or values that are not finite.
    """
    if thumbnails.ndim != 3:
        raise DataError(f"thumbnails must be (N, height, width), not {thumbnails.shape}")
    count = len(thumbnails)
    flat = thumbnails.reshape(count, math.prod(thumbnails.shape[1:])).astype(np.float32)
    constant = np.zeros(count, dtype=bool)
    greys = flat[:, 0].copy() if flat.size else np.zeros(count, dtype=np.float32)
    for start in range(0, count, _BLOCK):  # in place and in blocks: twice the memory is not needed
        block = flat[start : start + _BLOCK]
        if not np.isfinite(block).all():
            raise DataError("thumbnails hold NaN or infinite grey values")
        same = (block == block[:, :1]).all(axis=1)
        block -= block.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        block /= np.where(same[:, None] | (norms == 0), 1, norms)
        block[same] = 0
        constant[start : start + _BLOCK] = same

    labels = np.arange(count)
    members = np.flatnonzero(constant)
    if len(members):
        _, first = np.unique(greys[members], return_inverse=True)
        starts = np.array([members[np.argmax(first == number)] for number in range(first.max() + 1)])
        labels[members] = starts[first]
    for start in range(0, count, _BLOCK):
        correlation = flat[start : start + _BLOCK] @ flat[start:].T  # the upper triangle is enough
        near = np.minimum(correlation, 1.0, out=correlation) > threshold
        for row in range(0, len(near), _ROWS):
            apart = labels[start + row : start + row + _ROWS, None] != labels[start:]
            rows, columns = np.nonzero(near[row : row + _ROWS] & apart[: len(near) - row])
            if len(rows):
                labels = _join(labels, rows + start + row, columns + start)
    _, numbered = np.unique(labels, return_inverse=True)
    return _by_first_appearance(numbered)


def twin_groups(records: Sequence[Record], thumbnails: NDArray[np.generic], threshold: float) -> NDArray[np.int64]:
    """Group number of each of N records, (N,) int64, numbered by first appearance: near-duplicates share one.

    Plain images are compared with one another by ``near_duplicate_groups``. The planes of a file are one group, and
    two such files are joined only where all their thumbnails are equal: slices of two patients at one height look
    alike, and so do the empty ones at the ends of any two volumes, so that likeness would chain all volumes together.
    """
    plain = np.flatnonzero([record.frame is None for record in records])
    labels = np.arange(len(records))
    labels[plain] = plain[near_duplicate_groups(thumbnails[plain], threshold)] if len(plain) else plain
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
