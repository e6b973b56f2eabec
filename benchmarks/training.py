"""The training loop of ``semidg train`` with a clock, for the benchmarks of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from benchmarks.pictures import write_images
from semidg.config import ExperimentConfig
from semidg.config_file import load_config, parse_config
from semidg.experiment.device import choose_precision, has_bf16, keep_freed_memory, set_threads
from semidg.experiment.distributed import Place
from semidg.experiment.engine import make_trainer, quiet, signals_restored
from semidg.experiment.loaders import training_loader
from semidg.experiment.module import MethodModule
from semidg.experiment.prepare import prepare
from semidg.methods import make_method
from semidg.methods.base import Method
from semidg.types import Batch


def write_data(folder: Path, quick: bool) -> None:
    """FOLDER/data: a few images, enough for batches; what they show does not matter here."""
    write_images(folder / "data", 40 if quick else 80, 64 if quick else 128)


def configure(
    folder: Path, method: str, quick: bool = False, size: int | None = None, **trainer: Any
) -> ExperimentConfig:
    """Preset busi-lite on FOLDER/data for a method, with keys of the section ``trainer`` replaced; size: of the
    images, by default that of the preset, quick: 64. Threads and memory of this process are set as training sets
    them."""
    values = load_config("busi-lite").model_dump(mode="json")
    values["method"] = {"name": method}
    values["data"] |= {"root": str(folder / "data"), "layout": "folders", "cache": str(folder / "cache")}
    values["trainer"] |= {"accelerator": "cpu"} | trainer
    if quick or size:
        values["data"]["size"] = size or 64
    config = parse_config(values, "benchmark")
    set_threads(config.trainer)
    keep_freed_memory()
    return config


def new_method(config: ExperimentConfig) -> Method:
    """Networks and averages as training has them: channels_last, train mode."""
    return make_method(config).to(memory_format=torch.channels_last).train()


def first_batch(config: ExperimentConfig) -> Batch:
    """The first batch of a training."""
    prepared = prepare(config)
    batch: Batch = next(iter(training_loader(prepared.cache, prepared.split, config)))
    return batch


def channels_last(batch: Batch) -> Batch:
    """As the training loop moves a batch."""
    return batch.map(lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t)


def repeated(batch: Batch, count: int) -> DataLoader[Batch]:
    """A loader of one batch in memory, ``count`` times."""
    data: Any = [batch] * count
    return DataLoader(data, batch_size=None)


class _Clock(L.Callback):
    def __init__(self, between: Callable[[], object]) -> None:
        self.seconds: list[float] = []
        self.between = between
        self.begun = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begun = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.begun)
        self.between()
        self.begun = time.perf_counter()


def train(
    config: ExperimentConfig,
    batches: Any,
    between: Callable[[], object] = lambda: None,
    prepared: Callable[[L.Trainer, MethodModule], object] = lambda trainer, module: None,
) -> list[float]:
    """Seconds of each of the last steps of a training, when every term is on, loading included; a step a batch.

    batches: a loader with a length. between: called after each step, outside its time. prepared: called before the
    first one.
    """
    method, count = new_method(config), len(batches)
    module, clock = MethodModule(method, config, config.trainer.max_steps - count), _Clock(between)
    device = torch.device("cpu")
    precision = choose_precision(config.trainer.precision, device)
    with signals_restored(), quiet():
        trainer = make_trainer(config, Place(), method, device, precision, clock, count)
        prepared(trainer, module)
        trainer.fit(module, batches)
    return clock.seconds


def autocast(precision: str) -> torch.autocast:
    """What the training loop computes in, for ``trainer.precision`` 32 or bf16."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def precisions() -> tuple[str, ...]:
    """Those to measure in: bf16 where the processor has instructions for it, or where PyTorch cannot say."""
    return ("32",) if has_bf16(torch.device("cpu")) is False else ("32", "bf16")


def over_neighbours(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """ours[k] / mean(others[k - 1], others[k]) for k >= 1, where others[k] came right after ours[k]: a machine that
    slows down favours neither. The first of ours is a warm-up."""
    return [a / ((b + c) / 2) for a, b, c in zip(ours[1:], others, others[1:], strict=False)]


def seconds(run: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
