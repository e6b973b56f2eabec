"""semidg predict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.errors import ConfigError


@dataclass(frozen=True)
class PredictOptions:
    """Options of predict."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder, or a model.safetensors."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE_OR_FOLDER ...")]
    """Image files and folders; sub-folders are kept."""
    out: Path
    """Folder of the results: NAME_mask.png, NAME_confidence.png, NAME_overlay.png."""
    batch: int = 16
    """Images at once."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""


def predict(arguments: Sequence[str]) -> int:
    """Predict files; exit code 2 if one could not be read (the others are written)."""
    options = parse(
        "predict", PredictOptions, arguments, "Masks, confidence maps and overlays, at the size of each image."
    )
    if not options.inputs:
        raise ConfigError(
            "nothing to predict; give image files or folders: semidg predict RUN IMAGE_OR_FOLDER --out OUT"
        )
    from semidg.config import TrainerConfig
    from semidg.experiment.bundle import load_bundle
    from semidg.experiment.device import choose_device, set_threads, usable_cores
    from semidg.experiment.run import open_config
    from semidg.report.predictions import find_jobs, predict_files

    model = options.run
    if not model.is_file():
        open_config(options.run)
        model = options.run / "model" / "model.safetensors"
    bundle = load_bundle(model)
    set_threads(TrainerConfig())
    jobs = find_jobs(options.inputs, options.out)
    with Bars() as bars:
        problems = predict_files(
            bundle,
            jobs,
            choose_device(options.device),
            options.batch,
            usable_cores(),
            lambda done, total: bars.report("predicting", done, total),
        )
    print(f"{options.out}: {len(jobs) - len(problems)} of {len(jobs)} images, each as _mask, _confidence and _overlay")
    for line in problems:
        print(f"semidg: error: {line}", file=sys.stderr)
    return 2 if problems else 0
