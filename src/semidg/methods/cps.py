"""CPS: cross pseudo supervision (Chen, Yuan, Zeng, Wang, CVPR 2021)."""

from __future__ import annotations

from torch import Tensor, nn

from semidg.augmentation.strong import apply_cutmix
from semidg.method_config import CPSMethod
from semidg.methods.base import make_views
from semidg.methods.recipe import RecipeMethod
from semidg.networks.factory import NetworkOutput
from semidg.objectives.consistency import pseudo_label, thresholded_cross_entropy
from semidg.types import Batch, Progress


class CPS(RecipeMethod):
    """L = L_sup + w(t) lambda/2 [ < CE(P_1(Z), Y_2) > + < CE(P_2(Z), Y_1) > ],  Y_k = argmax_c Q_k(X).

    Q_k is of the moving average of network k (``teacher: 0``: of network k itself, as published, but in eval mode),
    before CutMix, and Y_k is cut and mixed like Z. L_sup is the mean over the networks, hence the 1/2: the paper has
    both sums.
    Ours: one strong view Z for both networks, where the paper has one weak view (``fourier.lam: 0,
    strong.photometric: 0``; ``strong.cutmix`` is its CutMix variant); the unlabelled images only; both
    networks predict.
    """

    terms = ("supervised", "cross")
    count = 2

    def __init__(self, networks: nn.ModuleList, config: CPSMethod) -> None:
        super().__init__(networks, config)
        self.config = config
        self.leave_out({"cross": config.cross_weight})

    def step(self, batch: Batch, progress: Progress) -> tuple[list[NetworkOutput], dict[str, Tensor]]:
        """``cross``."""
        c = self.config
        views = make_views(batch, c.fourier, c.strong, progress.generator())
        outputs, log_p = zip(*(self.learn(batch, views.strong, network=k) for k in range(2)), strict=True)
        terms = {}
        if c.cross_weight:
            log_q = [apply_cutmix(self.teach(batch.unlabelled, k), views.cutmix) for k in range(2)]
            taught = [thresholded_cross_entropy(log_p[k], pseudo_label(log_q[1 - k], c.threshold)) for k in range(2)]
            terms["cross"] = c.cross_weight * (taught[0] + taught[1]) / 2
        return list(outputs), terms
