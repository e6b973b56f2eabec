"""semidg predict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.errors import ConfigError

if TYPE_CHECKING:
    from semidg.report.predictions import Prediction


@dataclass(frozen=True)
class PredictOptions:
    """Options of predict."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, or a model.safetensors."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER ...")]
    """Image files and folders; sub-folders are kept."""
    out: Path
    """Folder of the results: NAME_mask.png, NAME_confidence.png, NAME_overlay.png, and predictions.csv; of a NIfTI file
    NAME_mask.nii.gz and NAME_confidence.nii.gz with its geometry."""
    refer_below: Annotated[float, tyro.conf.arg(metavar="DICE")] = 0.0
    """Mark images whose expected Dice is below this, 0 to 1, for review by a person (predictions.csv, column refer)."""
    confidence: Literal["probability", "variance"] = "probability"
    """What the confidence map shows: the calibrated probability, or exp(-V) of the method's own variance between views
    and between networks (five times the work)."""
    slice_axis: Literal["auto", "x", "y", "z"] | None = None
    """Axis across which the slices of a volume lie; by default that of the training, where RUN is a run folder, else
    auto: that of the largest voxel spacing."""
    batch: int = 16
    """Images at once."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""


def predict(arguments: Sequence[str]) -> int:
    """Predict files; exit code 2 if one could not be read (the others are written)."""
    options = parse(
        "predict", PredictOptions, arguments, "Masks, confidence maps and overlays, at the size of each image."
    )
    if not 0 <= options.refer_below <= 1:
        raise ConfigError(f"--refer-below {options.refer_below:g}: an expected Dice lies between 0 and 1")
    if not options.inputs:
        raise ConfigError(
            "nothing to predict; give image files or folders: semidg predict RUN IMAGE_OR_FOLDER --out OUT"
        )
    from semidg.config import TrainerConfig
    from semidg.experiment.bundle import load_bundle
    from semidg.experiment.device import choose_device, set_threads, usable_cores
    from semidg.experiment.run import open_config
    from semidg.report.prediction_jobs import find_jobs
    from semidg.report.predictions import predict_files

    model, trained = options.run, None
    if not model.is_file():
        trained = open_config(options.run).data.slice_axis
        model = options.run / "model" / "model.safetensors"
    bundle = load_bundle(model)
    set_threads(TrainerConfig())
    jobs = find_jobs(options.inputs, options.out)
    with Bars() as bars:
        rows, problems, files = predict_files(
            bundle,
            jobs,
            options.out,
            choose_device(options.device),
            batch=options.batch,
            threads=usable_cores(),
            confidence=options.confidence,
            refer_below=options.refer_below,
            slice_axis=options.slice_axis or trained or "auto",
            progress=lambda done, total: bars.report("predicting", done, total),
        )
    print(f"{options.out}: {files} of {len(jobs)} images, each as _mask, _confidence and _overlay")
    if rows:
        print(_about_confidence(rows, options, bundle.calibration.n))
    for line in problems:
        print(f"semidg: error: {line}", file=sys.stderr)
    return 2 if problems else 0


def _about_confidence(rows: list[Prediction], options: PredictOptions, calibrated_on: int) -> str:
    """What predictions.csv says, in a sentence or two."""
    values = sorted(row.expected_dice for row in rows)
    text = f"expected Dice: median {values[len(values) // 2]:.2f}, lowest {values[0]:.2f}"
    if not calibrated_on:
        text += " (not calibrated: the model was trained without a validation part)"
    if options.refer_below > 0:
        refer = sum(row.refer for row in rows)
        text += f"; {refer} of {len(rows)} below {options.refer_below:g} are marked for review"
    return f"{text}: {options.out / 'predictions.csv'}, least certain first"
