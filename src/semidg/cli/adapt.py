"""semidg adapt."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semidg.cli.model_options import ModelOptions
from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.errors import ConfigError

DESCRIPTION = """Fit a trained model to the images of a hospital or scanner it has not seen, without masks and in
seconds: the statistics of its BatchNorm layers become half those of the new images. Predict with the new model:

  semidg adapt runs/first hospital-b --out hospital-b.safetensors
  semidg predict hospital-b.safetensors hospital-b --out predictions

Give images of one hospital at a time, eight or more, as they come: a few unlike ones say little."""


@dataclass(frozen=True, kw_only=True)
class AdaptOptions(ModelOptions):
    """Options of adapt."""

    out: Path
    """The model to write, NAME.safetensors."""


def adapt(arguments: Sequence[str]) -> int:
    """Write the adapted model; exit code 2 if an image could not be read (the others count)."""
    options = parse("adapt", AdaptOptions, arguments, DESCRIPTION)
    if options.out.suffix != ".safetensors" or options.out.is_dir():
        raise ConfigError(f"--out {options.out}: the model is a file NAME.safetensors")
    if not options.inputs:
        raise ConfigError("no image of the new hospital; give files or folders: semidg adapt RUN IMAGES --out OUT")
    from semidg.config import TrainerConfig
    from semidg.experiment.adapt import adapt_bundle, require_plain
    from semidg.experiment.bundle import save_bundle
    from semidg.experiment.device import choose_device, set_threads
    from semidg.report.adapting import sample_images
    from semidg.report.prediction_jobs import find_jobs

    bundle, model, slice_axis, orientation = options.open()
    if options.out.resolve() == model.resolve():
        raise ConfigError(f"--out {options.out}: is the model itself; write the new one beside it")
    require_plain(bundle, model)
    set_threads(TrainerConfig())
    jobs = [job for source in options.inputs for job in find_jobs([source], options.out)]
    with Bars() as bars:
        images, problems = sample_images(
            bundle, jobs, slice_axis, orientation, lambda done, total: bars.report("reading", done, total)
        )
    adapted = adapt_bundle(bundle, images, choose_device(options.device))
    save_bundle(options.out, adapted)
    share = adapted.about["adapted"]["share"]
    print(f"{options.out}: adapted to {len(images)} images, whose statistics count for {100 * share:.0f} %")
    print(f"next: semidg predict {options.out} IMAGE_OR_FOLDER --out predictions")
    for line in problems:
        print(f"semidg: error: {line}", file=sys.stderr)
    return 2 if problems else 0
