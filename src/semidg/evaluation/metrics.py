"""Metrics of one case: a predicted and a true label map of the same size, at the image's own resolution.

Symbols, for one foreground class: P the set of predicted pixels, T the set of true pixels, TP = |P & T|,
FP = |P - T|, FN = |T - P|, TN = the other scored pixels, D = sqrt(H^2 + W^2) the image diagonal in pixels.

    dice = 2 TP / (2 TP + FP + FN)        precision   = TP / (TP + FP)        specificity = TN / (TN + FP)
    iou  = TP / (TP + FP + FN)            sensitivity = TP / (TP + FN)

The boundary of a set is its pixels with a 4-neighbour outside the set or outside the image. d(A -> B) is, for each
boundary pixel of A, the Euclidean distance in pixels to the nearest boundary pixel of B.

    hd95 = max(percentile_95 d(P -> T), percentile_95 d(T -> P))   percentiles with linear interpolation, as in MONAI
    assd = mean of all values of d(P -> T) and d(T -> P) together

What a division by zero or an empty set gives is a written rule, so that a missed lesion never improves a mean:

    | truth     | prediction | dice iou precision sensitivity | specificity     | hd95 assd |
    |-----------|------------|--------------------------------|-----------------|-----------|
    | empty     | empty      | 1                              | 1               | 0         |
    | empty     | not empty  | 0                              | TN / (TN + FP)  | D         |
    | not empty | empty      | 0                              | 1               | D         |
    | not empty | not empty  | as defined                     | TN / (TN + FP)  | as defined|
    | everything| any        | as above                       | 1 (TN + FP = 0) | as above  |

Pixels whose truth is IGNORE_INDEX are left out of every count, and belong to neither P nor T for the boundaries:
emptiness is judged without them, and where a set is cut by an ignored region its boundary runs along the cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from semidg.errors import DataError
from semidg.types import IGNORE_INDEX

#: The metrics of a case, in the order of tables.
METRICS: tuple[str, ...] = ("dice", "iou", "precision", "sensitivity", "specificity", "hd95", "assd")

#: Whether a larger value is a better one.
HIGHER_IS_BETTER: dict[str, bool] = {name: name not in {"hd95", "assd"} for name in METRICS}

Mask = npt.NDArray[np.bool_]
LabelMap = npt.NDArray[np.integer]
Distances = npt.NDArray[np.float64]


def case_metrics(prediction: LabelMap, truth: LabelMap, classes: int = 2) -> dict[str, float]:
    """All metrics of one case; every value is finite.

    prediction: (H, W) class numbers below ``classes``. truth: (H, W) class numbers, IGNORE_INDEX where not known.
    Overlap metrics lie in [0, 1], hd95 and assd are in pixels.

    For ``classes`` > 2 each key holds the mean over the foreground classes, and ``dice_1``, ``dice_2``, ... (likewise
    for the other metrics) the classes; a class absent from both label maps counts by the table of the module.

    Raises DataError for sizes that differ, a class number out of range and a truth without any known pixel.
    """
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise DataError(
            f"prediction is {prediction.shape} and truth {truth.shape}: both must be label maps of one size (H, W)"
        )
    known = truth != IGNORE_INDEX
    if not known.any():
        raise DataError("truth has no labelled pixel: an unlabelled image cannot be scored, leave it out")
    # each pixel falls into one cell of truth x prediction; ignored pixels into none
    if prediction.max() >= classes or truth[known].max() >= classes or min(prediction.min(), truth.min()) < 0:
        found = sorted({*np.unique(prediction).tolist(), *np.unique(truth[known]).tolist()} - set(range(classes)))
        raise DataError(f"class numbers {found} are out of range: {classes} classes are numbered 0 to {classes - 1}")

    each = [_binary(known & (prediction == c), known & (truth == c), int(known.sum())) for c in range(1, classes)]
    if classes == 2:
        return each[0]
    result = {name: float(np.mean([values[name] for values in each])) for name in METRICS}
    for number, values in enumerate(each, start=1):
        result |= {f"{name}_{number}": values[name] for name in METRICS}
    return result


def boundary(mask: Mask) -> Mask:
    """The pixels of ``mask``, (H, W), that have a 4-neighbour outside the mask or outside the image."""
    padded = np.pad(mask, 1)
    interior = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~interior)


def surface_distances(a: Mask, b: Mask) -> tuple[Distances, Distances]:
    """d(a -> b) and d(b -> a) in pixels, one value a boundary pixel; neither mask, (H, W), may be empty.

    Only the bounding box of the union is looked at, which changes nothing: every boundary pixel of both lies in it,
    the distance between two pixels does not depend on the others, and what lies outside the box is outside both
    masks, just as what lies outside the image. Few boundary pixels are searched in a k-d tree, many (noise) by a
    distance transform; both are exact.
    """
    box = _bounding_box(a | b)
    edge_a, edge_b = boundary(a[box]), boundary(b[box])
    points_a, points_b = np.argwhere(edge_a), np.argwhere(edge_b)
    if 10 * (len(points_a) + len(points_b)) > edge_a.size:
        return (
            np.asarray(distance_transform_edt(~edge_b)[edge_a], dtype=np.float64),
            np.asarray(distance_transform_edt(~edge_a)[edge_b], dtype=np.float64),
        )
    return cKDTree(points_b).query(points_a)[0], cKDTree(points_a).query(points_b)[0]


def _binary(predicted: Mask, true: Mask, scored: int) -> dict[str, float]:
    n_predicted, n_true = int(predicted.sum()), int(true.sum())
    if n_predicted and n_true:
        overlap = int((predicted & true).sum())
        to_true, to_predicted = surface_distances(predicted, true)
        hd95 = float(max(np.percentile(to_true, 95), np.percentile(to_predicted, 95)))
        assd = float((to_true.sum() + to_predicted.sum()) / (len(to_true) + len(to_predicted)))
        ratios = (
            2 * overlap / (n_predicted + n_true),
            overlap / (n_predicted + n_true - overlap),
            overlap / n_predicted,
            overlap / n_true,
        )
    else:
        overlap = 0
        agree = not n_predicted and not n_true
        hd95 = assd = 0.0 if agree else float(np.hypot(*true.shape))
        ratios = (1.0,) * 4 if agree else (0.0,) * 4
    negatives = scored - n_true  # TN + FP
    specificity = 1 - (n_predicted - overlap) / negatives if negatives else 1.0
    return dict(zip(METRICS, (*ratios, specificity, hd95, assd), strict=True))


def _bounding_box(mask: Mask) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
