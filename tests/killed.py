"""Trainings in processes of their own that kill themselves (SIGKILL) at a chosen moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from semidg.config import ExperimentConfig
from semidg.data.index import Index

#: Imports what trains once; each process is a fork of it, which is seconds quicker.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "semidg.experiment.run", "semidg.experiment.label_quality"])


def exit_code(work: Callable[..., None], *arguments: Any) -> int | None:
    """How a process that does ``work`` ends: minus the signal, where one ended it."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    process.join(250)
    return process.exitcode


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(moment: str, config: ExperimentConfig, out: Path) -> None:
    """``stepN``: after that step; ``saving``: the second checkpoint is half-written; ``validated``: the best networks
    are written, the checkpoint of that step is not; ``trained``: the last checkpoint is written, nothing after it."""
    from semidg.experiment import checkpoint, keeper, run

    class Watch:
        def begin(self, step: int, total: int) -> None: ...

        def row(self, row: dict[str, float]) -> None: ...

        def step(self, step: int) -> None:
            if moment == f"step{step}":
                kill_me()

    save, save_bundle, save_state, saved = torch.save, keeper.save_bundle, keeper.save_state, [0]

    def half(values: object, stream: BinaryIO) -> None:
        saved[0] += 1
        if saved[0] == 2:
            stream.write(b"half of a checkpoint")
            stream.flush()
            kill_me()
        save(values, stream)

    def best(*arguments: Any) -> None:
        save_bundle(*arguments)
        kill_me()

    def last(path: Path, state: checkpoint.State) -> None:
        save_state(path, state)
        if state.step == config.trainer.max_steps:
            kill_me()

    if moment == "trained":
        keeper.save_state = last
    if moment == "saving":
        checkpoint.torch.save = half  # type: ignore[assignment]
    if moment == "validated":
        keeper.save_bundle = best
    torch.set_num_threads(1)
    run.train(config, out, listener=Watch())


def score_until_the_second_fold(config: ExperimentConfig, index: Index, out: Path) -> None:
    from semidg.experiment.label_quality import score_by_folds

    def progress(what: str, done: int, total: int) -> None:
        if what == "training fold 2 of 2" and done == 3:
            kill_me()

    torch.set_num_threads(1)
    score_by_folds(config, index, 2, out, torch.device("cpu"), progress)
