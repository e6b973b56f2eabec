"""The model to use: the chosen checkpoint, with its confidence calibrated on the validation part."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semidg.augmentation.fourier import amplitude_window
from semidg.config import Augmentation, ExperimentConfig
from semidg.data.reading import record_mask
from semidg.evaluation.confidence import (
    Calibration,
    PredictionSums,
    fit_empty,
    fit_expected_dice,
    fit_temperature,
)
from semidg.evaluation.predict import label_map, to_original
from semidg.experiment.bundle import Bundle, load_bundle, save_bundle, to_inference
from semidg.experiment.cases import cases_of
from semidg.experiment.prepare import Prepared, Report
from semidg.experiment.scoring import dice_of, overlap_counts, predict_records, score_records
from semidg.method_config import FourierConfig
from semidg.networks.ensemble import VIEWS, Ensemble
from semidg.types import IGNORE_INDEX

#: Fewer predictions than this are too few for the line to the real Dice, which then stays the identity.
MINIMUM = 8

_PIXELS = 4096  # of each case, for the temperature: one number needs no more
_REFERENCES = 4  # amplitude windows kept with the model


def chosen_checkpoint(run: Path) -> str:
    """``best`` where there is one, else ``last``."""
    return "best" if (run / "checkpoints" / "best.safetensors").is_file() else "last"


def write_model(
    run: Path, config: ExperimentConfig, prepared: Prepared, device: torch.device, report: Report | None = None
) -> None:
    """RUN/model/model.safetensors: the chosen checkpoint, calibrated, with reference amplitudes for its variance."""
    bundle = load_bundle(run / "checkpoints" / f"{chosen_checkpoint(run)}.safetensors")
    augmentation = choose_augmentation(bundle, config, prepared, device, report)
    bundle = replace(bundle, ensemble=Ensemble(bundle.ensemble.networks, augmentation))
    fourier = getattr(config.method, "fourier", None) or FourierConfig()
    bundle = replace(
        bundle,
        calibration=fit_calibration(bundle, config, prepared, device, report),
        references=reference_amplitudes(prepared, config.seed, fourier),
        fourier=fourier,
    )
    save_bundle(run / "model" / "model.safetensors", bundle)


def choose_augmentation(
    bundle: Bundle, config: ExperimentConfig, prepared: Prepared, device: torch.device, report: Report | None = None
) -> Augmentation:
    """The test-time augmentation of the configuration; for ``auto`` that of the best mean Dice on the validation part
    at the original size, of equal ones the quickest, and ``none`` without a validation part."""
    asked = config.prediction.augmentation
    if asked != "auto":
        return asked
    validation = [record for record in prepared.split.validation if record.labelled]
    if not validation:
        return "none"
    dice: dict[Augmentation, float] = {}
    for augmentation in VIEWS:
        scores = score_records(
            to_inference(Ensemble(bundle.ensemble.networks, augmentation), device),
            validation,
            prepared.cache,
            prepared.index.root,
            batch=config.trainer.eval_batch,
            classes=config.network.classes,
            device=device,
            progress=None if report is None else partial(report, f"test-time augmentation ({augmentation})"),
        )
        dice[augmentation] = float(scores.tables["mean"]["dice"].mean())
    return max(dice, key=lambda augmentation: dice[augmentation])


def fit_calibration(
    bundle: Bundle, config: ExperimentConfig, prepared: Prepared, device: torch.device, report: Report | None = None
) -> Calibration:
    """Temperature and the line to the expected Dice, from the validation part; the identity where there is none.

    The temperature is fitted on at most 4,096 pixels a case, drawn with the run's seed, at the size the networks see;
    the line on the Dice at the original size, of a volume on that of the whole volume.
    """
    cases = cases_of([r for r in prepared.split.validation if r.labelled])
    if not cases:
        return Calibration()
    classes = config.network.classes
    ensemble = to_inference(bundle.ensemble, device)
    generator = np.random.default_rng(config.seed)
    rows, labels = [], []
    scores: list[list[float | None]] = []  # of each case, by foreground class
    dice: list[list[float]] = []
    absent: list[bool] = []

    planes = [record for case in cases for record in case.planes]
    predictions = predict_records(ensemble, planes, prepared.cache, config.trainer.eval_batch, device)
    done = 0
    for case in cases:
        certainty, counts = PredictionSums(classes), np.zeros((classes - 1, 2), np.int64)
        present: set[int] = set()
        for record, each in islice(predictions, len(case.planes)):
            probabilities = each.mean(0)
            certainty.add(probabilities)
            small = np.asarray(prepared.cache.masks[prepared.cache.row(record.id)]).reshape(-1)
            known = np.flatnonzero(small != IGNORE_INDEX)
            wanted = max(1, _PIXELS // len(case.planes))
            taken = generator.choice(known, min(wanted, len(known)), replace=False)
            rows.append(probabilities.flatten(1).T.numpy()[taken].astype(np.float64))
            labels.append(small[taken].astype(np.int64))
            truth = record_mask(prepared.index.root, record, classes)
            prediction = label_map(to_original(probabilities, record.height, record.width))
            counts += overlap_counts(prediction, truth, classes)
            present.update(np.unique(truth).tolist())
            done += 1
            if report:
                report("calibrating", done, len(planes))
        scores.append(certainty.scores())
        dice.append(dice_of(counts))
        absent += [number not in present for number in range(1, classes)]
    temperature = fit_temperature(np.concatenate(rows), np.concatenate(labels))
    pairs = [(s, d) for of, real in zip(scores, dice, strict=True) for s, d in zip(of, real, strict=True)]
    empty = fit_empty(np.array([d for s, d in pairs if s is None]), float(np.mean(absent)))
    found = np.array([(s, d) for s, d in pairs if s is not None])
    line = fit_expected_dice(found[:, 0], found[:, 1]) if len(found) >= MINIMUM else (0.0, 1.0)
    return Calibration(temperature, *line, empty, "validation", len(cases))


def reference_amplitudes(prepared: Prepared, seed: int, fourier: FourierConfig) -> Tensor:
    """Low-frequency amplitudes of training images drawn with ``seed``, (M, C, rows, columns), M at most 4."""
    training = [*prepared.split.labelled, *prepared.split.unlabelled]
    chosen = np.random.default_rng(seed).choice(len(training), min(_REFERENCES, len(training)), replace=False)
    cache = prepared.cache
    images = np.stack([cache.images[cache.row(training[k].id)] for k in sorted(chosen.tolist())])
    return amplitude_window(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, fourier.window)
