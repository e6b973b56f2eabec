"""Score a run: on its own test part, or on another data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from semidg.config import Augmentation, ExperimentConfig
from semidg.config_file import parse_config
from semidg.data.dataset import ImageCache
from semidg.data.duplicates import near_duplicate_groups, thumbnail
from semidg.data.index import Index, index_data, write_index
from semidg.errors import DataError, RunError, SemidgError
from semidg.evaluation.calibration import confidence_summary
from semidg.evaluation.protocols import PROTOCOLS, Protocol, protocol_of, target_of
from semidg.evaluation.statistics import summarise
from semidg.experiment.adapt import known_images
from semidg.experiment.bundle import Bundle, load_bundle, to_inference
from semidg.experiment.calibrate import chosen_checkpoint, write_model
from semidg.experiment.prepare import Prepared, Report, open_images, prepare
from semidg.experiment.scoring import Scores, score_records
from semidg.files import atomic_path, read_json, write_text
from semidg.types import Record


def own_folder(run: Path, part: Literal["test", "validation", "unlabelled"]) -> Path:
    """Where the results on a part of a run's own data are: those of the test part in the run folder itself."""
    return run if part == "test" else run / "parts" / part


def evaluate_run(
    run: Path, config: ExperimentConfig, prepared: Prepared, device: torch.device, report: Report | None = None
) -> dict[str, Any]:
    """``evaluate_part`` of the test part, into the run folder."""
    return evaluate_part(run, config, prepared, "test", device, report)


def evaluate_part(
    run: Path,
    config: ExperimentConfig,
    prepared: Prepared,
    part: Literal["test", "validation", "unlabelled"],
    device: torch.device,
    report: Report | None = None,
    *,
    out: Path | None = None,
    model: Path | None = None,
    augmentation: Augmentation | None = None,
) -> dict[str, Any]:
    """Score a part with the best and the last checkpoint, the mean and each network alone.

    part: the test part; or one on which settings may be chosen: the validation part, or the unlabelled training images
    by the masks that training did not see (no measure of generalisation: training saw the images). Writes cases.csv
    (chosen checkpoint, mean of the networks), evaluation/CHECKPOINT-PREDICTOR.csv and summary.json into ``own_folder``,
    or into ``out``. model: an adapted model of the run, scored in place of its checkpoints. augmentation:
    at test time, in place of that of the model.
    """
    _complete(run, config, prepared, device, report)
    scored = _Scored.of(prepared, part, config)
    return _evaluate(run, out or own_folder(run, part), config, scored, device, report, model, augmentation)


def evaluate_elsewhere(
    run: Path,
    config: ExperimentConfig,
    root: Path,
    out: Path,
    device: torch.device,
    report: Report | None = None,
    *,
    read: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    model: Path | None = None,
    augmentation: Augmentation | None = None,
) -> dict[str, Any]:
    """Score every labelled image of another data set, into ``out``: the protocol ``external``. Its index.csv is there
    too: ``semidg report OUT`` finds the images by it.

    read: keys of ``data`` of the configuration with which that data set is read, where they are not the defaults;
    slices of volumes lie as in the run. skip_bad: leave out images with a problem, named in the summary as
    ``skipped``, in place of the error. model, augmentation: as in ``evaluate_part``.

    The mark of the summary says how many of these images are near-duplicates of images of the training, or why they
    could not be compared.
    """
    read = {key: value for key, value in (read or {}).items() if value is not None}
    other = _reading(config, root, read)
    index = index_data(
        other.data,
        config.network.classes,
        skip_bad=skip_bad,
        progress=None if report is None else lambda done, total: report("indexing", done, total),
    )
    if index.doubt:
        print(f"semidg: warning: {index.doubt}", file=sys.stderr)
    cache = open_images(other, index, report)
    what = f"labelled images of {root.name}"
    meta = read_json(run / "split" / "split.json")
    own, target = protocol_of(config.data.split, meta), target_of(config.data.split, meta)
    protocol = replace(PROTOCOLS["external"], mark=_seen_in_training(run, config, index, cache, report))
    asked = {"root": str(root.resolve())} | read
    write_index(index, out / "index.csv")
    scored = _Scored(index, cache, index.records, what, None, protocol, own.selection, target, asked)
    return _evaluate(run, out, other, scored, device, report, model, augmentation)


def _reading(config: ExperimentConfig, root: Path, read: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration of a run with another data set; raises ConfigError for a key of it that does not fit."""
    kept = ("size", "channels", "slice_axis", "orientation", "include_normal", "cache")
    data = {key: getattr(config.data, key) for key in kept} | {"root": root, **read}
    if "mask_values" not in read:
        data.setdefault("ignore_label", config.data.ignore_label)
    data["split"] = {"similarity": config.data.split.similarity}
    network = {"classes": config.network.classes}
    found = parse_config({"data": data, "network": network}, "options").data
    return config.model_copy(update={"data": found})


def _seen_in_training(
    run: Path, config: ExperimentConfig, index: Index, cache: ImageCache, report: Report | None
) -> str | None:
    """What to warn of: public data sets of one organ share images."""
    try:
        training = prepare(config, run, report)
    except SemidgError as error:
        return f"not compared with the training images ({str(error).splitlines()[0]})"
    parts = training.split.parts()
    used = ("labelled", "validation", *(("unlabelled",) if config.method.name != "supervised" else ()))
    seen = [record for part in used for record in parts[part]]
    scored = [record for record in index.records if record.labelled]
    images = [training.cache.images[training.cache.row(record.id)] for record in seen]
    images += [cache.images[cache.row(record.id)] for record in scored]
    thumbnails = np.stack([thumbnail(image.mean(-1).round().astype(np.uint8)) for image in images])
    groups = near_duplicate_groups(thumbnails, config.data.split.similarity)
    count = int(np.isin(groups[len(seen) :], groups[: len(seen)]).sum())
    if count == 0:
        return None
    return (
        f"{count} of {len(scored)} images are near-duplicates of images of the training, themselves or through others, "
        "and flatter the result"
    )


@dataclass(frozen=True)
class _Scored:
    """What is scored, and by which protocol; ``part`` is None for another data set. chosen_on, target: part on which
    the checkpoint was chosen, and domain that the training did not see. read: of another data set, its root and what
    else it was read with."""

    index: Index
    cache: ImageCache
    records: Sequence[Record]
    what: str
    part: str | None
    protocol: Protocol
    chosen_on: str
    target: str | None
    read: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, prepared: Prepared, part: str, config: ExperimentConfig) -> _Scored:
        split, asked = prepared.split, config.data.split
        protocol, target = protocol_of(asked, split.meta), target_of(asked, split.meta)
        records = split.parts()[part]
        return cls(prepared.index, prepared.cache, records, f"{part} part", part, protocol, protocol.selection, target)


def _complete(
    run: Path, config: ExperimentConfig, prepared: Prepared, device: torch.device, report: Report | None
) -> None:
    """Make the model where it is missing or was made before there was a calibration."""
    path = run / "model" / "model.safetensors"
    if not path.is_file() or load_bundle(path).references is None:
        write_model(run, config, prepared, device, report)


def _evaluate(
    run: Path,
    out: Path,
    config: ExperimentConfig,
    scored: _Scored,
    device: torch.device,
    report: Report | None,
    other: Path | None = None,
    asked: Augmentation | None = None,
) -> dict[str, Any]:
    if not any(record.labelled for record in scored.records):
        raise DataError(
            f"{scored.index.root}: no image has a mask ({scored.what}); without truth there is semidg predict only"
        )
    chosen = chosen_checkpoint(run)
    model = run / "model" / "model.safetensors"  # the chosen one with its calibration; not there before training ends
    augmentation: Augmentation = "none"  # of the chosen one, which comes first
    mark = scored.protocol.mark
    if other is not None:
        model, mark = other, _adapted_mark(other, model, mark, scored)
    results: dict[str, Any] = {}
    confidence: dict[str, Any] | None = None
    for name in sorted(("best", "last"), key=lambda name: name != chosen):
        path = run / "checkpoints" / f"{name}.safetensors"
        if not path.is_file() or (other is not None and name != chosen):
            continue
        bundle = load_bundle(model if name == chosen and model.is_file() else path)
        if name == chosen:
            augmentation = asked or bundle.ensemble.augmentation
        bundle.ensemble.augmentation = augmentation
        if name != chosen and bundle.about.get("step") == results[chosen]["step"]:
            results[name] = results[chosen]  # the best step was the last one: the same networks
        else:
            scores = _score(bundle, config, scored, device, name, report, calibrated=name == chosen)
            about = {key: bundle.about.get(key) for key in ("step", "training_seconds")}
            results[name] = about | {p: summarise(c) for p, c in scores.tables.items()}
        for predictor, cases in scores.tables.items():
            write_cases(cases, out / "evaluation" / f"{name}-{predictor}.csv")
        if name == chosen:
            cases = scores.tables["mean"]
            write_cases(cases, out / "cases.csv")
            assert scores.pixels is not None
            confidence = confidence_summary(cases, scores.pixels, scored.part, config.network.classes)
    summary = {
        "format": 1,
        "name": config.name,
        "method": config.method.name,
        "labelled": config.labelled,
        "seed": config.seed,
        "data": scored.what,
        **({} if scored.part is None else {"part": scored.part}),
        **({} if out == run else {"run": str(run.resolve())}),
        **scored.read,
        **({} if other is None else {"model": str(other.resolve())}),
        **({} if asked is None else {"asked_augmentation": asked}),
        **({"skipped": list(scored.index.skipped)} if scored.index.skipped else {}),
        "protocol": scored.protocol.name,
        "mark": mark,
        "target": scored.target,
        "classes": config.network.names,
        "augmentation": augmentation,
        "checkpoint": chosen,
        "chosen_on": f"{scored.chosen_on} part" if chosen == "best" else None,
        "training_seconds": results["last" if "last" in results else chosen]["training_seconds"],
        "result": results[chosen]["mean"],
        "confidence": confidence,
        "checkpoints": dict(sorted(results.items())),
    }
    write_text(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def _adapted_mark(model: Path, own: Path, mark: str | None, scored: _Scored) -> str:
    """What to say beside numbers of an adapted model; raises RunError unless it was made of the model ``own``."""
    about = dict(load_bundle(model).about)
    adapted = about.pop("adapted", None)
    if adapted is None:
        raise RunError(f"{model}: was not made by `semidg adapt`; without --model the run's own model is scored")
    if about != dict(load_bundle(own).about):
        raise RunError(f"{model}: was not made of {own}; give the run it was made from")
    said = f"adapted to {adapted['images']} images without masks"
    if "crc32" in adapted:
        images = (scored.cache.images[scored.cache.row(record.id)] for record in scored.records if record.labelled)
        said += f", {known_images(adapted, images)} of which are scored here"
    return f"{said}; {mark}" if mark else said


def _score(
    bundle: Bundle,
    config: ExperimentConfig,
    scored: _Scored,
    device: torch.device,
    name: str,
    report: Report | None,
    *,
    calibrated: bool,
) -> Scores:
    return score_records(
        to_inference(bundle.ensemble, device),
        scored.records,
        scored.cache,
        scored.index.root,
        batch=config.trainer.eval_batch,
        classes=config.network.classes,
        device=device,
        protocol=scored.protocol,
        calibration=bundle.calibration if calibrated else None,
        progress=None if report is None else lambda done, total: report(f"scoring ({name})", done, total),
    )


def write_cases(cases: pd.DataFrame, path: Path) -> None:
    """cases.csv: a row a case; values with 6 digits behind the point."""
    with atomic_path(path) as temporary:
        cases.to_csv(temporary, index=False, float_format="%.6f")
