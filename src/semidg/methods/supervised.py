"""Supervised: the labelled images only (METHOD section 2). The baseline of every claim."""

from __future__ import annotations

from torch import Tensor, nn

from semidg.method_config import SupervisedMethod
from semidg.methods.base import Method
from semidg.types import Batch, Progress


class Supervised(Method):
    """One network or a pair, each taught by the labels."""

    def __init__(self, networks: nn.ModuleList, config: SupervisedMethod) -> None:
        super().__init__(networks, config.teacher, config.boundary)
        self.config = config

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """``supervised`` and the boundary terms that are on, the mean over the networks."""
        return self.supervised_terms([network(batch.labelled) for network in self.networks], batch.masks, progress)
