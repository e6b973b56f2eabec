"""Predictions of a set of records, scored as the protocol says: at the original size, or as published."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from semidg.data.dataset import ImageCache
from semidg.data.paths import printable
from semidg.data.reading import record_mask
from semidg.errors import DataError
from semidg.evaluation.calibration import PixelSums
from semidg.evaluation.confidence import Calibration, PredictionSums
from semidg.evaluation.metrics import case_metrics
from semidg.evaluation.predict import label_map, to_original
from semidg.evaluation.protocols import PROTOCOLS, Protocol, published_truth
from semidg.experiment.cases import Case, cases_of
from semidg.networks.ensemble import Ensemble
from semidg.types import IGNORE_INDEX, Record


def predict_records(
    ensemble: Ensemble, records: Sequence[Record], cache: ImageCache, batch: int, device: torch.device
) -> Iterator[tuple[Record, Tensor]]:
    """Each record with the probabilities of each network, (N, K, S, S) float32 on the CPU; in order, none dropped."""
    for begin in range(0, len(records), batch):
        part = records[begin : begin + batch]
        images = np.stack([cache.images[cache.row(r.id)] for r in part])
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device).float() / 255
            each = ensemble.predict_each(x.contiguous(memory_format=torch.channels_last)).float().cpu()
        yield from zip(part, each.unbind(1), strict=True)


class Scores(NamedTuple):
    """tables: cases by predictor. pixels: sums for the calibration of ``mean``, where one was given."""

    tables: dict[str, pd.DataFrame]
    pixels: PixelSums | None


def score_records(
    ensemble: Ensemble,
    records: Sequence[Record],
    cache: ImageCache,
    root: Path,
    *,
    batch: int = 16,
    classes: int = 2,
    device: torch.device | None = None,
    protocol: Protocol = PROTOCOLS["grouped"],
    calibration: Calibration | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Per-case metrics of the ``mean`` of the networks, and of ``network_0``, ... where there are several.

    A case is an image, or all planes of a volume that are among the records (``experiment.cases``). Each table has a
    row a case with a mask: id, domain, class, group, with a volume among the records the number of planes, and the
    metrics of ``case_metrics``, in mm too where the spacing of every case is known. With a calibration ``mean`` also
    has expected_dice. Only the label maps of one case are held at a time. Raises DataError that names the case.
    """
    rows: dict[str, list[dict[str, object]]] = {}
    cases = cases_of([r for r in records if r.labelled])
    volumes = any(r.volume for case in cases for r in case.planes)
    in_mm = protocol.scoring == "original" and all(case.spacing is not None for case in cases)
    pixels = PixelSums(calibration) if calibration is not None else None
    planes = [record for case in cases for record in case.planes]
    predictions = predict_records(ensemble, planes, cache, batch, device or torch.device("cpu"))
    done = 0
    for case in cases:
        truths: list[npt.NDArray[np.uint8]] = []
        labels: dict[str, list[npt.NDArray[np.uint8]]] = {}
        certainty = PredictionSums(classes)
        for record, each in islice(predictions, len(case.planes)):
            truth = scored_truth(record, root, classes, protocol, each.shape[-1])
            views = {"mean": each.mean(0)}
            if len(each) > 1:
                views |= {f"network_{k}": p for k, p in enumerate(each)}
            for name, probabilities in views.items():
                full = to_original(probabilities, *truth.shape)
                labels.setdefault(name, []).append(label_map(full))
                if name == "mean" and pixels is not None:
                    pixels.add(full, labels[name][-1], truth, same_case=bool(truths))
                    certainty.add(probabilities)
            truths.append(truth)
            done += 1
            if progress:
                progress(done, len(planes))
        head: dict[str, object] = {
            "id": case.id,
            "domain": case.domain,
            "class": case.class_name,
            "group": case.planes[0].group,
        }
        if volumes:
            head |= {"planes": len(case.planes)}
        for name, maps in labels.items():
            metrics = _metrics(case, maps, truths, classes, case.spacing if in_mm else None)
            row: dict[str, object] = {**head, **metrics}
            if name == "mean" and pixels is not None:
                row["expected_dice"] = pixels.calibration.expected_dice_of(certainty.scores())
            rows.setdefault(name, []).append(row)
    return Scores({name: pd.DataFrame(table) for name, table in rows.items()}, pixels)


def _metrics(
    case: Case,
    labels: Sequence[npt.NDArray[np.uint8]],
    truths: Sequence[npt.NDArray[np.uint8]],
    classes: int,
    spacing: tuple[float, ...] | None,
) -> dict[str, float]:
    truth = case.stack(truths, IGNORE_INDEX)
    try:
        return case_metrics(case.stack(labels, 0), truth, classes, spacing=spacing)
    except DataError as error:
        raise DataError(f"{printable(case.id)}: {error}") from error


def scored_truth(record: Record, root: Path, classes: int, protocol: Protocol, size: int) -> npt.NDArray[np.uint8]:
    """The label map that a protocol scores against: (height, width) as drawn, or (size, size) as published."""
    mask = record_mask(root, record, classes)
    return published_truth(mask, size) if protocol.scoring == "published" else mask


class Validation:
    """Dice of the part that chooses the checkpoint, for use during training: the truths are read once."""

    def __init__(
        self,
        records: Sequence[Record],
        cache: ImageCache,
        root: Path,
        classes: int,
        protocol: Protocol = PROTOCOLS["grouped"],
    ) -> None:
        self.cases = cases_of([r for r in records if r.labelled])
        self.records = [record for case in self.cases for record in case.planes]
        self.cache, self.classes = cache, classes
        size = cache.images.shape[1]
        self.truths: list[tuple[tuple[int, ...], bytes]] = []
        for record in self.records:  # one at a time: only the packed ones are kept
            truth = scored_truth(record, root, classes, protocol, size)
            self.truths.append((truth.shape, zlib.compress(truth.tobytes(), 1)))

    def dice(self, ensemble: Ensemble, batch: int, device: torch.device) -> dict[str, float]:
        """Mean Dice over the cases, from 0 to 1, of ``mean`` and of each network alone."""
        scores: dict[str, list[float]] = {}
        predictions = predict_records(ensemble, self.records, self.cache, batch, device)
        both = zip(self.truths, predictions, strict=True)
        for case in self.cases:
            counts: dict[str, npt.NDArray[np.int64]] = {}
            for (shape, packed), (_, each) in islice(both, len(case.planes)):
                truth = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
                stack = torch.cat([each.mean(0, keepdim=True), each]) if len(each) > 1 else each
                for k, probabilities in enumerate(stack):
                    name = "mean" if k == 0 else f"network_{k - 1}"
                    found = overlap_counts(label_map(to_original(probabilities, *shape)), truth, self.classes)
                    counts[name] = counts[name] + found if name in counts else found
            for name, found in counts.items():
                scores.setdefault(name, []).append(float(np.mean(dice_of(found))))
        return {name: float(np.mean(values)) for name, values in scores.items()}


def overlap_counts(
    prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """For each foreground class the pixels that both have, and those of each added up: (K - 1, 2).

    Counts of the planes of a volume are added before ``dice_of``. Ignored pixels of the truth are in neither.
    """
    valid = truth != IGNORE_INDEX
    values = []
    for k in range(1, classes):
        p, t = (prediction == k) & valid, truth == k
        values.append((np.count_nonzero(p & t), np.count_nonzero(p) + np.count_nonzero(t)))
    return np.array(values, np.int64)


def dice_of(counts: npt.NDArray[np.int64]) -> list[float]:
    """Dice of each foreground class, by the rule of ``case_metrics`` (1 if both are empty)."""
    return [2 * both / total if total else 1.0 for both, total in counts.tolist()]


def overlap_dice(prediction: npt.NDArray[np.integer], truth: npt.NDArray[np.integer], classes: int) -> float:
    """Mean of ``dice_of`` over the foreground classes of one image."""
    return float(np.mean(dice_of(overlap_counts(prediction, truth, classes))))
