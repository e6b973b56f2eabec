"""Mean Teacher (Tarvainen and Valpola, NeurIPS 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from semidg.augmentation.strong import apply_cutmix
from semidg.method_config import MeanTeacherMethod
from semidg.methods.base import make_views
from semidg.methods.recipe import RecipeMethod
from semidg.networks.factory import NetworkOutput
from semidg.objectives.consistency import squared_distance
from semidg.types import Batch, Progress


class MeanTeacher(RecipeMethod):
    """L = L_sup + w(t) < || P(Z) - Q(X) ||^2 >: P of the network, Q of its moving average, < > mean over pixels.

    Ours: X and Z are our weak and strong view, where the paper has two draws of one augmentation; the teacher is in
    eval mode, where the authors' code has it in train mode; the consistency is on the unlabelled images only, there on
    all; the distance is a sum over classes, as printed (codes take the mean, 1/K of it).
    """

    terms = ("supervised", "consistency")

    def __init__(self, networks: nn.ModuleList, config: MeanTeacherMethod) -> None:
        super().__init__(networks, config)
        self.config = config

    def step(self, batch: Batch, progress: Progress) -> tuple[list[NetworkOutput], dict[str, Tensor]]:
        """``consistency``."""
        views = make_views(batch, self.config.fourier, self.config.strong, progress.generator())
        q = apply_cutmix(self.teach(batch.unlabelled).exp(), views.cutmix)
        output, log_p = self.learn(batch, views.strong)
        return [output], {"consistency": squared_distance(log_p, q).mean()}
