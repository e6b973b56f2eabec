"""The only LightningModule: it adapts any method. One AdamW over all networks equals one each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from semidg import ranks
from semidg.config import ExperimentConfig
from semidg.methods.base import Method, strong_labelled
from semidg.objectives.schedule import learning_rate_factor
from semidg.types import Batch, Progress


class MethodModule(L.LightningModule):
    """Runs the steps ``start`` to ``max_steps`` of a method; the step number is kept here, across resumes."""

    def __init__(self, method: Method, config: ExperimentConfig, start: int = 0) -> None:
        super().__init__()
        self.method = method
        self.config = config
        self.step = start
        self.optimiser_state: dict[str, Any] | None = None
        #: Detached terms and ids of the last step, read by callbacks.
        self.last: tuple[dict[str, Tensor], Batch] | None = None

    @property
    def progress_now(self) -> Progress:
        """Of the step that comes next."""
        return Progress(self.step, self.config.trainer.max_steps, self.config.seed)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, fused where PyTorch has it for the device; a state to resume from is loaded here."""
        c = self.config.optimiser
        groups = []
        for group in self.method.parameter_groups():
            lr = c.lr * (c.encoder_lr_factor if group["name"].endswith("encoder") else 1)
            groups.append({**group, "lr": lr, "base_lr": lr})
        # not in fp16: a fused step undoes the scaling of the gradients itself, and they would be clipped while scaled
        fused = self.device.type in ("cpu", "cuda") and self.config.trainer.precision != "fp16"
        optimiser = torch.optim.AdamW(groups, lr=c.lr, weight_decay=c.weight_decay, fused=fused)
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state)
        return optimiser

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Images in channels_last where configured: one copy, without a wait where its source is page-locked. The
        numbers of the domains stay on the CPU, where the draws are made: to read them back would wait."""
        page_locked = device.type == "cuda"  # as the loader makes them there alone
        form = torch.channels_last if self.config.trainer.channels_last else torch.contiguous_format

        def move(t: Tensor) -> Tensor:
            if t.dim() == 1:
                return t
            return t.to(device, non_blocking=page_locked, memory_format=form if t.dim() == 4 else torch.preserve_format)

        return batch.map(move)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the method's terms. The random state (dropout) is a function of seed, step and rank."""
        for group in self.trainer.optimizers[0].param_groups:
            factor = learning_rate_factor(self.step, self.config.trainer.max_steps, self.config.optimiser)
            group["lr"] = group["base_lr"] * factor
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 4096 + self.global_rank)
        with ranks.together():
            if self.config.labelled_view.probability > 0:
                progress = replace(self.progress_now, stream=1)
                batch = strong_labelled(batch, self.config.labelled_view, progress.generator())
            terms = self.method(batch, self.progress_now)
        self.last = ({name: term.detach() for name, term in terms.items()}, batch)
        return torch.stack(list(terms.values())).sum()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Per network: a large gradient of one must not shrink the step of the other. Heads are not clipped."""
        if self.config.optimiser.clip:
            for k in range(len(self.method.networks)):
                groups = [g for g in optimizer.param_groups if g["name"] in (f"{k}.encoder", f"{k}.decoder")]
                nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], self.config.optimiser.clip)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser steps, teachers move, and the step is done. The running statistics of BatchNorm are those of
        all ranks: the mean of theirs."""
        super().optimizer_step(*args, **kwargs)
        with ranks.together():
            ranks.average_(self.method.networks.buffers())
        self.method.after_step(self.progress_now)
        self.step += 1
