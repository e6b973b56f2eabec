"""semidg evaluate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semidg.cli.options import parse
from semidg.cli.progress import Bars
from semidg.data_config import LayoutName
from semidg.errors import ConfigError, RunError
from semidg.files import read_json

#: Options that say how another data set is read.
_READ = ("layout", "images", "masks", "groups", "mask_values", "ignore_label")


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of evaluate."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    data: Path | None = None
    """Another data set: every image with a mask is scored. Default: the run's own test part."""
    images: str | None = None
    """With --data: pattern of its images, if it is in no layout, such as 'original/*'."""
    masks: str | None = None
    """With --data and --images: pattern of its masks, such as 'GT/*_mask'."""
    layout: LayoutName | None = None
    """With --data: its layout, where it is not to be recognised."""
    groups: str | None = None
    """With --data: regular expression with one group, which finds the patient in the path of an image."""
    mask_values: str | None = None
    """With --data: what the values of its mask files mean, such as '0:2,128:1,255:0'."""
    ignore_label: int | None = None
    """With --data: value in its mask files of pixels that are not known; default: that of the run."""
    skip_bad: bool = False
    """With --data: leave files with problems out, and say which, in place of an error."""
    model: Path | None = None
    """A model that `semidg adapt` made of the run, scored in place of its checkpoints; needs --out."""
    augmentation: Literal["none", "mirror", "scales"] | None = None
    """Test-time augmentation in place of that of the model, to see what it is worth; needs --out."""
    part: Literal["test", "validation", "unlabelled"] = "test"
    """Part of the run's own data. validation and unlabelled are where settings are chosen."""
    out: Path | None = None
    """Folder of the results on another data set, of another model or augmentation; default: RUN/external/NAME."""
    root: Path | None = None
    """Where the run's own data set is now, if it has moved; of several roots the folder that holds them."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run."""


def evaluate(arguments: Sequence[str]) -> int:
    """Score a run and print the table."""
    options = parse("evaluate", EvaluateOptions, arguments, "Score a run on its test part, or on another data set.")
    if options.data is not None and options.part != "test":
        raise ConfigError(f"--part {options.part} is of the run's own data; leave it out with --data")
    read = {key: getattr(options, key) for key in _READ}
    for key, value in {**read, "skip_bad": options.skip_bad or None}.items():
        if value is not None and options.data is None:
            name = key.replace("_", "-")
            raise ConfigError(f"--{name} is for another data set; say which with --data, or leave it out")
    if (options.images is None) != (options.masks is None):
        raise ConfigError("--images and --masks: give both; images without masks cannot be scored")
    other = next((name for name in ("model", "augmentation") if getattr(options, name) is not None), None)
    if other is None and options.data is None and options.out is not None:
        raise ConfigError("--out is for the results on other data; say which with --data, or leave it out")
    if other is not None and options.out is None:
        raise ConfigError(f"--{other}: give its results a folder of their own with --out; those of the run stay")
    from semidg.experiment.device import choose_device, set_threads
    from semidg.experiment.evaluate import evaluate_elsewhere, evaluate_part, own_folder
    from semidg.experiment.prepare import prepare
    from semidg.experiment.run import open_config
    from semidg.report.tables import summary_text

    config = open_config(options.run)
    if options.root is not None:
        moved = {"root": options.root, "more_roots": ()}
        config = config.model_copy(update={"data": config.data.model_copy(update=moved)})
    set_threads(config.trainer)
    device = choose_device(options.device)
    with Bars() as bars:
        if options.data is not None:
            out = options.out or options.run / "external" / options.data.resolve().name
            _refuse_other(out, options)
            summary = evaluate_elsewhere(
                options.run,
                config,
                options.data,
                out,
                device,
                bars.report,
                read=read,
                skip_bad=options.skip_bad,
                model=options.model,
                augmentation=options.augmentation,
            )
        else:
            out = options.out or own_folder(options.run, options.part)
            if options.out is not None:
                _refuse_other(out, options)
            prepared = prepare(config, options.run, bars.report)
            summary = evaluate_part(
                options.run,
                config,
                prepared,
                options.part,
                device,
                bars.report,
                out=out,
                model=options.model,
                augmentation=options.augmentation,
            )
    for line in summary.get("skipped", ()):
        print(f"skipped: {line}")
    print(summary_text(summary))
    print(f"every case: {out / 'cases.csv'}   all numbers: {out / 'summary.json'}")
    print(f"a page of it: semidg report {shlex.quote(str(out))}")
    return 0


def _refuse_other(out: Path, options: EvaluateOptions) -> None:
    """Raises RunError where ``out`` has the results of another run, on other images, or of another model."""
    place, run = out.resolve(), options.run.resolve()
    if (out / "run.json").is_file() or place in (run, run / "parts") or place.parent == run / "parts":
        raise RunError(
            f"{out}: is for the results of a run on its own data; give these a folder of their own with --out"
        )
    old = read_json(out / "summary.json")
    here = {
        "part": None if options.data is not None else options.part,
        "root": options.data and str(options.data.resolve()),
        **{key: getattr(options, key) for key in _READ},
        "model": options.model and str(options.model.resolve()),
        "asked_augmentation": options.augmentation,
    }
    if not place.is_relative_to(run):  # a run may have moved, with the results in it
        here["run"] = str(run)
    there = {key: old.get(key) for key in here}
    if old and there != here:
        of = ", ".join(f"{key} {value}" for key, value in there.items() if value is not None)
        raise RunError(f"{out}: has other results ({of}); give these a folder of their own: --out FOLDER")
