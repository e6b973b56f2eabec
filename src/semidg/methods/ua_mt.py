"""UA-MT: uncertainty-aware Mean Teacher (Yu, Wang, Li, Fu, Heng, MICCAI 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from semidg import ranks
from semidg.augmentation.strong import apply_cutmix
from semidg.method_config import UAMTMethod
from semidg.methods.base import log_probabilities, make_views
from semidg.methods.recipe import RecipeMethod
from semidg.networks.factory import NetworkOutput
from semidg.objectives.consistency import entropy, entropy_limit, masked_mean, squared_distance
from semidg.types import Batch, Progress

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class UAMT(RecipeMethod):
    """L = L_sup + w(t) sum_v 1[u_v < H(t)] || P_v(Z) - Q_v(X) ||^2 / sum_v 1[u_v < H(t)], v the pixels.

    mu = mean of T passes of the moving average over X, each with its own dropout and input noise; u = -sum_c mu log mu;
    H(t) = (3/4 + 1/4 exp(-5 (1 - t)^2)) log K, t the part of the training done.
    Ours: X and Z are our weak and strong view; Q has neither noise nor dropout (published: both), and in the passes
    BatchNorm is in eval mode (only dropout is on); u is cut and mixed like Z. A decoder without dropout (unet) has the
    noise alone. w(t) is that of every method (published: 0.1 of the mean over classes, risen over the whole training).
    """

    terms = ("supervised", "consistency")

    def __init__(self, networks: nn.ModuleList, config: UAMTMethod) -> None:
        super().__init__(networks, config)
        self.config = config

    def step(self, batch: Batch, progress: Progress) -> tuple[list[NetworkOutput], dict[str, Tensor]]:
        """``consistency``."""
        c = self.config
        views = make_views(batch, c.fourier, c.strong, progress.generator())
        log_q = self.teach(batch.unlabelled)
        u = self.uncertainty(batch.unlabelled, replace(progress, stream=2).generator())
        certain = u < entropy_limit(progress.fraction, log_q.shape[1], c.threshold_start)
        q, certain = apply_cutmix(log_q.exp(), views.cutmix), apply_cutmix(certain, views.cutmix)
        output, log_p = self.learn(batch, views.strong)
        return [output], {"consistency": masked_mean(squared_distance(log_p, q), certain)}

    @torch.no_grad()
    def uncertainty(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """u, (B, H, W) in [0, log K]: all T passes in one forward of the teacher. images: (B, C, H, W)."""
        average, passes, noise = self.average(), self.config.passes, self.config.noise
        count = len(images) * ranks.world()
        drawn = torch.randn(passes, count, *images.shape[1:], generator=generator).clamp_(-2, 2) * noise
        drawn = ranks.own(drawn, 1).flatten(0, 1)
        noisy = images.repeat(passes, 1, 1, 1) + ranks.send(drawn, images.device)
        with dropout_on(average.network):
            q = log_probabilities(average(noisy).logits).exp()
        return entropy(q.reshape(passes, len(images), *q.shape[1:]).mean(0))


@contextmanager
def dropout_on(network: nn.Module) -> Iterator[None]:
    """The dropout layers of a network in eval mode draw meanwhile; all else, BatchNorm first, stays in eval mode."""
    layers = [module for module in network.modules() if isinstance(module, _DROPOUTS)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
