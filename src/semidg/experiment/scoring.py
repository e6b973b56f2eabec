"""Predictions of a set of records, scored as the protocol says: at the original size, or as published."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from semidg.data.dataset import ImageCache
from semidg.data.reading import record_mask
from semidg.evaluation.calibration import PixelSums
from semidg.evaluation.confidence import Calibration
from semidg.evaluation.metrics import case_metrics
from semidg.evaluation.predict import label_map, to_original
from semidg.evaluation.protocols import PROTOCOLS, Protocol, published_truth
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

    Each table has a row a record that has a mask: id, domain, class, group, and the metrics of ``case_metrics``, in mm
    too where the pixel spacing of every record is known. With a calibration ``mean`` also has expected_dice.
    """
    rows: dict[str, list[dict[str, object]]] = {}
    labelled = [r for r in records if r.labelled]
    in_mm = protocol.scoring == "original" and all(r.spacing is not None for r in labelled)
    pixels = PixelSums(calibration) if calibration is not None else None
    predictions = predict_records(ensemble, labelled, cache, batch, device or torch.device("cpu"))
    for done, (record, each) in enumerate(predictions, 1):
        truth = scored_truth(record, root, classes, protocol, each.shape[-1])
        head = {"id": record.id, "domain": record.domain, "class": record.class_name, "group": record.group}
        views = {"mean": each.mean(0)}
        if len(each) > 1:
            views |= {f"network_{k}": p for k, p in enumerate(each)}
        for name, probabilities in views.items():
            full = to_original(probabilities, *truth.shape)
            prediction = label_map(full)
            spacing = record.spacing if in_mm else None
            row: dict[str, object] = head | dict(case_metrics(prediction, truth, classes, spacing=spacing))
            if name == "mean" and pixels is not None:
                pixels.add(full, prediction, truth)
                row["expected_dice"] = pixels.calibration.expected_dice(probabilities)
            rows.setdefault(name, []).append(row)
        if progress:
            progress(done, len(labelled))
    return Scores({name: pd.DataFrame(table) for name, table in rows.items()}, pixels)


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
        self.records = [r for r in records if r.labelled]
        self.cache, self.classes = cache, classes
        size = cache.images.shape[1]
        self.truths: list[tuple[tuple[int, ...], bytes]] = []
        for record in self.records:  # one at a time: only the packed ones are kept
            truth = scored_truth(record, root, classes, protocol, size)
            self.truths.append((truth.shape, zlib.compress(truth.tobytes(), 1)))

    def dice(self, ensemble: Ensemble, batch: int, device: torch.device) -> dict[str, float]:
        """Mean Dice, from 0 to 1, of ``mean`` and of each network alone."""
        scores: dict[str, list[float]] = {}
        predictions = predict_records(ensemble, self.records, self.cache, batch, device)
        for (shape, packed), (_, each) in zip(self.truths, predictions, strict=True):
            truth = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
            stack = torch.cat([each.mean(0, keepdim=True), each]) if len(each) > 1 else each
            for k, probabilities in enumerate(stack):
                prediction = label_map(to_original(probabilities, *shape))
                name = "mean" if k == 0 else f"network_{k - 1}"
                scores.setdefault(name, []).append(overlap_dice(prediction, truth, self.classes))
        return {name: float(np.mean(values)) for name, values in scores.items()}


def overlap_dice(prediction: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """Mean Dice of the foreground classes of one image, by the rule of ``case_metrics`` (1 if both are empty)."""
    return float(np.mean(overlaps(prediction, truth, classes)))


def overlaps(prediction: np.ndarray, truth: np.ndarray, classes: int) -> list[float]:
    """Dice of each foreground class of one image."""
    values = []
    valid = truth != IGNORE_INDEX
    for k in range(1, classes):
        p, t = (prediction == k) & valid, truth == k
        total = int(p.sum()) + int(t.sum())
        values.append(2 * int((p & t).sum()) / total if total else 1.0)
    return values
