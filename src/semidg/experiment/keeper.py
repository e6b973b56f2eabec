"""What happens between steps: the log, the check for NaN, validation, checkpoints, and stopping in good order."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor

from semidg import ranks
from semidg.errors import NonFiniteLossError
from semidg.experiment.bundle import Bundle, save_bundle
from semidg.experiment.checkpoint import State, save_state
from semidg.experiment.distributed import Place, largest, of_all
from semidg.experiment.executors import orphaned
from semidg.experiment.loggers import Trackers
from semidg.experiment.metrics_file import MetricsFile
from semidg.experiment.module import MethodModule
from semidg.experiment.scoring import Validation
from semidg.networks.compilation import uncompiled


class Listener(Protocol):
    """Somebody who watches a training: a progress bar, say."""

    def begin(self, step: int, total: int) -> None:
        """Training starts after ``step`` of ``total`` steps."""

    def step(self, step: int) -> None:
        """A step is done."""

    def row(self, row: dict[str, float]) -> None:
        """A row of metrics.csv was written."""


class Keeper(L.Callback):
    """Keeps the run folder: metrics.csv, checkpoints/last.pt and checkpoints/best.safetensors."""

    def __init__(
        self,
        run: Path,
        place: Place,
        validation: Validation | None,
        state: State | None,
        about: dict[str, Any],
        trackers: Trackers,
        listener: Listener | None = None,
    ) -> None:
        """validation: None where there is nothing to validate on, and on every rank but 0, which alone writes."""
        self.run, self.place, self.validation, self.about = run, place, validation, about
        self.listener = listener if place.first else None
        self.trackers = trackers
        self.best = state.best if state else None
        self.precision = state.precision if state else {}
        self.before = state.seconds if state else 0.0
        self.metrics = MetricsFile(run / "metrics.csv", keep_to=state.step if state else 0) if place.first else None
        self.validates = bool(largest(int(validation is not None))) if place.world > 1 else validation is not None
        self.window: list[tuple[dict[str, Tensor], tuple[str, ...]]] = []
        self.stop_signal: int | None = None
        self.latest: float | None = None
        self.saved_step = state.step if state else -1
        self.started = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clock starts; the engine has set its own signal handlers by now, ours take their place."""
        self.handle_signals()
        self.started = time.monotonic()
        assert isinstance(pl_module, MethodModule)
        if self.precision:
            trainer.precision_plugin.load_state_dict(self.precision)
        if self.listener:
            self.listener.begin(pl_module.step, pl_module.config.trainer.max_steps)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After step ``module.step``: validate, log, save, as configured."""
        assert isinstance(pl_module, MethodModule)
        module, c = pl_module, pl_module.config.trainer
        assert module.last is not None
        terms, last = module.last
        self.window.append((terms, (*last.labelled_ids, *last.unlabelled_ids)))
        step, final = module.step, module.step >= c.max_steps
        stop = self._should_stop()
        if self.listener:
            self.listener.step(step)
        validated = self.validates and (step % c.eval_every == 0 or final)
        if validated:
            self._refuse_nan(module)  # NaN networks must not be kept as the best
        scores = self._validate(module) if validated else {}
        if validated or step % c.log_every == 0 or stop or final:
            row = self._row(trainer, module) | scores
            if self.metrics is not None:
                self.metrics.append(row)
                self.trackers.row(row)
                if self.listener:
                    self.listener.row(row)
        if step % c.checkpoint_every == 0 or final or stop:
            self.save(trainer, module)
        if stop:
            trainer.should_stop = True

    def handle_signals(self) -> None:
        """SIGTERM and Ctrl-C ask for a stop after the step that runs; a second one stops at once."""

        # Ctrl-C in a terminal reaches every process; those that ``launch`` has started leave it to the one that did
        ours = self.place.world > 1 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN

        def ask(number: int, frame: Any) -> None:
            if self.stop_signal is not None and not ours and not orphaned():
                raise KeyboardInterrupt
            self.stop_signal = number

        with contextlib.suppress(ValueError):  # not the main thread: the caller handles signals
            for number in (signal.SIGTERM,) if ours else (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, ask)

    def _should_stop(self) -> bool:
        """Whether any rank got a signal."""
        if self.place.world > 1:
            asked = largest(self.stop_signal or 0)
            if asked:  # else one that has come meanwhile counts in the next step
                self.stop_signal = asked
            return bool(asked)
        return self.stop_signal is not None

    def _terms(self, module: MethodModule) -> list[list[float]]:
        """The terms of each step since the last row, means over the ranks; raises NonFiniteLossError if one is not
        finite."""
        names = module.method.terms
        none = torch.zeros_like(self.window[0][0]["supervised"])
        table = torch.stack([torch.stack([t.get(n, none) for n in names]) for t, _ in self.window])
        with ranks.together():
            values: list[list[float]] = ranks.mean(table).cpu().tolist()
        first = module.step - len(self.window)
        for number, (row, (_, ids)) in enumerate(zip(values, self.window, strict=True), first + 1):
            bad = [name for name, value in zip(names, row, strict=True) if not math.isfinite(value)]
            if bad:
                parts = of_all(ids) if self.place.world > 1 else [ids]
                raise NonFiniteLossError(
                    f"{self.run}: the loss term{'s' * (len(bad) > 1)} {', '.join(bad)} became NaN or infinite in step "
                    f"{number}, on the records {', '.join(name for part in parts for name in part)}; {self._mend}"
                )
        return values

    @property
    def _mend(self) -> str:
        return (
            f"the last good checkpoint is of step {max(0, self.saved_step)}; look at these images, or begin again in "
            "another folder with a lower --optimiser.lr"
        )

    def _refuse_nan(self, module: MethodModule) -> None:
        """Raises NonFiniteLossError where a loss since the last row, or a weight, is not finite: the gradient of a
        finite loss may be infinite. On all ranks alike."""
        if self.window:
            self._terms(module)
        with torch.no_grad():
            statistics = [buffer for buffer in module.method.buffers() if buffer.is_floating_point()]
            norms = torch.stack(torch._foreach_norm([*module.method.parameters(), *statistics]))
        if not torch.isfinite(norms.sum()):
            raise NonFiniteLossError(
                f"{self.run}: weights became NaN or infinite up to step {module.step}, by a gradient that did; "
                f"{self._mend}"
            )

    def _row(self, trainer: L.Trainer, module: MethodModule) -> dict[str, float]:
        """Means of the terms since the last row."""
        values = self._terms(module)
        self.window.clear()
        means = [sum(column) / len(values) for column in zip(*values, strict=True)]
        return {
            "step": module.step,
            "seconds": round(self.seconds, 2),
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "loss": sum(means),
            **dict(zip(module.method.terms, means, strict=True)),
        }

    def _validate(self, module: MethodModule) -> dict[str, float]:
        """Validation Dice of the averaged prediction and of each network; keeps the best networks. Nothing on ranks
        other than 0, which wait for it in the next exchange."""
        if self.validation is None:
            return {}
        ensemble = module.method.ensemble()
        with uncompiled(module.config.trainer.compile):  # as in ``evaluate``
            dice = self.validation.dice(ensemble, module.config.trainer.eval_batch, module.device)
        if self.best is None or dice["mean"] > self.best[0]:
            self.best = (dice["mean"], module.step)
            self.write_bundle(module, "best", dice["mean"])
        self.latest = dice["mean"]
        return {f"validation_dice_{name}" if name != "mean" else "validation_dice": v for name, v in dice.items()}

    def write_bundle(self, module: MethodModule, name: str, dice: float | None) -> None:
        """checkpoints/NAME.safetensors: the networks that predict, as they are now."""
        c = module.config
        about = self.about | {
            "step": module.step,
            "training_seconds": self.seconds,
            "validation_dice": dice,
        }
        bundle = Bundle(module.method.ensemble(), c.network, c.data.size, c.data.channels, about)
        save_bundle(self.run / "checkpoints" / f"{name}.safetensors", bundle)

    def save(self, trainer: L.Trainer, module: MethodModule) -> None:
        """checkpoints/last.pt, written only if every loss since the last row is finite, and every weight."""
        self._refuse_nan(module)
        if self.place.first:
            optimiser = trainer.optimizers[0].state_dict()
            precision = trainer.precision_plugin.state_dict()
            if module.step >= module.config.trainer.max_steps:  # before the state that says that nothing is left to do
                self.write_bundle(module, "last", self.latest)
            state = State(module.method.state_dict(), optimiser, module.step, self.best, self.seconds, precision)
            save_state(self.run / "checkpoints" / "last.pt", state)
        self.saved_step = module.step

    @property
    def seconds(self) -> float:
        """Time spent in training, over all parts of a resumed run."""
        return self.before + time.monotonic() - self.started
