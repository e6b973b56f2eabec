"""What a training will cost on this machine: ten of its steps and a batch of its scoring, measured."""

from __future__ import annotations

import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from semidg.config import ExperimentConfig
from semidg.errors import ConfigError, SplitError
from semidg.evaluation.protocols import protocol_of
from semidg.experiment.bundle import Bundle, save_bundle
from semidg.experiment.checkpoint import State, save_state
from semidg.experiment.device import choose_device, choose_precision, has_bf16, keep_freed_memory, set_threads
from semidg.experiment.distributed import Place
from semidg.experiment.engine import make_trainer, quiet, ready, signals_restored
from semidg.experiment.loaders import training_loader
from semidg.experiment.module import MethodModule
from semidg.experiment.prepare import Prepared, Report, prepare
from semidg.experiment.scoring import Validation, score_records
from semidg.methods import make_method
from semidg.methods.base import Method
from semidg.networks.compilation import check_compiler, uncompiled

_WARM_UP, _MEASURED, _COMPARED = 3, 10, 5  # steps; the last for another precision


@dataclass(frozen=True)
class Estimate:
    """Times in seconds, sizes in bytes.

    compiling: what the first step took longer where networks are compiled. other: another precision, as in
    ``trainer.precision``, and the time of a step with it over that of ``step``; None where there is none to measure.

    step: (median, least, largest) of the measured steps. validation, scoring: all of the run. gpu: None without one.
    run: the run folder with its checkpoints and models; tables and reports are small beside them.
    """

    steps: int
    step: tuple[float, float, float]
    validation: float
    scoring: float
    checkpoints: float
    memory: int
    gpu: int | None
    cache: int
    run: int
    device: str
    threads: int
    precision: str
    compiling: float = 0.0
    other: tuple[str, float] | None = None

    @property
    def training(self) -> float:
        """All steps, without validation."""
        return self.steps * self.step[0]

    @property
    def total(self) -> float:
        """Everything after the data are indexed and decoded."""
        return self.compiling + self.training + self.validation + self.scoring + self.checkpoints


def estimate(config: ExperimentConfig, report: Report | None = None) -> Estimate:
    """Measure the last steps of the training, in which every term is on, with networks as they are drawn.

    Leaves the image cache, which the training uses, and no run folder. Raises ConfigError for several devices, and
    what ``train`` raises for data and configuration.
    """
    c = config.trainer
    if c.devices * c.nodes > 1:
        raise ConfigError("--estimate measures one device; set trainer.devices and trainer.nodes to 1")
    device = choose_device(c.accelerator)
    set_threads(c)
    if device.type == "cpu":
        keep_freed_memory()
    precision = choose_precision(c.precision, device)
    if c.compile:
        check_compiler(device)
    method = make_method(config)
    prepared = prepare(config, None, report)
    parts = prepared.split.parts()
    test = [r for r in parts["test"] if r.labelled]
    if not test:
        raise SplitError("the test part has no image with a mask, so nothing can be scored; change data.split")
    protocol = protocol_of(config.data.split, prepared.split.meta)
    chooses = [r for r in parts[protocol.selection] if r.labelled]
    method = ready(method, c)

    steps = min(c.max_steps, _WARM_UP + _MEASURED)
    every, optimiser = _time(config, method, prepared, device, precision, steps)
    times = every[min(_WARM_UP, steps - 1) :]
    method.to(device)

    root, classes, ensemble = prepared.index.root, config.network.classes, method.ensemble()
    validation = 0.0
    if chooses:
        some = Validation(chooses[: c.eval_batch], prepared.cache, root, classes, protocol)
        with uncompiled(c.compile):
            one = _seconds(lambda: some.dice(ensemble, c.eval_batch, device)) / len(some.records)
        # once every eval_every steps, at the end, and for the calibration
        validation = one * len(chooses) * (math.ceil(c.max_steps / c.eval_every) + 1)
    some_test = test[: c.eval_batch]
    options: dict[str, Any] = {"batch": c.eval_batch, "classes": classes, "device": device, "protocol": protocol}
    asked = config.prediction.augmentation
    ensemble.augmentation = "scales" if asked == "auto" else asked
    # for the calibration, and to choose: all three augmentations are 1.6 times the work of the last
    again = {"none": 0.0, "auto": 2.6}.get(asked, 1.0)
    with uncompiled(c.compile):
        one = _seconds(lambda: score_records(ensemble, some_test, prepared.cache, root, **options)) / len(some_test)
    with tempfile.TemporaryDirectory(prefix="semidg-estimate-") as name:
        state, bundle = Path(name) / "last.pt", Path(name) / "last.safetensors"
        saving = _seconds(lambda: save_state(state, State(method.state_dict(), optimiser, 0, None, 0.0)))
        save_bundle(bundle, Bundle(ensemble, config.network, config.data.size, config.data.channels, {}))
        run = state.stat().st_size + (3 if chooses else 2) * bundle.stat().st_size  # best, last, and the model
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gpu = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    rival, other = _other_precision(precision, device), None
    if rival is not None and not c.compile:
        fewer = min(c.max_steps, _WARM_UP + _COMPARED)
        its, _ = _time(config, method, prepared, device, choose_precision(rival, device), fewer)
        other = rival, statistics.median(its[min(_WARM_UP, fewer - 1) :]) / statistics.median(times)
    return Estimate(
        steps=c.max_steps,
        step=(statistics.median(times), min(times), max(times)),
        validation=validation,
        scoring=one * (len(test) * (2 if chooses else 1) + again * len(chooses)),
        checkpoints=saving * math.ceil(c.max_steps / c.checkpoint_every),
        memory=peak if sys.platform == "darwin" else peak * 1024,
        gpu=gpu,
        cache=sum(path.stat().st_size for path in prepared.cache.folder.iterdir()),
        run=run,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        threads=torch.get_num_threads(),
        precision=precision,
        compiling=_compiling(config, method, prepared, device, precision, every) if c.compile else 0.0,
        other=other,
    )


def _compiling(
    config: ExperimentConfig,
    method: Method,
    prepared: Prepared,
    device: torch.device,
    precision: str,
    times: Sequence[float],
) -> float:
    """Seconds that the first step with unlabelled images, that of ``times``, and one of the warm-up, with labelled
    images alone, took longer than others."""
    (first,), _ = _time(config, method, prepared, device, precision, 1, done=0)
    return sum(max(0.0, seconds - statistics.median(times[1:] or times)) for seconds in (times[0], first))


def _time(
    config: ExperimentConfig,
    method: Method,
    prepared: Prepared,
    device: torch.device,
    precision: str,
    steps: int,
    done: int | None = None,
) -> tuple[list[float], dict[str, Any]]:
    """Seconds of each of ``steps`` of the training, the last ones or those after ``done``, and the state of the
    optimiser."""
    module, clock = MethodModule(method, config, config.trainer.max_steps - steps if done is None else done), _Clock()
    with signals_restored(), quiet():
        trainer = make_trainer(config, Place(), method, device, precision, clock, steps)
        trainer.fit(module, training_loader(prepared.cache, prepared.split, config, module.step))
        return clock.steps(), trainer.optimizers[0].state_dict()


def _other_precision(precision: str, device: torch.device) -> str | None:
    """What to compare a precision (Lightning's name) with: 32-bit with bf16, where the device has that, and bf16 with
    32-bit."""
    if device.type not in ("cpu", "cuda") or (precision == "32-true" and has_bf16(device) is False):
        return None
    return {"32-true": "bf16", "bf16-mixed": "32"}.get(precision)


class _Clock(L.Callback):
    """The time at the beginning and after each step, its loading included."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The first loading begins."""
        self.times.append(time.perf_counter())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """A step is done, on the device too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def steps(self) -> list[float]:
        """Seconds of each step."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def estimate_text(config: ExperimentConfig, found: Estimate) -> str:
    """The estimate for people, a line a fact."""
    median, least, most = found.step
    memory = _size(found.memory) + ("" if found.gpu is None else f", on the GPU {_size(found.gpu)}")
    return "\n".join(
        [
            f"{config.name}: {config.method.name}, {found.steps} steps on {found.device}, {found.threads} thread"
            f"{'s' * (found.threads != 1)}, precision {found.precision}",
            f"training     {_duration(found.training):>12}   {median:.3f} s a step, {least:.3f} to {most:.3f}",
            *([f"compiling    {_duration(found.compiling):>12}   in all"] if found.compiling else []),
            *([_compared(*found.other)] if found.other else []),
            f"validation   {_duration(found.validation):>12}",
            f"checkpoints  {_duration(found.checkpoints):>12}",
            f"scoring      {_duration(found.scoring):>12}",
            f"in all       {_duration(found.total):>12}",
            f"peak memory  {memory:>12}",
            f"image cache  {_size(found.cache):>12}   made now, and used by every run of these data and this size",
            f"run folder   {_size(found.run):>12}",
        ]
    )


def _compared(precision: str, ratio: float) -> str:
    how = f"{ratio:.2f} of the time a step" if ratio < 1 else f"{ratio:.2f} times as long a step"
    return f"precision    {precision:>12}   would take {how}, by {_COMPARED} steps"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
