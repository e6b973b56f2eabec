"""Score a run: on its own test part, or on another data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch

from semidg.config import ExperimentConfig
from semidg.data.dataset import ImageCache
from semidg.data.index import Index, build_index
from semidg.errors import DataError
from semidg.evaluation.statistics import summarise
from semidg.experiment.bundle import load_bundle, to_inference
from semidg.experiment.prepare import Prepared, Report, open_images
from semidg.experiment.scoring import score_records
from semidg.files import atomic_path, write_text
from semidg.types import Record


def evaluate_run(
    run: Path, config: ExperimentConfig, prepared: Prepared, device: torch.device, report: Report | None = None
) -> dict[str, Any]:
    """Score the test part with the best and the last checkpoint, the mean and each network alone.

    Writes cases.csv (best checkpoint, mean of the networks), evaluation/CHECKPOINT-PREDICTOR.csv and summary.json.
    """
    return _evaluate(
        run, run, config, (prepared.index, prepared.cache), prepared.split.test, device, "test part", report
    )


def evaluate_part(
    run: Path,
    config: ExperimentConfig,
    prepared: Prepared,
    part: Literal["validation", "unlabelled"],
    device: torch.device,
    report: Report | None = None,
) -> dict[str, Any]:
    """Score a part on which settings may be chosen, into RUN/parts/PART: the validation part, or the unlabelled
    training images by the masks that training did not see (no measure of generalisation: training saw the images)."""
    out = run / "parts" / part
    records = getattr(prepared.split, part)
    return _evaluate(run, out, config, (prepared.index, prepared.cache), records, device, f"{part} part", report)


def evaluate_elsewhere(
    run: Path, config: ExperimentConfig, root: Path, out: Path, device: torch.device, report: Report | None = None
) -> dict[str, Any]:
    """Score every labelled image of another data set, into ``out``."""
    data = config.data.model_copy(update={"root": root, "layout": "auto"})
    other = config.model_copy(update={"data": data})
    index = build_index(root, "auto", data.include_normal, data.split.similarity, classes=config.network.classes)
    cache = open_images(other, index, report)
    return _evaluate(run, out, other, (index, cache), index.records, device, f"labelled images of {root.name}", report)


def _evaluate(
    run: Path,
    out: Path,
    config: ExperimentConfig,
    images: tuple[Index, ImageCache],
    records: Sequence[Record],
    device: torch.device,
    what: str,
    report: Report | None,
) -> dict[str, Any]:
    index, cache = images
    if not any(record.labelled for record in records):
        raise DataError(f"{index.root}: no image has a mask ({what}); without truth there is semidg predict only")
    results: dict[str, Any] = {}
    for name in ("best", "last"):
        path = run / "checkpoints" / f"{name}.safetensors"
        if not path.is_file():
            continue
        bundle = load_bundle(path)
        tables = score_records(
            to_inference(bundle.ensemble, device),
            records,
            cache,
            index.root,
            batch=config.trainer.eval_batch,
            classes=config.network.classes,
            device=device,
            progress=(lambda done, total, n=name: report(f"scoring ({n})", done, total)) if report else None,  # type: ignore[misc]
        )
        for predictor, cases in tables.items():
            write_cases(cases, out / "evaluation" / f"{name}-{predictor}.csv")
        about = {key: bundle.about.get(key) for key in ("step", "training_seconds")}
        results[name] = about | {p: summarise(c) for p, c in tables.items()}
        if "best" not in results or name == "best":
            write_cases(tables["mean"], out / "cases.csv")
    chosen = "best" if "best" in results else "last"
    summary = {
        "format": 1,
        "name": config.name,
        "method": config.method.name,
        "labelled": config.labelled,
        "seed": config.seed,
        "data": what,
        "protocol": config.data.split.protocol,
        "target": config.data.split.target,
        "checkpoint": chosen,
        "training_seconds": results["last" if "last" in results else chosen]["training_seconds"],
        "result": results[chosen]["mean"],
        "checkpoints": results,
    }
    write_text(out / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def write_cases(cases: pd.DataFrame, path: Path) -> None:
    """cases.csv: a row a case; values with 6 digits behind the point."""
    with atomic_path(path) as temporary:
        cases.to_csv(temporary, index=False, float_format="%.6f")
