"""What mean_teacher, ua_mt, fixmatch, unimatch, bcp and cps share, so that only the method differs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from semidg.method_config import RecipeConfig
from semidg.methods.base import Method, log_probabilities
from semidg.networks.factory import NetworkOutput
from semidg.objectives.schedule import ramp_weight
from semidg.types import Batch, Progress


class RecipeMethod(Method):
    """L = L_sup + w(t) sum of the terms of ``step``; w(t) and L_sup are those of every other method.

    X is the weak view as the loader gives it, Z the strong view of ``make_views`` (Fourier, photometric, CutMix).
    Labels are made on the plain X and then cut and mixed like Z; the learner sees no X unless its method says so.
    """

    def __init__(self, networks: nn.ModuleList, config: RecipeConfig) -> None:
        super().__init__(networks, config.teacher, config.boundary)
        self.recipe = config
        self.leave_out(dict.fromkeys(type(self).terms[1:], config.ramp.maximum))

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """``supervised`` and, once the ramp has begun, the terms of ``step`` times w(t)."""
        weight = ramp_weight(progress.fraction, self.recipe.ramp)
        if weight == 0 or len(batch.unlabelled) == 0 or not {*type(self).terms[1:]} & {*self.terms}:
            return self.supervised_terms([n(batch.labelled) for n in self.networks], batch.masks, progress)
        outputs, terms = self.step(batch, progress)
        named = self.supervised_terms(outputs, batch.masks, progress)
        return named | {name: weight * term for name, term in terms.items()}

    @abstractmethod
    def step(self, batch: Batch, progress: Progress) -> tuple[Sequence[NetworkOutput], dict[str, Tensor]]:
        """What each network says, labelled images first, and the named terms before the weight w(t).

        A term whose own weight is 0 is left out.
        """

    def learn(
        self,
        batch: Batch,
        *images: Tensor,
        network: int = 0,
        perturb: Callable[[list[Tensor]], list[Tensor]] | None = None,
    ) -> tuple[NetworkOutput, Tensor]:
        """One forward of the labelled and the further ``images``: all of it, and log P of the latter, (N, K, H, W)."""
        output: NetworkOutput = self.networks[network](torch.cat([batch.labelled, *images]), perturb)
        return output, log_probabilities(output.logits[len(batch.labelled) :])

    @torch.no_grad()
    def teach(self, images: Tensor, network: int = 0) -> Tensor:
        """log Q, (B, K, H, W), in eval mode: of the moving average, or of the network itself where there is none.

        The latter is a second forward of a network in a step: eval mode cannot share that of train mode.
        """
        device = images.device.type
        dtype, enabled = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        # without cache: some releases of PyTorch keep the half-precision weights of this forward, which have no graph,
        # and the forward that learns would get them
        with torch.autocast(device, dtype, enabled, cache_enabled=False):
            if self.teachers is not None:
                logits = self.average(network)(images).logits
            else:
                learner = self.networks[network]
                training = learner.training
                logits = learner.eval()(images).logits
                learner.train(training)
        return log_probabilities(logits)
