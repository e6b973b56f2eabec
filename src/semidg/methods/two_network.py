"""What EPL and its dual-level extension share: views, one forward a network, pseudo labels, confidence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from semidg.augmentation.strong import apply_cutmix
from semidg.config import DualLevelMethod, EPLMethod
from semidg.methods.base import Method, Views, log_probabilities, make_views
from semidg.objectives import confidence
from semidg.objectives.schedule import ramp_weight
from semidg.objectives.supervised import supervised_loss
from semidg.types import Batch, Progress


@dataclass(frozen=True)
class NetworkViews:
    """What one network says of the unlabelled images; log-probabilities (B_u, K, H, W), labels (B_u, H, W) int64.

    ``label`` is Y_k, which teaches the other network; ``keep`` are the pixels whose label is trusted, (B_u, H, W) bool.
    ``label_weak`` and ``label_strong`` are the labels of the single views.
    """

    log_weak: Tensor
    log_strong: Tensor
    log_average: Tensor
    label: Tensor
    label_weak: Tensor
    label_strong: Tensor
    keep: Tensor


class TwoNetworkMethod(Method):
    """Two networks that teach each other on two views of every unlabelled image."""

    terms: tuple[str, ...] = ("supervised", "cacps")

    def __init__(self, networks: nn.ModuleList, config: EPLMethod | DualLevelMethod) -> None:
        super().__init__(networks, config.teacher)
        self.config = config

    def unsupervised(self, views: tuple[NetworkViews, NetworkViews]) -> dict[str, Tensor]:
        """Named unsupervised terms before the weight w(t)."""
        c = self.config
        terms = [
            confidence.confidence_aware_loss(
                taught.log_average,
                teaching.label,
                confidence.variance(teaching.log_weak, teaching.log_strong),
                c.confidence,
                c.detach_confidence,
                teaching.keep,
            )
            for teaching, taught in (views, views[::-1])
        ]
        return {"cacps": terms[0] + terms[1]}

    def losses(self, batch: Batch, progress: Progress) -> dict[str, Tensor]:
        """``supervised`` and, once the ramp has begun, the terms of ``unsupervised`` times w(t)."""
        weight = ramp_weight(progress.fraction, self.config.ramp)
        active = weight > 0 and len(batch.unlabelled) > 0
        images = batch.labelled
        if active:
            views = make_views(batch, self.config.fourier, self.config.strong, progress.generator())
            images = torch.cat([images, views.weak, views.strong])
        logits = [network(images).logits for network in self.networks]
        count = len(batch.labelled)
        supervised = [supervised_loss(z[:count], batch.masks) for z in logits]
        named = {"supervised": torch.stack(supervised).mean()}
        if active:
            pair = [self._network_views(k, z[count:], views, batch.unlabelled) for k, z in enumerate(logits)]
            named |= {name: weight * term for name, term in self.unsupervised((pair[0], pair[1])).items()}
        return named

    def _network_views(self, k: int, logits: Tensor, views: Views, unlabelled: Tensor) -> NetworkViews:
        log_weak, log_strong = log_probabilities(logits).chunk(2)
        log_average = confidence.log_average(log_weak, log_strong)
        with torch.no_grad():
            label_strong = log_strong.argmax(1)
            if self.teachers is not None:
                # the teacher sees the plain images; its labels are then cut and mixed like the views
                log_teacher = apply_cutmix(log_probabilities(self.teachers[k](unlabelled).logits), views.cutmix)
                best, label = log_teacher.max(1)
                label_weak = label
            else:
                best, label = log_average.max(1)
                label_weak = log_weak.argmax(1)
            keep = best.exp() >= self.config.threshold
        return NetworkViews(log_weak, log_strong, log_average, label, label_weak, label_strong, keep)
