"""semidg train."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from semidg.cli.options import base_config, parse_with_config, value_of
from semidg.cli.progress import Bars
from semidg.config_file import dump_config, presets
from semidg.errors import ConfigError
from semidg.method_config import METHOD_CONFIGS


@dataclass(frozen=True)
class TrainOptions:
    """Options of train itself."""

    preset: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="PRESET")] = None
    """Built-in configuration to start from."""
    config: Path | None = None
    """YAML file to start from, in place of a preset."""
    out: Path | None = None
    """Run folder to make (or, with --resume, to continue)."""
    resume: bool = False
    """Continue the run in --out from its last checkpoint; its own configuration is used."""
    score: Literal["test", "validation"] = "test"
    """Part scored at the end; validation leaves the test part unseen while settings are being chosen."""
    estimate: bool = False
    """Measure ten steps and a batch of the scoring on this machine, print what the run will cost, and stop."""
    print_config: bool = False
    """Print the complete configuration as YAML and stop."""


def train(arguments: Sequence[str]) -> int:
    """Train into a run folder and print its scores."""
    description = (
        f"Train a configuration into a run folder. Presets: {', '.join(presets())}. Every key of the configuration is "
        f"an option; --method.name chooses the method and its options: {', '.join(METHOD_CONFIGS)}."
    )
    out = value_of(arguments, "out")
    resuming = any(a == "--resume" for a in arguments)
    source = value_of(arguments, "config")
    first = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if first is not None and source is not None:
        raise ConfigError(f"give a preset ({first}) or --config {source}, not both")
    if resuming and out and first is None and source is None:
        from semidg.experiment.run import open_config

        start = open_config(Path(out))
    else:
        start = base_config(source or first or presets()[0], value_of(arguments, "method.name"))
        asked = any(a in ("-h", "--help") for a in arguments)
        if not asked and source is None and first is None:
            raise ConfigError(f"say what to train: a preset ({', '.join(presets())}) or --config FILE")
    options, config = parse_with_config("train", TrainOptions, start, arguments, description)
    if options.print_config:
        print(dump_config(config), end="")
        return 0
    if options.estimate:
        from semidg.experiment.estimate import estimate, estimate_text

        with Bars() as bars:
            found = estimate(config, bars.report)
        print(estimate_text(config, found))
        return 0
    if options.out is None:
        raise ConfigError("--out is not set; say where the run folder goes: --out runs/NAME")
    from semidg.experiment.executors import stop_with_starter
    from semidg.experiment.run import Stopped
    from semidg.experiment.run import train as train_run
    from semidg.report.tables import summary_text

    stop_with_starter()
    try:
        with Bars() as bars:
            summary = train_run(
                config,
                options.out,
                resume=options.resume,
                report=bars.report,
                listener=bars,
                score=options.score,
            )
    except Stopped as stop:
        print(f"semidg: {stop}", file=sys.stderr)
        return 128 + stop.signal
    if not summary:  # not rank 0 of several processes
        return 0
    print(summary_text(summary))
    print(f"run folder: {options.out}")
    print(f"next: semidg report {options.out}   or: semidg predict {options.out} IMAGES --out predictions")
    return 0
