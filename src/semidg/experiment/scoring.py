"""Predictions of a set of records, brought back to the original size of each image and scored there."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from semidg.data.dataset import ImageCache
from semidg.data.images import read_mask
from semidg.evaluation.metrics import case_metrics
from semidg.evaluation.predict import label_map, to_original
from semidg.networks.ensemble import Ensemble
from semidg.types import Record


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


def score_records(
    ensemble: Ensemble,
    records: Sequence[Record],
    cache: ImageCache,
    root: Path,
    *,
    batch: int = 16,
    classes: int = 2,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, pd.DataFrame]:
    """Per-case metrics at the original size: ``mean`` of the networks, and ``network_0``, ... where there are several.

    Each table has columns id, domain, class, group and the metrics; a row a record that has a mask.
    """
    rows: dict[str, list[dict[str, object]]] = {}
    labelled = [r for r in records if r.labelled]
    predictions = predict_records(ensemble, labelled, cache, batch, device or torch.device("cpu"))
    for done, (record, each) in enumerate(predictions, 1):
        truth = read_mask([root / m for m in record.masks], classes)
        views = {"mean": each.mean(0)}
        if len(each) > 1:
            views |= {f"network_{k}": p for k, p in enumerate(each)}
        for name, probabilities in views.items():
            prediction = label_map(to_original(probabilities, record.height, record.width))
            head: dict[str, object] = {
                "id": record.id,
                "domain": record.domain,
                "class": record.class_name,
                "group": record.group,
            }
            rows.setdefault(name, []).append(head | dict(case_metrics(prediction, truth, classes)))
        if progress:
            progress(done, len(labelled))
    return {name: pd.DataFrame(table) for name, table in rows.items()}


class Validation:
    """Dice of the validation part at the original size, for use during training: the truths are read once."""

    def __init__(self, records: Sequence[Record], cache: ImageCache, root: Path, classes: int) -> None:
        self.records = [r for r in records if r.labelled]
        self.cache, self.classes = cache, classes
        self.truths = [
            zlib.compress(read_mask([root / m for m in r.masks], classes).tobytes(), 1) for r in self.records
        ]

    def dice(self, ensemble: Ensemble, batch: int, device: torch.device) -> dict[str, float]:
        """Mean Dice, from 0 to 1, of ``mean`` and of each network alone."""
        scores: dict[str, list[float]] = {}
        predictions = predict_records(ensemble, self.records, self.cache, batch, device)
        for packed, (record, each) in zip(self.truths, predictions, strict=True):
            truth = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(record.height, record.width)
            stack = torch.cat([each.mean(0, keepdim=True), each]) if len(each) > 1 else each
            for k, probabilities in enumerate(stack):
                prediction = label_map(to_original(probabilities, record.height, record.width))
                name = "mean" if k == 0 else f"network_{k - 1}"
                scores.setdefault(name, []).append(overlap_dice(prediction, truth, self.classes))
        return {name: float(np.mean(values)) for name, values in scores.items()}


def overlap_dice(prediction: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """Mean Dice of the foreground classes of one image, by the rule of ``case_metrics`` (1 if both are empty)."""
    values = []
    valid = truth != 255
    for k in range(1, classes):
        p, t = (prediction == k) & valid, truth == k
        total = int(p.sum()) + int(t.sum())
        values.append(2 * int((p & t).sum()) / total if total else 1.0)
    return float(np.mean(values))
