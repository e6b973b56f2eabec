"""UniMatch: two strong views, and perturbed features (Yang, Qi, Feng, Zhang, Shi, CVPR 2023)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from semidg import ranks
from semidg.augmentation.strong import apply_cutmix
from semidg.method_config import UniMatchMethod
from semidg.methods.base import make_views
from semidg.methods.recipe import RecipeMethod
from semidg.networks.factory import NetworkOutput
from semidg.objectives.consistency import pseudo_label, thresholded_cross_entropy
from semidg.types import Batch, Progress


class UniMatch(RecipeMethod):
    """L = L_sup + w(t) [ lambda l(P_fp) + mu/2 (l(P(Z_1)) + l(P(Z_2))) ], l(P) = < 1[max Q >= tau] CE(P, argmax Q) >.

    Q as in FixMatch, of X; Z_1 and Z_2 are two draws of the strong view; P_fp = decoder(dropout(encoder(X))), whole
    channels dropped. One forward: labelled, X, Z_1, Z_2 go through the encoder together, then the channels of the rows
    of X are dropped, then the decoder sees all. Ours, beside what FixMatch says: the decoder sees X with dropped
    channels only, as the moving average does the labelling; channels are dropped in every map of the encoder. The
    authors' code for medical images has a Dice loss in place of CE; ours has CE, as the paper.
    """

    terms = ("supervised", "strong", "feature")

    def __init__(self, networks: nn.ModuleList, config: UniMatchMethod) -> None:
        super().__init__(networks, config)
        self.config = config
        self.leave_out({"strong": config.strong_weight, "feature": config.feature_weight})

    def step(self, batch: Batch, progress: Progress) -> tuple[list[NetworkOutput], dict[str, Tensor]]:
        """``strong`` and ``feature``; the images of a term that is off are left out."""
        c = self.config
        log_q = self.teach(batch.unlabelled)
        images, targets, perturb = [], [], None
        if c.feature_weight:
            images.append(batch.unlabelled)
            targets.append(pseudo_label(log_q, c.threshold))
            rows = slice(len(batch.labelled), len(batch.labelled) + len(batch.unlabelled))
            perturb = ChannelDropout(rows, c.feature_dropout, replace(progress, stream=3).generator())
        if c.strong_weight:
            for stream in (0, 2):
                views = make_views(batch, c.fourier, c.strong, replace(progress, stream=stream).generator())
                images.append(views.strong)
                targets.append(pseudo_label(apply_cutmix(log_q, views.cutmix), c.threshold))
        output, log_p = self.learn(batch, *images, perturb=perturb)
        parts = log_p.chunk(len(targets)) if targets else ()
        losses = [thresholded_cross_entropy(part, target) for part, target in zip(parts, targets, strict=True)]
        terms = {}
        if c.strong_weight:
            terms["strong"] = c.strong_weight * (losses[-2] + losses[-1]) / 2
        if c.feature_weight:
            terms["feature"] = c.feature_weight * losses[0]
        return [output], terms


class ChannelDropout:
    """Sets each channel of some rows of the encoder's maps to 0 with probability p and scales the rest by 1/(1 - p)."""

    def __init__(self, rows: slice, probability: float, generator: torch.Generator) -> None:
        self.rows, self.probability, self.generator = rows, probability, generator

    def __call__(self, maps: list[Tensor]) -> list[Tensor]:
        """maps: (B, D_i, h_i, w_i) each; the first is the image itself, which no decoder of ours reads."""
        return [maps[0], *(m * self._factor(m) for m in maps[1:])]

    def _factor(self, m: Tensor) -> Tensor:
        factor = torch.ones(m.shape[0], m.shape[1], 1, 1)
        count = len(factor[self.rows]) * ranks.world()
        drawn = ranks.own(torch.rand(count, *factor.shape[1:], generator=self.generator))
        factor[self.rows] = (drawn >= self.probability) / (1 - self.probability)
        return ranks.send(factor, m.device, m.dtype)
