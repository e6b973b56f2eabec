"""semidg predict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from semidg.cli.model_options import ModelOptions
from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.errors import ConfigError

if TYPE_CHECKING:
    from semidg.report.prediction_shards import Run
    from semidg.report.predictor import Prediction


@dataclass(frozen=True, kw_only=True)
class PredictOptions(ModelOptions):
    """Options of predict."""

    out: Path
    """Folder of the results: NAME_mask.png, NAME_confidence.png, NAME_overlay.png, and predictions.csv; of a volume
    NAME_mask.nii.gz and NAME_confidence.nii.gz with its geometry."""
    refer_below: Annotated[float, tyro.conf.arg(metavar="DICE")] = 0.0
    """Mark images whose expected Dice is below this, 0 to 1, for review by a person (predictions.csv, column refer)."""
    confidence: Literal["probability", "variance"] = "probability"
    """What the confidence map shows: the calibrated probability, or exp(-V) of the method's own variance between views
    and between networks (five times the work)."""
    augmentation: Literal["none", "mirror", "scales"] | None = None
    """Test-time augmentation; default: that of the model, chosen on its validation part. none is the quickest; what a
    mask may be expected to be worth was measured with that of the model."""
    masks_only: bool = False
    """Write no confidence maps and overlays."""
    batch: int = 16
    """Images at once."""
    resume: bool = False
    """Pass over images that an earlier call into the same --out has done, with the same model and options."""
    executor: Literal["local", "ray"] = "local"
    """ray: shards of files as tasks of a Ray cluster whose machines share the file system."""
    workers: int | None = None
    """With ray: tasks at once; by default as many as fit."""
    cpus_per_worker: int = 1
    """With ray: CPUs of a task."""
    gpus_per_worker: float = 0.0
    """With ray: GPUs of a task."""
    ray_address: str | None = None
    """With ray: the cluster; by default RAY_ADDRESS, or else this machine alone."""
    shard: int = 64
    """Files between two notes of what is done; with ray those of a task."""


def predict(arguments: Sequence[str]) -> int:
    """Predict files; exit code 2 if one could not be read (the others are written)."""
    options = parse(
        "predict", PredictOptions, arguments, "Masks, confidence maps and overlays, at the size of each image."
    )
    if not 0 <= options.refer_below <= 1:
        raise ConfigError(f"--refer-below {options.refer_below:g}: an expected Dice lies between 0 and 1")
    for name in ("batch", "shard", "workers", "cpus_per_worker"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: at least 1 is needed")
    if not options.inputs:
        raise ConfigError(
            "nothing to predict; give image files or folders: semidg predict RUN IMAGE_OR_FOLDER --out OUT"
        )
    import torch

    from semidg.config import TrainerConfig
    from semidg.experiment.device import choose_device, set_threads
    from semidg.report.prediction_jobs import find_jobs
    from semidg.report.prediction_shards import Settings, predict_shards
    from semidg.report.predictor import Options

    bundle, model, slice_axis, orientation = options.open()
    set_threads(TrainerConfig())
    jobs = find_jobs(options.inputs, options.out)
    run: Run | None = None
    threads, device = torch.get_num_threads(), str(choose_device(options.device))
    if options.executor == "ray":
        from semidg.experiment.ray_tasks import RayTasks

        run = RayTasks(
            options.workers,
            cpus=options.cpus_per_worker,
            gpus=options.gpus_per_worker,
            address=options.ray_address,
        )
        threads = options.cpus_per_worker
        device = ("cuda" if options.gpus_per_worker else "cpu") if options.device == "auto" else options.device
        model = model.absolute()
        jobs = [job.absolute() for job in jobs]
    with Bars() as bars:
        how = Options(
            options.batch,
            threads,
            options.confidence,
            options.refer_below,
            slice_axis,
            options.masks_only,
            orientation,
            options.augmentation,
        )
        rows, problems, files = predict_shards(
            Settings(model, how, device),
            jobs,
            options.out,
            run=run,
            resume=options.resume,
            size=options.shard,
            progress=lambda done, total: bars.report("predicting", done, total),
        )
    kinds = "_mask" if options.masks_only else "_mask, _confidence and _overlay"
    print(f"{options.out}: {files} of {len(jobs)} images, each as {kinds}")
    if rows:
        print(_about_confidence(rows, options, bundle.calibration.n))
    if rows and bundle.network.classes > 2:
        print(f"{options.out / 'legend.png'}: colours of {', '.join(bundle.network.names[1:])}")
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
