"""Lesion-wise detection: which connected components of the truth the prediction finds, and which it invents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import label
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

#: A predicted component can stand for a true one from this intersection over union on.
MATCH_IOU = 0.1

Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


def lesion_counts(predicted: Mask, true: Mask) -> tuple[int, int, int]:
    """Number of true lesions, of those found, and of false detections in two masks of one shape, (H, W) or (D, H, W).

    Lesions are connected components, corners included (8 neighbours in the plane, 26 in a volume). A predicted and a
    true component with IoU >= MATCH_IOU may be matched, each at most once; the matching with the most pairs counts,
    so that neither one blob over two lesions nor one lesion in two pieces is counted twice. A true component in a
    pair is found, a predicted one in none is false: true = found + missed, predicted = found + false.
    """
    corners = np.ones((3,) * true.ndim, dtype=np.int8)
    labels_true, n_true = label(true, corners)
    labels_predicted, n_predicted = label(predicted, corners)
    if not n_true or not n_predicted:
        return int(n_true), 0, int(n_predicted)
    both = true & predicted
    pairs, shared = np.unique(
        labels_true[both].astype(np.int64) * (n_predicted + 1) + labels_predicted[both], return_counts=True
    )
    rows, columns = pairs // (n_predicted + 1), pairs % (n_predicted + 1)
    union = _sizes(labels_true)[rows] + _sizes(labels_predicted)[columns] - shared
    near = shared / union >= MATCH_IOU
    # pairs are in the order of rows, then columns, as the compressed rows of a sparse matrix want them
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows[near] - 1, minlength=n_true))])
    graph = csr_array((np.ones(int(near.sum()), dtype=np.int8), columns[near] - 1, starts), shape=(n_true, n_predicted))
    found = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    return int(n_true), found, int(n_predicted) - found


def _sizes(labels: npt.NDArray[np.int32]) -> Counts:
    """Pixels of each component; the first number is the background's."""
    return np.bincount(labels.ravel())
