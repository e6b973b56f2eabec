"""What EPL and its dual-level extension share: views, one forward a network, pseudo labels, confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from semidg.augmentation.strong import apply_cutmix
from semidg.method_config import DualLevelMethod, EPLMethod
from semidg.methods.base import Method, Views, log_probabilities, make_views
from semidg.networks.factory import NetworkOutput
from semidg.networks.heads import ProjectionHead, labels_at_features
from semidg.objectives import confidence
from semidg.objectives.boundary import edge_target
from semidg.objectives.contrastive import choose_anchors, contrastive_loss
from semidg.objectives.schedule import ramp_weight
from semidg.types import IGNORE_INDEX, Batch, Progress

#: Stream of the draw of anchors, apart from that of the views: switching the term on changes no other one.
_ANCHORS = 7


@dataclass(frozen=True)
class NetworkViews:
    """What one network says of the unlabelled images; log-probabilities (B_u, K, H, W), labels (B_u, H, W) int64.

    ``label`` is Y_k, which teaches the other network, and ``probability`` what its author gives it, (B_u, H, W);
    ``keep`` are the pixels whose label is trusted, (B_u, H, W) bool. ``label_weak`` and ``label_strong`` are the labels
    of the single views.
    """

    log_weak: Tensor
    log_strong: Tensor
    log_average: Tensor
    label: Tensor
    probability: Tensor
    label_weak: Tensor
    label_strong: Tensor
    keep: Tensor


class TwoNetworkMethod(Method):
    """Two networks that teach each other on two views of every unlabelled image."""

    terms: tuple[str, ...] = ("supervised", "cacps", "contrastive")
    count = 2

    def __init__(self, networks: nn.ModuleList, config: EPLMethod | DualLevelMethod) -> None:
        super().__init__(networks, config.teacher, config.boundary)
        self.config = config
        self.leave_out(dict.fromkeys(type(self).terms[1:], config.ramp.maximum))
        self.leave_out({"contrastive": config.contrastive_weight})
        if config.contrastive_weight:
            self.add_heads("projection", ProjectionHead)

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
        outputs: list[NetworkOutput] = [network(images) for network in self.networks]
        named = self.supervised_terms(outputs, batch.masks, progress)
        if active:
            logits = [o.logits[len(batch.labelled) :] for o in outputs]
            a, b = (self._network_views(k, z, views, batch.unlabelled) for k, z in enumerate(logits))
            terms = self.unsupervised((a, b))
            if self.config.contrastive_weight:
                contrast = self._contrast(outputs, (a, b), batch.masks, progress)
                terms["contrastive"] = self.config.contrastive_weight * contrast
            named |= {name: weight * term for name, term in terms.items()}
        return named

    def _contrast(
        self,
        outputs: Sequence[NetworkOutput],
        views: tuple[NetworkViews, NetworkViews],
        masks: Tensor,
        progress: Progress,
    ) -> Tensor:
        """L_con on the features of the step's one forward; labels are brought to their resolution by nearest."""
        c, features = self.config.contrastive, outputs[0].features
        a, b = views
        sure = (a.label == b.label) & (torch.minimum(a.probability, b.probability) > c.confidence)
        true = labels_at_features(masks, features)
        labels = torch.cat([true, labels_at_features(a.label.where(sure, IGNORE_INDEX), features)])
        # the band is that of the whole pseudo labels: along a boundary few pixels are sure, and no two classes meet
        radius = max(1, round(min(features.shape[-2:]) / 32))
        pseudo = [edge_target(labels_at_features(v.label, features), radius) for v in views]
        band = torch.cat([edge_target(true, radius), pseudo[0] | pseudo[1]])
        generator = replace(progress, stream=_ANCHORS).generator()
        at = choose_anchors(labels, band, outputs[0].logits.shape[1], c, generator)
        # rows of a forward: labelled, X, Z; a labelled image stands for both of its views
        strong = at.image + len(a.label) * (at.image >= len(masks))
        height, width = features.shape[-2:]
        pixels = torch.cat([(image * height + at.row) * width + at.column for image in (at.image, strong)])
        first, second = (
            head(output.features.movedim(1, -1).flatten(0, 2)[pixels]).chunk(2)
            for head, output in zip(self.heads_of("projection"), outputs, strict=True)
        )
        return contrastive_loss(first, second, at.label, c.temperature)

    def _network_views(self, k: int, logits: Tensor, views: Views, unlabelled: Tensor) -> NetworkViews:
        log_weak, log_strong = log_probabilities(logits).chunk(2)
        log_average = confidence.log_average(log_weak, log_strong)
        with torch.no_grad():
            label_strong = log_strong.max(1).indices  # argmax is far slower
            if self.teachers is not None:
                # the teacher sees the plain images; its labels are then cut and mixed like the views
                log_teacher = apply_cutmix(log_probabilities(self.average(k)(unlabelled).logits), views.cutmix)
                best, label = log_teacher.max(1)
                label_weak = label
            else:
                best, label = log_average.max(1)
                label_weak = log_weak.max(1).indices
            probability = best.exp()
            keep = probability >= self.config.threshold
        return NetworkViews(log_weak, log_strong, log_average, label, probability, label_weak, label_strong, keep)
