"""BCP: bidirectional copy-paste (Bai, Chen, Li, Shen, Wang, CVPR 2023)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from semidg import ranks
from semidg.method_config import BCPMethod, StrongConfig
from semidg.methods.base import make_views
from semidg.methods.recipe import RecipeMethod
from semidg.networks.factory import NetworkOutput
from semidg.objectives.consistency import largest_components, paste, region_loss
from semidg.types import Batch, Progress


class BCP(RecipeMethod):
    """L = L_sup + w(t) (L_in + L_out) / 2, on images that are part labelled, part not; M = 0 in a rectangle, else 1.

    X_in  = M x_j + (1 - M) Z,    Y_in  = M y_j + (1 - M) Y,    L_in  = l(P, Y_in) on M     + alpha l(P, Y_in) on 1 - M
    X_out = M Z + (1 - M) x_i,    Y_out = M Y + (1 - M) y_i,    L_out = l(P, Y_out) on 1 - M + alpha l(P, Y_out) on M

    Y = the largest component of argmax Q(X), Q of the moving average; l = cross entropy + soft Dice (the published code
    halves it, hence the 1/2). The rectangle has beta of the sides, at a place drawn for each image.
    Ours: L_sup on whole labelled images stays, and is the warm-up, where the paper trains on mixtures of labelled
    images first and on mixtures alone then, at full weight; Z is our strong view without CutMix (the paper pastes X;
    ``fourier.lam: 0, photometric: 0``); the two parts of one unlabelled image go into X_in and X_out, so that each
    pixel teaches once; the moving average labels in eval mode and predicts (published: train mode; the network
    predicts); soft Dice is that of L_sup (published: the background counts as a class).
    """

    terms = ("supervised", "copy_paste")

    def __init__(self, networks: nn.ModuleList, config: BCPMethod) -> None:
        super().__init__(networks, config)
        self.config = config

    def step(self, batch: Batch, progress: Progress) -> tuple[list[NetworkOutput], dict[str, Tensor]]:
        """``copy_paste``."""
        c = self.config
        strength = StrongConfig(photometric=c.photometric, cutmix=0)
        view = make_views(batch, c.fourier, strength, progress.generator()).strong
        log_q = self.teach(batch.unlabelled)
        label = log_q.max(1).indices
        if c.largest_component:
            label = largest_components(label, log_q.shape[1])
        generator = replace(progress, stream=2).generator()
        count, labelled, masks = len(view) * ranks.world(), ranks.gather(batch.labelled), ranks.gather(batch.masks)
        drawn = sample_rectangles(count, view.shape[-2], view.shape[-1], c.beta, generator)
        inside = ranks.send(ranks.own(drawn), view.device)
        j = ranks.own(torch.arange(count, device=view.device)) % len(labelled)
        i = (j + 1) % len(labelled)
        inward = paste(inside, view, labelled[j])
        outward = paste(inside, labelled[i], view)
        output, log_p = self.learn(batch, inward, outward)
        p_in, p_out = log_p.chunk(2)
        l_in = region_loss(p_in, paste(inside, label, masks[j]), ~inside, c.alpha)
        l_out = region_loss(p_out, paste(inside, masks[i], label), inside, c.alpha)
        return [output], {"copy_paste": (l_in + l_out) / 2}


def sample_rectangles(batch: int, height: int, width: int, beta: float, generator: torch.Generator) -> Tensor:
    """1 - M: (B, H, W) bool, true in a rectangle of floor(beta H) x floor(beta W), wholly inside, uniformly placed."""
    h, w = max(1, int(beta * height)), max(1, int(beta * width))
    top = torch.randint(0, height - h + 1, (batch, 1, 1), generator=generator)
    left = torch.randint(0, width - w + 1, (batch, 1, 1), generator=generator)
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    return (y >= top) & (y < top + h) & (x >= left) & (x < left + w)
