"""Supervised: the labelled images only (METHOD section 2). The baseline of every claim."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semidg.config import SupervisedMethod
from semidg.methods.base import Method
from semidg.objectives.supervised import supervised_loss
from semidg.types import Batch, Progress


class Supervised(Method):
    """One network or a pair, each taught by the labels."""

    def __init__(self, networks: nn.ModuleList, config: SupervisedMethod) -> None:
        super().__init__(networks, config.teacher)
        self.config = config

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """``supervised``, the mean over the networks."""
        terms = [supervised_loss(network(batch.labelled).logits, batch.masks) for network in self.networks]
        return {"supervised": torch.stack(terms).mean()}
