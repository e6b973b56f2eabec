"""CrossLight: two networks see one image in unlike light and learn from what their averages agree on in plain light."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from semidg import ranks
from semidg.augmentation.strong import apply_cutmix, sample_cutmix
from semidg.config import LabelledViewConfig
from semidg.method_config import CrossLightMethod
from semidg.methods.base import make_views, strong_labelled
from semidg.methods.recipe import RecipeMethod
from semidg.networks.factory import NetworkOutput
from semidg.objectives.confidence import cross_entropy
from semidg.objectives.consistency import paste, soft_cross_entropy
from semidg.objectives.supervised import one_hot
from semidg.types import Batch, Progress

#: Streams of the strong views of the networks, of the labelled rectangles in them, and of their light.
_VIEWS, _PASTED, _LIGHT = (0, 8), (9, 10), (11, 12)


class CrossLight(RecipeMethod):
    """L = L_sup + w(t) mean_k < 1[max_c Q >= tau] CE(P_k(Z_k), Q) >,  CE(P, Q) = -sum_c Q_c log P_c.

    Q = mean over the networks j, and over the image and its mirror image m, of m^-1 Q_j(m X): Q_j of the moving average
    of network j, on the plain X, then cut and mixed like Z_k. Z_k is a strong view with a draw of its own for each
    network k, into some of which a rectangle of a labelled image, in a strong view too, is pasted, and its label into
    Q. < > is the mean over all pixels.
    From: labels of a moving average (Mean Teacher), weak to strong (FixMatch), two networks (CPS), labelled rectangles
    in unlabelled images (BCP, one way); what each part is worth is for the ablation to say.
    """

    terms = ("supervised", "strong")
    count = 2

    def __init__(self, networks: nn.ModuleList, config: CrossLightMethod) -> None:
        super().__init__(networks, config)
        self.config = config

    def step(self, batch: Batch, progress: Progress) -> tuple[list[NetworkOutput], dict[str, Tensor]]:
        """``strong``."""
        c = self.config
        said = [self.say(batch.unlabelled, k) for k in range(len(self.networks))]
        targets = said[::-1] if c.labels == "cross" else [torch.stack(said).mean(0)] * len(said)
        outputs, losses = [], []
        for k, q in enumerate(targets):
            of = k if c.views == "own" else 0
            views = make_views(batch, c.fourier, c.strong, replace(progress, stream=_VIEWS[of]).generator())
            z, target = views.strong, apply_cutmix(q, views.cutmix)
            if c.paste:
                labelled = self.light(batch, replace(progress, stream=_LIGHT[of]))
                z, target = self.paste(labelled, z, target, replace(progress, stream=_PASTED[of]).generator())
            output, log_p = self.learn(batch, z, network=k)
            outputs.append(output)
            losses.append(self.distance(log_p, target))
        return outputs, {"strong": torch.stack(losses).mean()}

    def say(self, images: Tensor, network: int) -> Tensor:
        """Q of one network on plain images, (B, K, H, W), the mean with that of the mirror images; no gradient."""
        if not self.config.mirror:
            return self.teach(images, network).exp()
        plain, mirrored = self.teach(torch.cat([images, images.flip(-1)]), network).exp().chunk(2)
        return (plain + mirrored.flip(-1)) / 2

    def light(self, batch: Batch, progress: Progress) -> Batch:
        """The batch with its labelled images as they are pasted."""
        c = self.config
        if c.paste_view == "weak":
            return batch
        view = LabelledViewConfig(probability=1, photometric=c.strong.photometric, fourier=c.fourier)
        return strong_labelled(batch, view, progress.generator())

    def paste(self, batch: Batch, z: Tensor, q: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Z and Q with a rectangle of a labelled image, and with its label as one-hot Q (0 where it is ignored)."""
        count, labelled, masks = len(z) * ranks.world(), ranks.gather(batch.labelled), ranks.gather(batch.masks)
        drawn = sample_cutmix(count, z.shape[-2], z.shape[-1], self.config.paste, generator).inside
        inside = ranks.send(ranks.own(drawn), z.device)
        rows = torch.randint(len(labelled), (count,), generator=generator)
        rows = ranks.send(ranks.own(rows), z.device)
        label = masks[rows]
        true = one_hot(label, q.shape[1]).to(q.dtype)
        return paste(inside, labelled[rows], z), paste(inside, true, q)

    def distance(self, log_p: Tensor, q: Tensor) -> Tensor:
        """The loss of one network: log P and Q, both (B, K, H, W), to a scalar."""
        best, label = q.max(1)
        loss = soft_cross_entropy(log_p, q) if self.config.target == "soft" else cross_entropy(log_p, label)
        return (loss * (best >= self.config.threshold) * (best > 0)).mean()
