"""Metrics of one case: a predicted and a true label map of one size, at the image's own resolution.

A case is an image (H, W) or a volume (D, H, W), scored in one call; "pixel" below means voxel in a volume. Symbols,
for one foreground class: P the set of predicted pixels, T the set of true pixels, TP = |P & T|, FP = |P - T|,
FN = |T - P|, TN = the other scored pixels, D = sqrt(H^2 + W^2) the diagonal in pixels (with the depth in a volume),
D_mm the diagonal in mm.

    dice = 2 TP / (2 TP + FP + FN)        precision   = TP / (TP + FP)        specificity = TN / (TN + FP)
    iou  = TP / (TP + FP + FN)            sensitivity = TP / (TP + FN)        area = |T| / scored pixels

    area_bias = (|P| - |T|) / max(|P|, |T|)        area_error = | area_bias |

The difference in area is not divided by |T|: it would be unbounded, and a lesion drawn three times too large (2) would
count for more than a missed one (1). Divided by the larger area the error is at most 1, which is the value of a miss.

The boundary of a set is its pixels with a 4-neighbour (6 in a volume) outside the set or outside the image: B_P, B_T.
d(P -> T) is, for each pixel of B_P, the Euclidean distance between pixel centres to the nearest pixel of B_T.

    hd   = max of d(P -> T) and d(T -> P)
    hd95 = max(percentile_95 d(P -> T), percentile_95 d(T -> P))    percentiles with linear interpolation, as in MONAI
    assd = mean of all values of d(P -> T) and d(T -> P) together
    nsd  = (|d(P -> T) <= t| + |d(T -> P) <= t|) / (|B_P| + |B_T|)   t = NSD_TOLERANCE; Nikolov et al. 2021
    boundary_f1 = 2 p r / (p + r), p = |d(P -> T) <= b| / |B_P|, r = |d(T -> P) <= b| / |B_T|, 0 if p + r = 0
                  b = BOUNDARY_F1_TOLERANCE D; Csurka et al. 2013

hd_mm, hd95_mm, assd_mm, nsd_mm are the same with distances in mm and t = NSD_TOLERANCE_MM. N_T and N_P are the numbers
of connected components of T and P; semidg.evaluation.lesions says which are found and which false.

What a division by zero or an empty set gives is a written rule: the worst value on a miss and on a false alarm, the
best where both are empty. So no prediction scores worse than a missed lesion, and a miss never improves a mean.
"overlap" are dice, iou, precision, sensitivity, nsd, nsd_mm and boundary_f1, "distance" are hd, hd95, assd and, with
D_mm for D, hd_mm, hd95_mm and assd_mm; found and false are lesions_found and lesions_false.

    | truth      | prediction | overlap | specificity     | distance | area_error | area_bias | found   | false   |
    |------------|------------|---------|-----------------|----------|------------|-----------|---------|---------|
    | empty      | empty      | 1       | 1               | 0        | 0          | 0         | 0       | 0       |
    | empty      | not empty  | 0       | TN / (TN + FP)  | D        | 1          | 1         | 0       | N_P     |
    | not empty  | empty      | 0       | 1               | D        | 1          | -1        | 0       | 0       |
    | not empty  | not empty  | defined | TN / (TN + FP)  | defined  | defined    | defined   | defined | defined |
    | everything | any        | above   | 1 (TN + FP = 0) | above    | above      | above     | above   | above   |

Specificity and lesions_false look at the background only and cannot see a miss; they stand beside sensitivity and
lesions_found, never alone.

Pixels whose truth is IGNORE_INDEX are left out of every count, and belong to neither P nor T for the boundaries and
components: emptiness is judged without them, and where a set is cut by an ignored region its boundary runs along the
cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from semidg.errors import ConfigError, DataError
from semidg.evaluation.lesions import lesion_counts
from semidg.types import IGNORE_INDEX

#: The metrics of a case, in the order of tables.
METRICS: tuple[str, ...] = (
    "dice", "iou", "precision", "sensitivity", "specificity", "hd", "hd95", "assd", "nsd", "boundary_f1", "area_error",
)  # fmt: skip

#: The metrics of a case whose pixel spacing is known, in mm (nsd_mm: its tolerance).
MM_METRICS: tuple[str, ...] = ("hd_mm", "hd95_mm", "assd_mm", "nsd_mm")

#: True connected components, those of them found, and predicted ones that match none.
LESION_COUNTS: tuple[str, ...] = ("lesions", "lesions_found", "lesions_false")

#: Whether a larger value is a better one.
HIGHER_IS_BETTER: dict[str, bool] = {
    name: name.removesuffix("_mm") not in {"hd", "hd95", "assd", "area_error"} for name in (*METRICS, *MM_METRICS)
}

#: Distance, in pixels and in mm, up to which a boundary pixel counts as right for nsd and nsd_mm.
NSD_TOLERANCE = 3.0
NSD_TOLERANCE_MM = 1.0

#: The same for boundary_f1, as a part of the image diagonal.
BOUNDARY_F1_TOLERANCE = 0.0075

Mask = npt.NDArray[np.bool_]
LabelMap = npt.NDArray[np.integer]
Distances = npt.NDArray[np.float64]


def case_metrics(
    prediction: LabelMap,
    truth: LabelMap,
    classes: int = 2,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = NSD_TOLERANCE,
    tolerance_mm: float = NSD_TOLERANCE_MM,
) -> dict[str, float]:
    """All metrics of one case; every value is finite.

    prediction: (H, W) or (D, H, W), class numbers below ``classes``. truth: the same shape, class numbers,
    IGNORE_INDEX where not known. spacing: mm between pixels, a number an axis; without it there are no MM_METRICS.
    tolerance, tolerance_mm: of nsd in pixels and of nsd_mm in mm.

    Keys, in this order: area, METRICS, area_bias, LESION_COUNTS (int) and, with a spacing, MM_METRICS. Distances are
    in pixels or mm, area_bias lies in [-1, 1], the others in [0, 1].

    For ``classes`` > 2 each key holds the mean over the foreground classes, but ``area`` their union and
    LESION_COUNTS their sum; ``dice_1``, ``dice_2``, ... (likewise for every other key) hold the classes. A class
    absent from both label maps counts by the table of the module.

    Raises DataError for sizes that differ, a class number out of range, a truth without any known pixel and a spacing
    that does not fit, ConfigError for a negative tolerance.
    """
    known = _known(prediction, truth, classes)
    if spacing is not None and (len(spacing) != truth.ndim or not all(0 < s < np.inf for s in spacing)):
        raise DataError(f"spacing {tuple(spacing)}: {truth.ndim} numbers of mm above 0 are needed, one an axis")
    if not (tolerance >= 0 and tolerance_mm >= 0):
        raise ConfigError(f"tolerance {tolerance} pixels, {tolerance_mm} mm: give 0 or more")
    scored = int(np.count_nonzero(known))
    each = [
        _binary(known & (prediction == c), known & (truth == c), scored, spacing, (tolerance, tolerance_mm))
        for c in range(1, classes)
    ]
    if classes == 2:
        return each[0]
    result = {name: float(np.mean([values[name] for values in each])) for name in each[0]}
    result["area"] = int(np.count_nonzero(known & (truth != 0))) / scored
    result |= {name: sum(values[name] for values in each) for name in LESION_COUNTS}
    for number, values in enumerate(each, start=1):
        result |= {f"{name}_{number}": value for name, value in values.items()}
    return result


def boundary(mask: Mask) -> Mask:
    """The pixels of ``mask``, (H, W) or (D, H, W), with a neighbour along an axis outside the mask or the image."""
    interior = mask.copy()
    for axis in range(mask.ndim):
        inside, of = np.moveaxis(interior, axis, 0), np.moveaxis(mask, axis, 0)
        inside[1:] &= of[:-1]
        inside[:-1] &= of[1:]
        inside[[0, -1]] = False
    return np.asarray(mask & ~interior)


def surface_distances(
    edge_a: Mask, edge_b: Mask, spacing: Sequence[float] | None = None
) -> tuple[Distances, Distances]:
    """d(a -> b) and d(b -> a), one value a boundary pixel in C order, for two boundaries that are not empty.

    In pixels, or in the unit of ``spacing``, a number an axis. Few boundary pixels are searched in a k-d tree, many
    (noise) by a distance transform; both are exact.
    """
    points_a, points_b = _points(edge_a), _points(edge_b)
    if 10 * (len(points_a) + len(points_b)) > edge_a.size:
        return (
            np.asarray(distance_transform_edt(~edge_b, spacing)[edge_a], dtype=np.float64),
            np.asarray(distance_transform_edt(~edge_a, spacing)[edge_b], dtype=np.float64),
        )
    if spacing is not None:
        points_a, points_b = points_a * np.asarray(spacing), points_b * np.asarray(spacing)
    return cKDTree(points_b).query(points_a)[0], cKDTree(points_a).query(points_b)[0]


def _known(prediction: LabelMap, truth: LabelMap, classes: int) -> Mask:
    """Where the truth is known, after a check of both label maps."""
    if prediction.ndim not in (2, 3) or prediction.shape != truth.shape:
        raise DataError(
            f"prediction is {prediction.shape} and truth {truth.shape}: both must be label maps of one size, (H, W) or "
            "(D, H, W)"
        )
    known: Mask = truth != IGNORE_INDEX
    if not known.any():
        raise DataError("truth has no labelled pixel: an unlabelled image cannot be scored, leave it out")
    if prediction.max() >= classes or truth[known].max() >= classes or min(prediction.min(), truth.min()) < 0:
        found = sorted({*np.unique(prediction).tolist(), *np.unique(truth[known]).tolist()} - set(range(classes)))
        raise DataError(f"class numbers {found} are out of range: {classes} classes are numbered 0 to {classes - 1}")
    return known


def _binary(
    predicted: Mask, true: Mask, scored: int, spacing: Sequence[float] | None, tolerances: tuple[float, float]
) -> dict[str, float]:
    """The metrics of one class, in the order of ``case_metrics``."""
    diagonal = float(np.linalg.norm(true.shape))
    # All that follows needs the bounding box of the union only: distances between two pixels do not depend on the
    # others, and what lies outside the box is outside both masks, just as what lies outside the image.
    box = _bounding_box(predicted | true)
    p, t = predicted[box], true[box]
    n_predicted, n_true, overlap = (int(np.count_nonzero(mask)) for mask in (p, t, p & t))
    negatives = scored - n_true  # TN + FP
    bias = (n_predicted - n_true) / max(n_predicted, n_true, 1)
    values: dict[str, float] = {
        "area": n_true / scored,
        "specificity": 1 - (n_predicted - overlap) / negatives if negatives else 1.0,
        "area_error": abs(bias),
        "area_bias": bias,
    }
    values |= zip(LESION_COUNTS, lesion_counts(p, t), strict=True)
    names = (*METRICS, *(MM_METRICS if spacing is not None else ()))
    if n_predicted and n_true:
        values |= {
            "dice": 2 * overlap / (n_predicted + n_true),
            "iou": overlap / (n_predicted + n_true - overlap),
            "precision": overlap / n_predicted,
            "sensitivity": overlap / n_true,
        }
        edges = boundary(p), boundary(t)
        pixels = surface_distances(*edges)
        values |= _surface_scores(*pixels, tolerances[0])
        values["boundary_f1"] = _boundary_f1(*pixels, BOUNDARY_F1_TOLERANCE * diagonal)
        if spacing is not None:
            if len(set(spacing)) == 1:
                mm = pixels[0] * spacing[0], pixels[1] * spacing[0]
            else:
                mm = surface_distances(*edges, spacing)
            values |= {f"{name}_mm": value for name, value in _surface_scores(*mm, tolerances[1]).items()}
    else:
        agree = n_predicted == n_true  # both are empty
        diagonal_mm = float(np.linalg.norm(np.multiply(true.shape, spacing))) if spacing is not None else 0.0
        for name in names:
            worst = diagonal_mm if name in MM_METRICS else diagonal
            values.setdefault(name, float(agree) if HIGHER_IS_BETTER[name] else 0.0 if agree else worst)
    order = ("area", *METRICS, "area_bias", *LESION_COUNTS, *names[len(METRICS) :])
    return {name: values[name] for name in order}


def _surface_scores(to_true: Distances, to_predicted: Distances, tolerance: float) -> dict[str, float]:
    n = len(to_true) + len(to_predicted)
    return {
        "hd": float(max(to_true.max(), to_predicted.max())),
        "hd95": float(max(np.percentile(to_true, 95), np.percentile(to_predicted, 95))),
        "assd": float((to_true.sum() + to_predicted.sum()) / n),
        "nsd": (_within(to_true, tolerance) + _within(to_predicted, tolerance)) / n,
    }


def _boundary_f1(to_true: Distances, to_predicted: Distances, tolerance: float) -> float:
    precision = _within(to_true, tolerance) / len(to_true)
    recall = _within(to_predicted, tolerance) / len(to_predicted)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _within(distances: Distances, tolerance: float) -> int:
    """How many distances are at most ``tolerance``; one that equals it counts, whatever a spacing in mm rounds to."""
    return int(np.count_nonzero(distances <= tolerance * (1 + 1e-9)))


def _points(mask: Mask) -> npt.NDArray[np.intp]:
    """Coordinates of the true pixels, (n, ndim), in C order; several times as fast as np.argwhere."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds the mask; of no size where it is empty."""
    box = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(hit[0], hit[-1] + 1) if hit.size else slice(0))
    return tuple(box)
