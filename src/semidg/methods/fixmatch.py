"""FixMatch (Sohn et al., NeurIPS 2020) for segmentation, as in the baseline of UniMatch (Yang et al., CVPR 2023)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from semidg.augmentation.strong import apply_cutmix
from semidg.method_config import FixMatchMethod
from semidg.methods.base import make_views
from semidg.methods.recipe import RecipeMethod
from semidg.networks.factory import NetworkOutput
from semidg.objectives.consistency import pseudo_label, thresholded_cross_entropy
from semidg.types import Batch, Progress

#: Streams of the strong views of the networks.
_VIEWS = (0, 8)


class FixMatch(RecipeMethod):
    """L = L_sup + w(t) < 1[max_c Q(X) >= tau] CE(P(Z), argmax_c Q(X)) >, < > the mean over all pixels.

    Ours: Q is of the moving average in eval mode (``teacher: 0``: of the network itself, as published, but in eval
    mode, where published codes label in train mode); the strong view is ours (Fourier, speckle, CutMix); warm-up and
    ramp, where the paper has the full weight at once. Two networks know nothing of each other until they predict.
    """

    terms = ("supervised", "strong")

    def __init__(self, networks: nn.ModuleList, config: FixMatchMethod) -> None:
        super().__init__(networks, config)
        self.config = config

    def step(self, batch: Batch, progress: Progress) -> tuple[list[NetworkOutput], dict[str, Tensor]]:
        """``strong``, the mean over the networks."""
        c = self.config
        outputs, losses = [], []
        for k in range(len(self.networks)):
            views = make_views(batch, c.fourier, c.strong, replace(progress, stream=_VIEWS[k]).generator())
            target = pseudo_label(apply_cutmix(self.teach(batch.unlabelled, k), views.cutmix), c.threshold)
            output, log_p = self.learn(batch, views.strong, network=k)
            outputs.append(output)
            losses.append(thresholded_cross_entropy(log_p, target))
        return outputs, {"strong": torch.stack(losses).mean()}
