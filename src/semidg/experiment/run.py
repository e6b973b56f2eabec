"""Train, resume and evaluate: everything that happens in a run folder."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch

import semidg
from semidg.config import ExperimentConfig
from semidg.config_file import dump_config, load_config
from semidg.errors import NonFiniteLossError, RunError, SplitError
from semidg.evaluation.protocols import protocol_of
from semidg.experiment import checkpoint
from semidg.experiment.calibrate import write_model
from semidg.experiment.device import (
    choose_device,
    choose_precision,
    keep_freed_memory,
    set_threads,
    slow_precision,
)
from semidg.experiment.distributed import Place, find_place, first_then_others, join, leave
from semidg.experiment.engine import make_trainer, quiet, ready, signals_restored
from semidg.experiment.environment import environment
from semidg.experiment.evaluate import evaluate_part, evaluate_run
from semidg.experiment.grid import differing_keys
from semidg.experiment.keeper import Keeper, Listener
from semidg.experiment.loaders import training_loader
from semidg.experiment.loggers import Trackers, check_loggers, open_trackers
from semidg.experiment.module import MethodModule
from semidg.experiment.prepare import Prepared, Report, prepare
from semidg.experiment.scoring import Validation
from semidg.files import PART, locked, read_json, remove_parts, write_text
from semidg.methods import make_method
from semidg.methods.base import Method
from semidg.networks.compilation import check_compiler
from semidg.networks.norm import synchronise

#: Version of the run folder; a folder of another one is refused.
RUN_FORMAT = 1
#: In environment.json of a folder that has the scores of a run made elsewhere, and not its networks: where from.
ORIGIN = "taken_over_from"


class Stopped(Exception):  # noqa: N818 - not an error
    """Training was stopped by a signal; the run folder can be resumed. ``signal`` is its number."""

    def __init__(self, run: Path, step: int, signal_number: int) -> None:
        super().__init__(f"stopped after step {step}; continue with: semidg train --resume --out {run}")
        self.run, self.step, self.signal = run, step, signal_number


def train(
    config: ExperimentConfig,
    run: Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    listener: Listener | None = None,
    score: Literal["test", "validation"] | None = "test",
) -> dict[str, Any]:
    """Train a configuration into a run folder, score it, and return the summary.

    resume: continue from checkpoints/last.pt (from the start if there is none yet); a finished run is only evaluated
    again; the number of devices may be another one than before. score: the part to score at the end, None for neither;
    ``validation`` goes to RUN/parts/validation and leaves the test part unseen. report: progress of slow preparations.
    listener: told of every step. With several devices this process starts one for each (``experiment.launch``), unless
    torchrun or SLURM has; in that case rank 0 alone writes, and the others return an empty summary.
    Raises RunError, ConfigError, DataError, SplitError, NonFiniteLossError, and Stopped on SIGTERM or Ctrl-C.
    """
    place = find_place(config.trainer)
    check_loggers(config.trainer.loggers)
    device = choose_device(config.trainer.accelerator, config.trainer.devices)
    if place is None:
        from semidg.experiment.launch import launch

        return launch(config, run, resume=resume, report=report, listener=listener, score=score)
    precision = _set_up(config, place, device)
    report = report if place.first else None
    join(place, device)
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as preparing:
            begin = functools.partial(_begin, config, run, resume, place, report, held, preparing)
            method, prepared, state = first_then_others(place, begin)
            if state is None and place.first:
                made = environment(config, device, precision)
                write_text(run / "environment.json", json.dumps(made, indent=2) + "\n")
        if state is not None:
            method.load_state_dict(state.method)
        if score and place.first:
            _warn_of_data(config, prepared)
        trackers = held.enter_context(open_trackers(config, run, state.step if state else 0, stops=(Stopped,)))
        held.enter_context(quiet())
        try:
            if state is None or state.step < config.trainer.max_steps:
                _fit(config, run, place, method, prepared, state, device, precision, trackers, listener)
        except (Stopped, NonFiniteLossError):  # on all ranks alike
            leave(place)
            raise
        leave(place)
        if not place.first:
            return {}
        write_model(run, config, prepared, device, report)
        if score is None:
            return {}
        if score == "test":
            summary = evaluate_run(run, config, prepared, device, report)
            trackers.result(summary)
        else:
            summary = evaluate_part(run, config, prepared, score, device, report)
    return summary


def _set_up(config: ExperimentConfig, place: Place, device: torch.device) -> str:
    """Threads and memory of this process; returns the precision of the training."""
    set_threads(config.trainer)
    if device.type == "cpu":
        keep_freed_memory()
    precision = choose_precision(config.trainer.precision, device)
    slow = slow_precision(config.trainer.precision, device)
    if slow and place.first:
        print(f"semidg: warning: {slow}", file=sys.stderr)
    if config.trainer.compile:
        check_compiler(device)
    return precision


def _warn_of_data(config: ExperimentConfig, prepared: Prepared) -> None:
    if config.method.name != "supervised" and not prepared.split.unlabelled:
        print(
            f"semidg: warning: nothing is unlabelled, so {config.method.name} trains on the labels alone; labelled "
            f"{config.labelled:g} uses every mask, and every image has one: take less",
            file=sys.stderr,
        )
    if prepared.index.doubt:
        print(f"semidg: warning: {prepared.index.doubt}", file=sys.stderr)


def open_config(run: Path) -> ExperimentConfig:
    """The configuration of a run folder; raises RunError if it is none, or of another version."""
    marker = run / "run.json"
    if not marker.is_file():
        raise RunError(f"{run}: not a run folder (no run.json); semidg train PRESET --out {run} makes one")
    try:
        version = json.loads(marker.read_text("utf-8"))["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{marker}: damaged; train the run anew") from error
    if version != RUN_FORMAT:
        raise RunError(f"{run}: a run folder of format {version}; this semidg reads format {RUN_FORMAT}")
    return load_config(run / "config.yaml")


def _begin(
    config: ExperimentConfig,
    run: Path,
    resume: bool,
    place: Place,
    report: Report | None,
    held: contextlib.ExitStack,
    preparing: contextlib.ExitStack,
) -> tuple[Method, Prepared, checkpoint.State | None]:
    """What training starts from; rank 0 makes the run folder and holds it, the others read it."""
    if place.first:
        existed = run.exists()
        _refuse(config, run, resume)
        held.enter_context(locked(run, "another training"))
        _refuse(config, run, resume)  # another one may have begun and ended
        remove_parts(run / "checkpoints")  # elsewhere in a run somebody may predict or evaluate
        if not existed:
            preparing.enter_context(_clean_on_failure(run))
        if not (run / "run.json").is_file():
            remove_parts(run)
            write_text(run / "config.yaml", dump_config(config))
            write_text(run / "run.json", json.dumps({"format": RUN_FORMAT, "semidg": semidg.__version__}) + "\n")
        state = _last_state(run) if resume else None
    elif not (run / "split").is_dir():
        raise RunError(f"{run}: only rank 0 can see it; --out must be a folder that all machines share")
    else:
        state = _last_state(run) if resume else None
    # the networks first: a wrong encoder or missing weights should not cost an indexing of the data
    method = make_method(config)
    if config.trainer.sync_batchnorm and place.world > 1:
        synchronise(method)
    prepared = prepare(config, run, report)
    if not any(record.labelled for record in prepared.split.test):
        raise SplitError("the test part has no image with a mask, so nothing can be scored; change data.split")
    return method, prepared, state


def _last_state(run: Path) -> checkpoint.State | None:
    last = run / "checkpoints" / "last.pt"
    return checkpoint.load_state(last) if last.is_file() else None


def _anywhere(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration without what may change in a run: the number of devices, as batches are those of all of them
    together, and activation checkpointing, as the numbers are the same."""
    update = {"devices": 1, "nodes": 1, "activation_checkpointing": False}
    trainer = config.trainer.model_copy(update=update)
    return config.model_copy(update={"trainer": trainer})


def _refuse(config: ExperimentConfig, run: Path, resume: bool) -> None:
    """Raises RunError for a folder in which the training cannot begin or go on."""
    if resume:
        if keys := differing_keys(_anywhere(open_config(run)), _anywhere(config)):
            raise RunError(
                f"{run}: holds another configuration (it differs in {', '.join(keys)}); choose another --out, or "
                "resume it without changes"
            )
        if origin := read_json(run / "environment.json").get(ORIGIN):
            raise RunError(
                f"{run}: has no networks, only the scores taken over from {origin}; delete the folder to train it here"
            )
    elif (run / "run.json").is_file():
        raise RunError(f"{run}: already holds a run; continue it with --resume, or choose another --out")
    elif run.is_dir() and not (abandoned(run) and _is_ours(run / "config.yaml", config)):
        raise RunError(f"{run}: exists and is not empty; choose another --out")
    elif run.exists() and not run.is_dir():
        raise RunError(f"{run}: is a file; choose another --out")


def abandoned(run: Path) -> bool:
    """Whether a run was killed before it was one: the folder holds its configuration at most."""
    return run.is_dir() and all(p.name in ("config.yaml", ".lock") or PART.fullmatch(p.name) for p in run.iterdir())


def _is_ours(path: Path, config: ExperimentConfig) -> bool:
    """Whether a configuration, if there is one, is what a run of ``config`` has written, and no file of the user's."""
    return not path.is_file() or path.read_bytes() == dump_config(config).encode("utf-8")


@contextlib.contextmanager
def _clean_on_failure(run: Path) -> Iterator[None]:
    """Remove a new run folder, in which nothing has been trained yet, if its preparation fails."""
    try:
        yield
    except BaseException:
        shutil.rmtree(run, ignore_errors=True)
        raise


def _fit(
    config: ExperimentConfig,
    run: Path,
    place: Place,
    method: Method,
    prepared: Prepared,
    state: checkpoint.State | None,
    device: torch.device,
    precision: str,
    trackers: Trackers,
    listener: Listener | None,
) -> None:
    c = config.trainer
    method = ready(method, c)
    module = MethodModule(method, config, state.step if state else 0)
    module.optimiser_state = state.optimiser if state else None
    split, index = prepared.split, prepared.index
    protocol = protocol_of(config.data.split, split.meta)
    chooses = split.parts()[protocol.selection]
    validation = None
    if place.first and any(record.labelled for record in chooses):
        validation = Validation(chooses, prepared.cache, index.root, config.network.classes, protocol)
    about = {"method": config.method.name, "labelled": config.labelled, "seed": config.seed, "name": config.name}
    keeper = Keeper(run, place, validation, state, about, trackers, listener)
    with signals_restored():
        trainer = make_trainer(config, place, method, device, precision, keeper, c.max_steps - module.step)
        loader = training_loader(prepared.cache, split, config, module.step, place.rank, place.world)
        trainer.fit(module, loader)
    if keeper.stop_signal is not None and module.step < c.max_steps:
        raise Stopped(run, module.step, keeper.stop_signal)
    if module.step < c.max_steps:
        raise RunError(f"{run}: the training ended after step {module.step} of {c.max_steps}; continue with --resume")
