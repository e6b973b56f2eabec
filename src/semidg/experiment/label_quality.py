"""Which masks look wrong? A score from networks that did not learn from them (docs/explanation/label-quality.md).

A network that has seen a mask repeats it, mistakes and all. So a mask is only held against a prediction of networks
whose training saw neither it nor a mask of a near-duplicate: those of a run for the images that were no labels in it,
or those of a training over folds for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semidg.config import ExperimentConfig
from semidg.data.dataset import ImageCache
from semidg.data.index import Index, read_index
from semidg.data.lists import read_split
from semidg.errors import DataError
from semidg.evaluation.confidence import FLOOR, temper
from semidg.evaluation.predict import label_map
from semidg.experiment.bundle import load_bundle, to_inference
from semidg.experiment.folds import train_folds
from semidg.experiment.prepare import Report, open_images
from semidg.experiment.run import open_config
from semidg.experiment.scoring import predict_records
from semidg.types import IGNORE_INDEX, Record

#: Pixels that mask and networks are credited with, as a share of the picture: an empty mask where next to nothing is
#: expected is no error.
CREDIT = 1e-3


@dataclass(frozen=True)
class Quality:
    """How well a mask agrees with what networks that did not learn from it expect.

    score: from 0 to 1, low is suspicious. predicted: their label map, (S, S) at the size they see. source: where the
    prediction comes from: ``test part of RUN``, ``fold 3``.
    """

    id: str
    score: float
    predicted: NDArray[np.uint8]
    source: str


class HeldOut(NamedTuple):
    """A record with calibrated probabilities (K, S, S) of networks that did not learn its mask, the mask (S, S) of
    class numbers, and where the networks come from."""

    record: Record
    probabilities: Tensor
    mask: NDArray[np.uint8]
    source: str


def score_with_run(run: Path, index: Index, device: torch.device, progress: Report | None = None) -> list[Quality]:
    """Score the masks of ``index`` that a finished run did not learn from, in the order of the index.

    Those are its unlabelled, validation and test part, and images it does not know. Left out are the images of
    ``learnt``; their number is ``len(learnt(run, index))``. Raises RunError for a folder that is no finished run,
    DataError for files that cannot be read.
    """
    return [_quality(item) for item in held_out_of_run(run, index, device, progress)]


def score_by_folds(
    config: ExperimentConfig,
    index: Index,
    folds: int,
    out: Path,
    device: torch.device,
    progress: Report | None = None,
) -> list[Quality]:
    """Score every mask of ``index`` by the one of ``folds`` trainings that was not shown it, in the order of the index.

    The trainings are kept below ``out`` (``folds.train_folds``); killed at any moment, the same call goes on. Raises
    ConfigError, SplitError, RunError, DataError, NonFiniteLossError, and Stopped on SIGTERM or Ctrl-C.
    """
    found = {item.record.id: _quality(item) for item in held_out_of_folds(config, index, folds, out, device, progress)}
    return [found[record.id] for record in index.records if record.labelled]


def learnt(run: Path, index: Index) -> frozenset[str]:
    """Ids of the images of ``index`` with a mask that the run learnt from: by their own mask, or by a near-duplicate's.

    Images are told by their id. Raises RunError, DataError and SplitError for a damaged run folder, and DataError where
    ``index`` names none of the images that the run learnt from.
    """
    return _learnt(run, index, *_parts(run, index))


def held_out_of_run(run: Path, index: Index, device: torch.device, progress: Report | None = None) -> Iterator[HeldOut]:
    """What ``score_with_run`` scores."""
    config = open_config(run)
    parts, own = _parts(run, index)
    seen = _learnt(run, index, parts, own)
    source = {name: f"{part} part of {run.name}" for part, names in parts.items() for name in names}
    records = [record for record in index.records if record.labelled and record.id not in seen]
    cache = open_images(config, index, progress)
    for item in _held_out(run, config, records, cache, device, f"scoring with {run.name}", progress):
        yield item._replace(source=source.get(item.record.id, f"no part of {run.name}"))


def held_out_of_folds(
    config: ExperimentConfig,
    index: Index,
    folds: int,
    out: Path,
    device: torch.device,
    progress: Report | None = None,
) -> Iterator[HeldOut]:
    """What ``score_by_folds`` scores, fold by fold."""
    trained = train_folds(config, index, folds, out, progress)
    cache = open_images(config, index, progress)
    for number, (run, split) in enumerate(trained, start=1):
        for item in _held_out(run, config, split.test, cache, device, f"scoring fold {number}", progress):
            yield item._replace(source=f"fold {number}")


def mask_quality(probabilities: Tensor, mask: NDArray[np.uint8]) -> float:
    """exp(-surprise) (1 - shortfall), in [0, 1]: 1 for a mask that networks which are certain agree with.

    probabilities: (K, S, S), calibrated; mask: (S, S) class numbers. Pixels of IGNORE_INDEX count for nothing.
    """
    return math.exp(-surprise(probabilities, mask)) * (1 - shortfall(probabilities, mask))


def surprise(probabilities: Tensor, mask: NDArray[np.uint8]) -> float:
    """-sum_i log p_i(m_i) / (|m| + |p| + e), >= 0: how unlikely the mask is, for its size.

    m_i the class of pixel i in the mask, |m| the pixels of its foreground, |p| those that are expected (the sum of the
    foreground probabilities), e = CREDIT S^2. Divided by the lesion and not by the picture: a small lesion counts as
    much as a large one.
    """
    p, m = _known(probabilities, mask)
    chosen = np.take_along_axis(p, m[None], 0)[0]
    size = np.count_nonzero(m) + p[1:].sum() + CREDIT * mask.size
    return float(-np.log(np.maximum(chosen, FLOOR)).sum() / size)


def shortfall(probabilities: Tensor, mask: NDArray[np.uint8]) -> float:
    """max_c max(0, D_c(own) - D_c(m)), in [0, 1]: what the mask overlaps less than the label map of the networks does.

    D_c(m) = (2 sum_{i: m_i = c} p_i(c) + e) / (|m_c| + |p_c| + e), the soft Dice of foreground class c. An image of
    which the networks are unsure has a low soft Dice with any mask, and no shortfall.
    """
    p, m = _known(probabilities, mask)
    own, credit = p.argmax(0), CREDIT * mask.size
    losses = [0.0]
    for number in range(1, len(p)):
        one = p[number]
        total = one.sum() + credit
        best, given = ((2 * one[x].sum() + credit) / (x.sum() + total) for x in (own == number, m == number))
        losses.append(float(best - given))
    return min(1.0, max(losses))


def _known(probabilities: Tensor, mask: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (K, n) and class numbers (n,) of the pixels that are not ignored."""
    known = mask != IGNORE_INDEX
    return probabilities.numpy().astype(np.float64)[:, known], mask[known].astype(np.int64)


def _quality(item: HeldOut) -> Quality:
    score = mask_quality(item.probabilities, item.mask)
    return Quality(item.record.id, score, label_map(item.probabilities), item.source)


def _parts(run: Path, index: Index) -> tuple[dict[str, frozenset[str]], Sequence[Record]]:
    """Ids of the images of each part of a run, and its records; the folder of ``index`` stands in for its data."""
    own = read_index(run / "index.csv", index.root).records
    split = read_split(run / "split", own, index.root)
    return {name: frozenset(record.id for record in records) for name, records in split.parts().items()}, own


def _learnt(run: Path, index: Index, parts: dict[str, frozenset[str]], own: Sequence[Record]) -> frozenset[str]:
    """By the groups of the index and by those of the run: an image that the index lacks has twins all the same."""
    labelled = parts["labelled"]
    if not any(record.id in labelled for record in index.records):
        raise DataError(
            f"{run}: none of the images that it learnt from, such as {min(labelled)}, has its id in this index; audit "
            "the data set as the run was given it: the same root or roots, or the same table"
        )
    theirs = {record.group for record in own if record.id in labelled}
    twins = labelled | {record.id for record in own if record.group in theirs}
    groups = {record.group for record in index.records if record.id in twins}
    return frozenset(record.id for record in index.records if record.labelled and record.group in groups)


def _held_out(
    run: Path,
    config: ExperimentConfig,
    records: Sequence[Record],
    cache: ImageCache,
    device: torch.device,
    what: str,
    progress: Report | None,
) -> Iterator[HeldOut]:
    bundle = load_bundle(run / "model" / "model.safetensors")
    ensemble = to_inference(bundle.ensemble, device)
    predictions = predict_records(ensemble, records, cache, config.trainer.eval_batch, device)
    for done, (record, each) in enumerate(predictions, start=1):
        probabilities = temper(each.mean(0), bundle.calibration.temperature)
        yield HeldOut(record, probabilities, np.array(cache.masks[cache.row(record.id)]), "")
        if progress:
            progress(what, done, len(records))
